"""A manifest in, a model folder out.

    out/                the model: `model.safetensors`, `config.json`, `README.md`
    out/run/            how it came about:
        config.yaml     every setting       versions.json   what it ran on
        metrics.jsonl   an entry an epoch   curves.svg      the same, drawn
        member-K.safetensors   each member's weights and its scores of what it never saw
        state.safetensors      where the member in training is

Every member is trained with another fold held out. Its scores of that fold set the
intervals and are the accuracy that the model card states.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from voxpanel.config import Config
from voxpanel.data.manifest import read_manifest
from voxpanel.data.splits import group_keys
from voxpanel.errors import ConfigError, DataError
from voxpanel.evaluate import evaluate_pairs
from voxpanel.evaluate.pairing import Pairs
from voxpanel.features.backbone import Backbone
from voxpanel.features.load import load_backbone
from voxpanel.features.store import FeatureStore, default_store
from voxpanel.model.calibration import calibrate
from voxpanel.model.card import write_card
from voxpanel.model.checkpoint import CONFIG, ModelRecord, choose_device, save_model
from voxpanel.model.gates import gate_report
from voxpanel.model.network import MosModel, Panel
from voxpanel.records import Rating
from voxpanel.train.curves import draw_curves
from voxpanel.train.loop import Trainer
from voxpanel.train.material import Material, gather, n_members, with_fewer
from voxpanel.train.parallel import Group, start
from voxpanel.train.sources import FrozenSource, LiveSource, frozen_source, live_source
from voxpanel.train.state import load_state, save_state, seed_step
from voxpanel.train.validate import predict


class Watcher(Protocol):
    """Who is told how far a run is; the command shows progress bars."""

    def begin(self, task: str, total: int) -> None:
        """A task of `total` steps begins; the one before is over."""

    def advance(self, note: str = "") -> None:
        """One step is done; the note says how it went."""

    def say(self, text: str) -> None:
        """Something the user should read."""


def train(
    manifests: Sequence[Path],
    out: Path,
    config: Config,
    watcher: Watcher,
    *,
    resume: bool = False,
    force: bool = False,
    cache: Path | None = None,
    device: str = "auto",
) -> Path:
    """Train a model and write its folder.

    Args:
        manifests: one or more; see `data/manifest.py`.
        out: the model folder.
        resume: continue the run in `out`, to the same bits as if it had not stopped.
        force: start over where `out` already has a run or a model.
        cache: where features of a frozen encoder are kept; the user's cache if None.

    Raises:
        VoxpanelError: a manifest, a setting or the encoder is wrong, or `out` is in use.
    """
    with start() as group:
        run = Run(manifests, out, config, watcher, group, choose_device(device))
        run.open(resume=resume, force=force)
        run.load(cache or default_store())
        for member in range(run.n_members):
            run.train_member(member)
        if group.is_first:
            run.finish()
    return out


class Run:
    """One training, from reading the manifests to the model folder."""

    def __init__(
        self,
        manifests: Sequence[Path],
        out: Path,
        config: Config,
        watcher: Watcher,
        group: Group,
        device: torch.device,
    ) -> None:
        self.manifests, self.out, self.config = manifests, out, config
        self.watcher, self.group, self.device = watcher, group, device
        self.folder = out / "run"
        self.ratings: list[Rating] = []
        for manifest in manifests:
            self.ratings += read_manifest(manifest).ratings
        self.material = gather(self.ratings, config)
        self.backbone: Backbone = load_backbone(config.backbone)
        self.source: FrozenSource | LiveSource

    @property
    def n_members(self) -> int:
        """How many members are trained."""
        return n_members(self.material, self.config)

    def open(self, *, resume: bool, force: bool) -> None:
        """Make the run folder, or check that the one there is of this very run."""
        settings = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        manifest = {"manifests": [hash_file(path) for path in self.manifests]}
        if self.group.is_first:
            if resume and (self.folder / "config.yaml").exists():
                self.check_same(settings, manifest)
            else:
                self.clear(force=force)
                (self.folder / "config.yaml").write_text(settings, encoding="utf-8")
                versions = json.dumps({**manifest, **versions_in_use()}, indent=2)
                (self.folder / "versions.json").write_text(versions + "\n", encoding="utf-8")
        self.group.barrier()

    def check_same(self, settings: str, manifest: Mapping[str, Any]) -> None:
        """Refuse to continue a run that was started from something else."""
        if (self.folder / "config.yaml").read_text(encoding="utf-8") != settings:
            raise ConfigError(
                f"{self.folder}/config.yaml: the run was started with other settings; give the "
                "same, or start over with --force"
            )
        before = json.loads((self.folder / "versions.json").read_text(encoding="utf-8"))
        if before["manifests"] != manifest["manifests"]:
            raise ConfigError(
                f"{self.folder}: the run was started from another manifest, or it was changed "
                "since; start over with --force"
            )

    def clear(self, *, force: bool) -> None:
        """Make an empty run folder."""
        if self.out.exists() and any(self.out.iterdir()) and not force:
            raise ConfigError(
                f"{self.out}: not empty; continue its run with --resume, or replace it with --force"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in [*self.folder.iterdir(), self.out / CONFIG]:
            if old.is_file():
                old.unlink()

    def load(self, cache: Path) -> None:
        """Get every clip's features, or check its audio if the encoder is trained."""
        paths = [clip.path for clip in self.material.clips]
        self.watcher.begin("features", len(paths))
        if self.config.backbone.fine_tune:
            self.source, readable = live_source(self.backbone, paths, self.watcher.advance)
        else:
            store = FeatureStore(self.backbone.to(self.device), cache)
            self.source, readable = frozen_source(store, paths, self.device, self.watcher.advance)
        self.backbone.to(self.device)
        for reason in readable.reasons:
            self.watcher.say(f"left out: {reason}")
        self.material = with_fewer(self.material, readable.kept)

    def train_member(self, member: int) -> None:
        """Train one member, unless its weights are there already."""
        done = self.folder / f"member-{member}.safetensors"
        if done.exists():
            return
        panel = self.new_panel(member)
        parts: dict[str, nn.Module] = {"panel": panel}
        if self.config.backbone.fine_tune:
            parts["backbone"] = self.backbone
        n_epochs = sum(stage.epochs for stage in self.config.stages)
        self.watcher.begin(f"member {member + 1} of {self.n_members}", n_epochs)
        state = self.folder / "state.safetensors"
        trainer = Trainer(
            self.config,
            self.material,
            member,
            nn.ModuleDict(parts),
            self.source,
            self.group,
            state,
            lambda entry: self.watcher.advance(epoch_note(entry)),
        )
        trainer.run()
        trainer.trained.eval()
        held = self.material.held_out_ratings(member)
        scores, _ = predict(panel, self.source, self.material, held)
        record = {"held": held, "scores": scores.tolist(), "history": trainer.progress.history}
        if self.group.is_first:
            save_state(done, trainer.trained.state_dict(), record)
            state.unlink(missing_ok=True)
        self.group.barrier()

    def new_panel(self, member: int) -> Panel:
        """Return a panel with first weights, fitted to the clips that it may see."""
        torch.manual_seed(seed_step(self.config.seed, member))
        n_classes = max(1, len(self.material.synthesizers))
        panel = Panel(self.config, self.backbone, n_classes, len(self.material.test_names))
        panel.to(self.device)
        seen = np.flatnonzero(self.material.folds != member)
        labelled = self.material.labelled.numpy()[seen]
        if not labelled.any():
            raise DataError(f"fold {member} holds every rated clip; group by something finer")
        panel.label_mean.fill_(float(self.material.targets[seen[labelled]].mean()))
        with torch.no_grad():
            panel.fusion.fit(self.source(seen.tolist()))
        return panel

    def finish(self) -> None:
        """Put the members together, calibrate, and write the model folder."""
        panels, held, scores, history = [], [], [], []
        for member in range(self.n_members):
            weights, record = load_state(self.folder / f"member-{member}.safetensors")
            parts = nn.ModuleDict({"panel": self.new_panel(member)})
            if self.config.backbone.fine_tune:
                parts["backbone"] = self.backbone
            parts.load_state_dict(weights)
            panels.append(parts["panel"])
            held += record["held"]
            scores += record["scores"]
            history += record["history"]
        network = MosModel(self.backbone, [panel for panel in panels if isinstance(panel, Panel)])
        record_of_model = self.record(held, np.array(scores), network)
        lines = "".join(json.dumps(entry) + "\n" for entry in history)
        (self.folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
        (self.folder / "curves.svg").write_text(draw_curves(history), encoding="utf-8")
        save_model(self.out, network, record_of_model, write_card(record_of_model))

    def record(
        self, held: list[int], scores: NDArray[np.float64], network: MosModel
    ) -> ModelRecord:
        """Describe the model: its calibration, what it was trained on, how well it did."""
        material, by = self.material, self.config.validation.by
        clips = [material.clips[row] for row in held]
        rated = material.ratings[held]
        groups = np.array(group_keys(material.clips, by))[held]
        basis = f"held out by {by}"
        systems = tuple(clip.system for clip in clips if clip.system is not None)
        pairs = Pairs(scores, rated, systems if len(systems) == len(clips) else None, len(clips))
        return ModelRecord(
            name=self.out.name,
            version=metadata.version("voxpanel"),
            config=self.config,
            synthesizers=material.synthesizers,
            tests=material.test_names,
            calibration=calibrate(scores, rated, groups.tolist(), basis),
            training=describe_material(material, self.ratings, self.manifests),
            measured={basis: evaluate_pairs(pairs).as_dict(), "experts": self.experts(network)},
        )

    def experts(self, network: MosModel) -> dict[str, Any] | None:
        """Report how the first member's gate uses its experts on all clips."""
        rows = list(range(len(self.material.clips)))
        gates = []
        with torch.inference_mode():
            for row in range(0, len(rows), 64):
                part = rows[row : row + 64]
                tests = self.material.tests[part].to(self.device)
                gates.append(network.panels[0](self.source(part), tests).gates.cpu())
        weights = torch.cat(gates).numpy()
        if weights.shape[1] == 0:
            return None
        report = gate_report(weights)
        return {name: getattr(report, name) for name in report.__slots__}


def describe_material(
    material: Material, ratings: Sequence[Rating], manifests: Sequence[Path]
) -> dict[str, Any]:
    """Count what a model was trained on."""
    return {
        "manifests": [path.name for path in manifests],
        "n_clips": len(material.clips),
        "n_rated_clips": int(material.labelled.sum()),
        "n_ratings": sum(rating.score is not None for rating in ratings),
        "n_systems": len({clip.system for clip in material.clips if clip.system}),
        "n_synthesizers": len(material.synthesizers),
    }


def epoch_note(entry: Mapping[str, Any]) -> str:
    """Say in a few words how an epoch went."""
    numbers = [("utterance LCC", "dev_utterance_lcc"), ("class accuracy", "dev_accuracy")]
    known = [(name, entry[key]) for name, key in numbers if entry.get(key) is not None]
    return f"{entry['stage']}: " + ", ".join(f"{name} {value:.3f}" for name, value in known)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions_in_use() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ("voxpanel", "torch", "transformers", "numpy", "scipy", "soundfile", "soxr")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in packages},
    }
