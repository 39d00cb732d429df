"""A model folder: weights, everything that decides a score, and a card for readers.

`model.safetensors` holds the weights, `config.json` the rest, `README.md` says what the
model is. No pickle is written or read. A folder that is not ours, is damaged or
comes from a newer format is refused by name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from voxpanel.config import Config, build_config
from voxpanel.errors import CheckpointError, DataError, VoxpanelError
from voxpanel.features.backbone import Backbone
from voxpanel.features.load import describe_backbone, rebuild_backbone
from voxpanel.features.store import FEATURES_VERSION
from voxpanel.model.calibration import Calibration
from voxpanel.model.network import MosModel, Panel

FORMAT = "voxpanel"
FORMAT_VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """All that a model is besides its weights.

    synthesizers: names of the classes, in order.
    tests: names of the listening tests that `test` may be, in order.
    training: what it was trained on, with licences, in words by name.
    measured: how well it did on clips it had not seen, by name.
    """

    name: str
    version: str
    config: Config
    synthesizers: tuple[str, ...]
    tests: tuple[str, ...]
    calibration: Calibration
    training: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network ready to score, its record, and a name by which scores are traced.

    identity: name, version and a hash of weights and settings.
    """

    network: MosModel
    record: ModelRecord
    identity: str


def save_model(
    folder: Path,
    network: MosModel,
    record: ModelRecord,
    card: str,
    dtype: torch.dtype = torch.float32,
    prior: ModelRecord | None = None,
) -> None:
    """Write a model folder; what is there under the same names is replaced.

    Args:
        prior: the record of the earlier model whose panels are in `network.prior`.
        dtype: of what was learned, on disk; it is computed with as float32. Statistics
            stay as they are: a small deviation would magnify the rounding of its mean.
    """
    if bool(len(network.prior)) != (prior is not None):
        raise DataError(
            "a network with an earlier model's panels is saved with its record as `prior`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)  # written last: a folder with a config is a whole one
    learned = {name for name, _ in network.named_parameters()}
    weights = {
        name: (tensor.to(dtype) if name in learned else tensor).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes files that only their owner can read
    (folder / CARD).write_text(card, encoding="utf-8")
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": record.name,
        "version": record.version,
        "rate_hz": network.backbone.rate_hz,
        "resampler": "soxr_hq",
        "features_version": FEATURES_VERSION,
        "label_scale": [1, 5],
        "backbone": describe_backbone(network.backbone),
        "n_members": len(network.panels),
        "prior": prior and describe_prior(prior, len(network.prior)),
        "synthesizers": list(record.synthesizers),
        "tests": list(record.tests),
        "calibration": asdict(record.calibration),
        "training": dict(record.training),
        "measured": dict(record.measured),
        "config": record.config.model_dump(mode="json"),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def load_model(source: str | Path, device: str = "auto") -> LoadedModel:
    """Load a model by the name of a shipped one, a folder, or a hub id.

    Raises:
        CheckpointError: it cannot be found, is not ours, is damaged or too new.
    """
    folder = find_model(str(source))
    content = read_config_file(folder / CONFIG)
    try:
        record = read_record(content, str(folder / CONFIG))
        backbone = rebuild_backbone(content["backbone"])
        sizes = (max(1, len(record.synthesizers)), len(record.tests))
        panels = build_panels(record.config, backbone, sizes, content["n_members"])
        prior: list[Panel] = []
        if content["prior"] is not None:
            earlier = content["prior"]
            earlier_config = build_config(earlier["config"], f"{folder / CONFIG} prior")
            prior = build_panels(earlier_config, backbone, earlier["sizes"], earlier["n_members"])
    except (VoxpanelError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(
            f"{folder / CONFIG}: an entry is missing or wrong ({reason}); fetch the model again"
        ) from None
    network = MosModel(backbone, panels, prior)
    fill(network, folder / WEIGHTS)
    network.eval().requires_grad_(False).to(choose_device(device))
    identity = f"{record.name} {record.version} {hash_files(folder)}"
    return LoadedModel(network, record, identity)


def describe_prior(record: ModelRecord, n_members: int) -> dict[str, Any]:
    """Return what it takes to build an earlier model's panels again."""
    return {
        "name": f"{record.name} {record.version}",
        "n_members": n_members,
        "sizes": [max(1, len(record.synthesizers)), len(record.tests)],
        "config": record.config.model_dump(mode="json"),
    }


def build_panels(
    config: Config, backbone: Backbone, sizes: Sequence[int], n_members: int
) -> list[Panel]:
    """Build panels without their weights; `sizes` counts synthesizers and tests."""
    n_synthesizers, n_tests = sizes
    return [Panel(config, backbone, n_synthesizers, n_tests) for _ in range(n_members)]


def find_model(source: str) -> Path:
    """Return the folder of a model: shipped, on disk, or from the hub."""
    shipped = shipped_folder()
    if source == "base":
        return shipped
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{source}: a file; give the model's folder")
    from voxpanel.features.pretrained import find_folder  # imports transformers

    try:
        return find_folder(source)
    except VoxpanelError as error:
        raise CheckpointError(f"no model {source!r}: shipped is 'base'; {error}") from None


def shipped_folder() -> Path:
    """Return the folder of the model that comes with the package."""
    return Path(str(resources.files("voxpanel"))) / "model" / "base"


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a `config.json` and check that it is ours and not newer than this code."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not there; this is no model folder, or not a whole one"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); fetch the model again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a voxpanel model; its `format` is not {FORMAT!r}")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this voxpanel reads {FORMAT_VERSION}; "
            "install the voxpanel that wrote it, or a newer one"
        )
    if content.get("features_version") != FEATURES_VERSION:
        raise CheckpointError(
            f"{path}: trained on features version {content.get('features_version')}, this voxpanel "
            f"computes {FEATURES_VERSION}; install the voxpanel that wrote it, or train again"
        )
    return content


def read_record(content: Mapping[str, Any], where: str) -> ModelRecord:
    """Return the record that a `config.json` holds."""
    return ModelRecord(
        name=content["name"],
        version=content["version"],
        config=build_config(content["config"], where),
        synthesizers=tuple(content["synthesizers"]),
        tests=tuple(content["tests"]),
        calibration=Calibration(**content["calibration"]),
        training=content["training"],
        measured=content["measured"],
    )


def fill(network: MosModel, path: Path) -> None:
    """Give a network the weights of a file; every one has to be there and fit."""
    try:
        weights = load_file(path)
        network.load_state_dict(
            {
                name: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in weights.items()
            }
        )
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: damaged or not this model's ({reason}); fetch it again"
        ) from None


def hash_files(folder: Path) -> str:
    """Return 12 digits that change with any weight or setting."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]


def choose_device(device: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"device {device!r}: {str(error).splitlines()[0]}; try cpu") from None
    return chosen


def known_models() -> list[ModelRecord]:
    """Return the records of the models that come with the package."""
    path = shipped_folder() / CONFIG
    return [read_record(read_config_file(path), str(path))]
