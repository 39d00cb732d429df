"""A manifest in, a model folder out.

Every member is trained with another fold held out. Its scores of that fold set the
intervals and are the accuracy that the model card states. How the run went is kept
in `out/run` (`runlog.py`); one that was stopped continues from there to the same bits.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voxpanel.config import Config
from voxpanel.data.manifest import read_manifest
from voxpanel.data.splits import group_keys
from voxpanel.errors import ConfigError
from voxpanel.evaluate import evaluate_pairs
from voxpanel.evaluate.pairing import Pairs
from voxpanel.features.backbone import Backbone
from voxpanel.features.load import load_backbone
from voxpanel.features.store import FeatureStore, default_store, hash_weights
from voxpanel.model.calibration import calibrate
from voxpanel.model.card import write_card
from voxpanel.model.checkpoint import (
    LoadedModel,
    ModelRecord,
    choose_device,
    load_model,
    save_model,
)
from voxpanel.model.gates import gate_report
from voxpanel.model.losses import UNKNOWN_CLASS
from voxpanel.model.network import MosModel, Panel, mean_score
from voxpanel.records import Rating
from voxpanel.train.first import copy_encoder, first_panel
from voxpanel.train.loop import Trainer
from voxpanel.train.material import Material, gather, n_members, with_fewer
from voxpanel.train.parallel import Group, start
from voxpanel.train.runlog import RunFolder
from voxpanel.train.sources import FrozenSource, LiveSource, frozen_source, live_source
from voxpanel.train.state import load_state, save_state
from voxpanel.train.validate import predict


class Watcher(Protocol):
    """Who is told how far a run is; the command shows progress bars."""

    def begin(self, task: str, total: int) -> None:
        """A task of `total` steps begins; the one before is over."""

    def advance(self, note: str = "") -> None:
        """One step is done; the note says how it went."""

    def say(self, text: str) -> None:
        """Something the user should read."""


class HeldOut(NamedTuple):
    """What members said of clips that they never saw.

    rows, scores: of the rated clips.
    n_named, n_told: clips of known synthesizer, and how many of them were told.
    """

    rows: list[int]
    scores: NDArray[np.float64]
    n_named: int
    n_told: int


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
        if group.is_first:
            run.folder.open(config, manifests, resume=resume, force=force)
        group.barrier()
        run.load(cache or default_store())
        for member in range(run.n_members):
            run.train_member(member)
        if group.is_first:
            run.finish()
    return out


class Run:
    """One training, from the manifests to the model folder."""

    source: FrozenSource | LiveSource

    def __init__(
        self,
        manifests: Sequence[Path],
        out: Path,
        config: Config,
        watcher: Watcher,
        group: Group,
        device: torch.device,
    ) -> None:
        self.manifests, self.config = manifests, config
        self.watcher, self.group, self.device = watcher, group, device
        self.folder = RunFolder(out)
        self.ratings = [
            rating for manifest in manifests for rating in read_manifest(manifest).ratings
        ]
        self.material = gather(self.ratings, config)
        self.n_members = n_members(self.material, config)
        self.backbone = load_backbone(config.backbone).to(device)
        self.started = load_model(config.start, str(device)) if config.start else None
        self.prior = load_model(config.blend.model, str(device)) if config.blend.prior else None
        if self.started is not None:
            copy_encoder(self.backbone, self.started)
        if self.prior is not None:
            check_prior(self.prior, self.backbone)

    def load(self, cache: Path) -> None:
        """Get every clip's features, or check its audio if the encoder is trained."""
        paths = [clip.path for clip in self.material.clips]
        self.watcher.begin("features", len(paths))
        if self.config.backbone.fine_tune:
            self.source, readable = live_source(self.backbone, paths, self.watcher.advance)
        else:
            store = FeatureStore(self.backbone, cache)
            self.source, readable = frozen_source(store, paths, self.device, self.watcher.advance)
        for reason in readable.reasons:
            self.watcher.say(f"left out: {reason}")
        self.material = with_fewer(self.material, readable.kept)
        if self.prior is not None:
            self.material = replace(self.material, prior=self.ask(self.prior))

    def ask(self, model: LoadedModel) -> Tensor:
        """Return what an earlier model says of every clip: `[N]`."""
        rows = range(len(self.material.clips))
        parts = [list(rows[start_row : start_row + 64]) for start_row in rows[::64]]
        with torch.inference_mode():
            scores = [mean_score(model.network.panels, self.source(part)) for part in parts]
        return torch.cat(scores)

    def train_member(self, member: int) -> None:
        """Train one member, unless its weights are there already."""
        if self.folder.member(member).exists():
            return
        n_epochs = sum(stage.epochs for stage in self.config.stages)
        self.watcher.begin(f"member {member + 1} of {self.n_members}", n_epochs)
        trainer = Trainer(
            self.config,
            self.material,
            member,
            self.parts(member),
            self.source,
            self.group,
            self.folder.state,
            self.note,
        )
        trainer.run()
        trainer.trained.eval()
        record = {**self.judge(trainer.panel, member), "history": trainer.progress.history}
        if self.group.is_first:
            save_state(self.folder.member(member), trainer.trained.state_dict(), record)
            self.folder.state.unlink(missing_ok=True)
        self.group.barrier()

    def parts(self, member: int) -> nn.ModuleDict:
        """Return what is trained, with its first weights."""
        panel = first_panel(
            self.config, self.backbone, self.material, self.source, member, self.started
        )
        parts: dict[str, nn.Module] = {"panel": panel}
        if self.config.backbone.fine_tune:
            parts["backbone"] = self.backbone
        return nn.ModuleDict(parts)

    def note(self, entry: dict[str, Any]) -> None:
        """Log an epoch and tell the watcher."""
        if self.group.is_first:
            self.folder.log(entry)
        numbers = [("utterance LCC", "dev_utterance_lcc"), ("class accuracy", "dev_accuracy")]
        known = [f"{name} {entry[key]:.3f}" for name, key in numbers if entry.get(key) is not None]
        self.watcher.advance(f"{entry['stage']}: {', '.join(known)}")

    def judge(self, panel: Panel, member: int) -> dict[str, Any]:
        """Ask a member about everything that was held out from it."""
        held = np.flatnonzero(self.material.folds == member).tolist()
        scores, logits = predict(panel, self.source, self.material, held)
        classes = self.material.classes[held].numpy()
        named = classes != UNKNOWN_CLASS
        told = logits.argmax(axis=1)[named] == classes[named]
        rated = self.material.labelled[held].numpy()
        return {
            "rows": np.array(held)[rated].tolist(),
            "scores": scores[rated].tolist(),
            "n_named": int(named.sum()),
            "n_told": int(told.sum()),
        }

    def finish(self) -> None:
        """Put the members together, calibrate, and write the model folder."""
        panels: list[Panel] = []
        records: list[dict[str, Any]] = []
        for member in range(self.n_members):
            weights, record = load_state(self.folder.member(member))
            parts = self.parts(member)
            parts.load_state_dict(weights)
            panel = parts["panel"].eval()
            assert isinstance(panel, Panel)
            panels.append(panel)
            records.append(record)
        held_out = HeldOut(
            [row for record in records for row in record["rows"]],
            np.array([score for record in records for score in record["scores"]]),
            sum(record["n_named"] for record in records),
            sum(record["n_told"] for record in records),
        )
        prior = list(self.prior.network.panels) if self.prior else []
        network = MosModel(self.backbone, panels, prior).eval()
        model = self.describe(held_out, network)
        prior_record = self.prior.record if self.prior else None
        save_model(self.folder.out, network, model, write_card(model), prior=prior_record)
        self.folder.finish([entry for record in records for entry in record["history"]])

    def describe(self, held_out: HeldOut, network: MosModel) -> ModelRecord:
        """Say what the model is: its calibration, its data, how well it did."""
        material, by = self.material, self.config.validation.by
        clips = [material.clips[row] for row in held_out.rows]
        rated = material.ratings[held_out.rows]
        groups = np.array(group_keys(material.clips, by))[held_out.rows].tolist()
        systems = tuple(clip.system for clip in clips if clip.system is not None)
        known = systems if len(systems) == len(clips) else None
        basis = f"held out by {by}"
        measured = {
            basis: evaluate_pairs(Pairs(held_out.scores, rated, known, len(clips))).as_dict(),
            "synthesizers told": {"n": held_out.n_named, "right": held_out.n_told},
            "experts": self.expert_use(network),
        }
        return ModelRecord(
            name=self.folder.out.name,
            version=metadata.version("voxpanel"),
            config=self.config,
            synthesizers=material.synthesizers,
            tests=material.test_names,
            calibration=calibrate(held_out.scores, rated, groups, basis),
            training=describe_material(material, self.ratings, self.manifests),
            measured=measured,
        )

    def expert_use(self, network: MosModel) -> list[dict[str, Any]]:
        """Report how each member's gate uses its experts on all clips."""
        reports = []
        rows = list(range(len(self.material.clips)))
        for panel in network.panels:
            gates = []
            with torch.inference_mode():
                for start_row in range(0, len(rows), 64):
                    part = rows[start_row : start_row + 64]
                    tests = self.material.tests[part].to(self.device)
                    prior = self.material.prior[part].to(self.device)
                    gates.append(panel(self.source(part), tests, prior).gates.cpu())
            weights = torch.cat(gates).numpy()
            if weights.shape[1]:
                report = gate_report(weights)
                reports.append({name: getattr(report, name) for name in report.__slots__})
        return reports


def check_prior(model: LoadedModel, backbone: Backbone) -> None:
    """Refuse an earlier model that cannot be asked, before any audio is read."""
    if hash_weights(model.network.backbone) != hash_weights(backbone):
        raise ConfigError(
            f"blend.model: {model.identity} has another encoder than {backbone.name}; "
            "use the backbone that it has, or set blend.prior=0"
        )
    if len(model.network.prior):
        raise ConfigError(
            f"blend.model: {model.identity} itself blends an earlier model in; give that one"
        )


def describe_material(
    material: Material, ratings: Sequence[Rating], manifests: Sequence[Path]
) -> dict[str, Any]:
    """Count what a model was trained on."""
    used = {(clip.path, clip.test) for clip in material.clips}
    return {
        "manifests": ", ".join(path.name for path in manifests),
        "clips": len(material.clips),
        "rated clips": int(material.labelled.sum()),
        "ratings": sum(
            rating.score is not None and (rating.path, rating.test) in used for rating in ratings
        ),
        "systems": len({clip.system for clip in material.clips if clip.system}),
        "synthesizers": len(material.synthesizers),
    }
