"""The folder of a run: what it was started from, and what it has written so far.

config.yaml     every setting
versions.json   manifests by their hashes, and what the run runs on
metrics.jsonl   an entry an epoch, as they come; in order once the run is done
curves.svg      the same, drawn
member-K.safetensors   a member's weights and its scores of what it never saw
state.safetensors      where the member in training is
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from voxpanel.config import Config
from voxpanel.errors import ConfigError
from voxpanel.train.curves import draw_curves

PACKAGES = ("voxpanel", "torch", "transformers", "numpy", "scipy", "soundfile", "soxr")


class RunFolder:
    """`out/run`, the record of how the model in `out` came about."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out / "run"
        self.state = self.path / "state.safetensors"

    def member(self, member: int) -> Path:
        """Return the file of a member that is trained."""
        return self.path / f"member-{member}.safetensors"

    def open(self, config: Config, manifests: Sequence[Path], *, resume: bool, force: bool) -> None:
        """Make the folder, or check that the one there is of this very run.

        Raises:
            ConfigError: `out` is in use, or its run was started from something else.
        """
        settings = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        hashes = [hash_file(path) for path in manifests]
        if resume and (self.path / "versions.json").exists():
            self.check_same(settings, hashes)
            for draft in self.path.glob("*.draft"):  # of a file that was not finished
                draft.unlink()
            return
        # A run that was stopped right here has nothing to lose yet.
        just_begun = resume and self.out.exists() and set(self.out.iterdir()) == {self.path}
        self.clear(force=force or just_begun)
        (self.path / "config.yaml").write_text(settings, encoding="utf-8")
        versions = json.dumps({"manifests": hashes, **versions_in_use()}, indent=2)
        draft = self.path / "versions.draft"
        draft.write_text(versions + "\n", encoding="utf-8")
        draft.replace(self.path / "versions.json")  # last, for with it a run can be resumed

    def check_same(self, settings: str, hashes: list[str]) -> None:
        """Refuse to continue a run that was started from something else."""
        if (self.path / "config.yaml").read_text(encoding="utf-8") != settings:
            raise ConfigError(
                f"{self.path}/config.yaml: the run was started with other settings; give the "
                "same, or start over with --force"
            )
        before = json.loads((self.path / "versions.json").read_text(encoding="utf-8"))
        if before["manifests"] != hashes:
            raise ConfigError(
                f"{self.path}: the run was started from another manifest, or it was changed "
                "since; start over with --force"
            )

    def clear(self, *, force: bool) -> None:
        """Make the folder empty."""
        if self.out.exists() and any(self.out.iterdir()) and not force:
            raise ConfigError(
                f"{self.out}: not empty; continue its run with --resume, or replace it with --force"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        # The versions first, for without them nobody takes the rest for a run to resume.
        first = self.path / "versions.json"
        for old in [first, *self.path.iterdir(), self.out / "config.json"]:
            if old.is_file():
                old.unlink()

    def log(self, entry: Mapping[str, Any]) -> None:
        """Add an epoch to the metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def finish(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the metrics of all members in order, and draw them."""
        lines = "".join(json.dumps(entry) + "\n" for entry in history)
        (self.path / "metrics.jsonl").write_text(lines, encoding="utf-8")
        (self.path / "curves.svg").write_text(draw_curves(history), encoding="utf-8")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions_in_use() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in PACKAGES},
    }
