"""One member through its stages: epochs, early stop, exact resume.

`Trainer.run` is the whole of it; `train_stage` and `train_epoch` are its loops and
`step` is one update: forward, the joint loss (eq. 3-6), backward, AdamW. A global batch
may be shared among processes; each divides its losses by the global counts and the
gradients are summed, so the update is that of one process.

Axes: B clips of this process's share of a batch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from voxpanel.config import Config, Stage
from voxpanel.features.extract import Features
from voxpanel.model import losses
from voxpanel.model.network import Panel, PanelOutput
from voxpanel.train.material import Material
from voxpanel.train.parallel import Group
from voxpanel.train.schedule import (
    EarlyStop,
    UncertaintyWeights,
    dynamic_weights,
    learning_rate_factor,
    task_weights,
)
from voxpanel.train.state import (
    load_state,
    optimizer_tensors,
    pack,
    restore_optimizer,
    save_state,
    seed_step,
    unpack,
)
from voxpanel.train.validate import Validation, validate

SAVE_EVERY_S = 20.0
SAVE_SHARE = 20  # and not more than a twentieth of the time goes into saving


class Source(Protocol):
    """Where features come from: the cache, or the encoder that is being trained."""

    def __call__(self, rows: Sequence[int]) -> Features:
        """Return the features of the clips at these places, gradients included."""


@dataclass
class Progress:
    """Where a member is, and what it has seen; all of it goes into the state.

    n_batches: done in this epoch.
    sums: of the losses in this epoch, by name.
    history: one entry an epoch, as in `metrics.jsonl`.
    """

    stage: int = 0
    epoch: int = 0
    n_batches: int = 0
    stop: EarlyStop = field(default_factory=EarlyStop)
    sums: dict[str, float] = field(default_factory=dict)
    epoch_losses: list[list[float]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return what `from_record` needs, ready for JSON."""
        return {**self.__dict__, "stop": self.stop.state()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Progress":
        """Return the progress whose `record` this is."""
        return cls(**{**record, "stop": EarlyStop.from_state(record["stop"])})


class Trainer:
    """Trains one member and leaves it with the best weights of its last stage.

    trained: what is optimised: the panel, and the encoder if it is fine-tuned.
    on_epoch: called with each new entry of the history.
    """

    def __init__(
        self,
        config: Config,
        material: Material,
        member: int,
        trained: nn.ModuleDict,
        source: Source,
        group: Group,
        state_file: Path,
        on_epoch: Callable[[dict[str, Any]], None],
    ) -> None:
        self.config, self.material, self.member = config, material, member
        self.trained, self.source, self.group = trained, source, group
        self.state_file, self.on_epoch = state_file, on_epoch
        panel = trained["panel"]
        assert isinstance(panel, Panel)
        self.panel = panel
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.mean_gate: Tensor | None = None
        self.optimizer: torch.optim.Optimizer = self.build_optimizer()
        self.saved_at = time.monotonic()
        self.save_every_s = SAVE_EVERY_S

    @property
    def stage(self) -> Stage:
        """The stage that the member is in."""
        return self.config.stages[self.progress.stage]

    def run(self) -> None:
        """Train through all stages, or what is left of them."""
        self.restore()
        while self.progress.stage < len(self.config.stages):
            rows, held = self.material.rows(self.stage, self.member)
            if has_task(self.stage, self.material, rows):
                self.train_stage(rows, held)
            self.progress.stage += 1
            self.progress.epoch = self.progress.n_batches = 0
            self.progress.stop, self.progress.epoch_losses, self.best = EarlyStop(), [], {}
            self.mean_gate = None
            if self.progress.stage < len(self.config.stages):
                self.optimizer = self.build_optimizer()
                self.save()

    def train_stage(self, rows: list[int], held: list[int]) -> None:
        """Train until the stage's epochs or its patience run out; keep the best weights."""
        stage, progress = self.stage, self.progress
        progress.stop = EarlyStop(stage.patience, progress.stop.best, progress.stop.n_without)
        while progress.epoch < stage.epochs and not progress.stop.should_stop:
            self.train_epoch(rows)
            self.finish_epoch(len(rows), self.validate(held))
        self.trained.load_state_dict(self.best, strict=False)

    def train_epoch(self, rows: list[int]) -> None:
        """Train on every row once, in an order that the epoch's number decides."""
        place = (self.config.seed, self.member, self.progress.stage, self.progress.epoch)
        order = np.random.default_rng(seed_step(*place)).permutation(rows).tolist()
        size = self.config.optimizer.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        self.trained.train()
        while self.progress.n_batches < len(batches):
            batch = self.progress.n_batches
            torch.manual_seed(seed_step(*place, batch, self.group.rank))
            n_steps = self.stage.epochs * len(batches)
            self.step(batches[batch], self.progress.epoch * len(batches) + batch, n_steps)
            self.progress.n_batches += 1
            self.save_if_due()

    def step(self, rows: list[int], number: int, n_steps: int) -> None:
        """Make one update from a global batch."""
        settings = self.config.optimizer
        factor = learning_rate_factor(number, n_steps, settings.warmup)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = parameters["peak"] * factor
        share = list(self.group.share(rows))
        output = self.panel(self.source(share), self.material.tests[share].to(self.device))
        loss = self.loss(output, share, len(rows), number, n_steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimised = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.group.sum_gradients(optimised)
        nn.utils.clip_grad_norm_(self.trained.parameters(), settings.clip_norm)
        self.optimizer.step()

    def loss(
        self, output: PanelOutput, share: list[int], n_global: int, number: int, n_steps: int
    ) -> Tensor:
        """Return this process's part of the joint loss (eq. 3) and log its parts."""
        settings = self.config.losses
        target = self.material.targets[share].to(self.device)
        labelled = self.material.labelled[share].to(self.device)
        classes = self.material.classes[share].to(self.device)
        weights = self.material.weights[share].to(self.device)
        mos = self.divide(losses.mos_loss(output.mos, target, labelled, settings.beta, weights))
        if settings.contrastive:
            pairs = losses.contrastive(output.mos, target, labelled, settings.margin)
            mos = mos + settings.contrastive * self.divide(pairs)
        synthesizer = self.divide(losses.class_loss(output.logits, classes, settings.smoothing))
        self.log(mos=mos, synthesizer=synthesizer)
        regulariser = self.regulariser(output, n_global)
        if isinstance(self.task_balance, UncertaintyWeights):
            tasks: Tensor = self.task_balance(mos, synthesizer, 1 / self.group.size)
            return tasks + regulariser
        return losses.joint(mos, synthesizer, regulariser, self.weights(number, n_steps))

    def regulariser(self, output: PanelOutput, n_global: int) -> Tensor:
        """Return eq. 6 for this process's share; 0 without a mixture."""
        if output.gates.shape[1] == 0:
            return output.mos.new_zeros(())
        settings = self.config.losses
        mean_gate = self.group.sum_with_own_gradient(output.gates.sum(dim=0)) / n_global
        running = losses.running_mean_gate(mean_gate, self.mean_gate)
        self.mean_gate = running.detach()
        diversity = self.divide(losses.diversity(output.experts))
        entropy = self.divide(losses.gate_entropy(output.gates))
        balance = losses.balance(running)
        self.log(diversity=diversity, entropy=entropy)
        weights = losses.RegulariserWeights(settings.diversity, settings.entropy, settings.balance)
        return losses.expert_regulariser(diversity, entropy, balance, weights)

    def weights(self, number: int, n_steps: int) -> tuple[float, float]:
        """Return the weights of the two tasks at a step (eq. 3)."""
        first, last = self.stage.mos, self.stage.synthesizer
        scheduled = task_weights(number, n_steps, (first[0], last[0]), (first[1], last[1]))
        past = self.progress.epoch_losses[-2:]
        both = len(past) == 2 and all(value > 0 for pair in past for value in pair)
        if self.config.losses.balance_tasks == "dynamic" and both:
            mos, synthesizer = dynamic_weights(past[1], past[0])
            return mos, synthesizer
        return scheduled

    def divide(self, term: losses.Term) -> Tensor:
        """Divide a loss by the global count of what it is over."""
        return term.over(self.group.sum(term.weight))

    def log(self, **parts: Tensor) -> None:
        """Add parts of a loss to the epoch's sums."""
        for name, part in parts.items():
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + float(part.detach())

    def validate(self, held: list[int]) -> Validation:
        """Score the held-out clips of this stage."""
        self.trained.eval()
        epoch = self.progress.epoch
        return validate(
            self.panel, self.source, self.material, held, self.stage, self.config, epoch
        )

    def finish_epoch(self, n_rows: int, validation: Validation) -> None:
        """Log the epoch, keep the weights if they are the best, and save."""
        progress = self.progress
        n_batches = max(1, progress.n_batches)
        totals = {name: self.total(value) / n_batches for name, value in progress.sums.items()}
        progress.epoch_losses.append([totals.get("mos", 0.0), totals.get("synthesizer", 0.0)])
        progress.stop = progress.stop.after(validation.key)
        if progress.stop.improved:
            self.best = {
                name: tensor.detach().clone() for name, tensor in self.trained.state_dict().items()
            }
        entry = {
            "member": self.member,
            "stage": self.stage.name,
            "epoch": progress.epoch,
            "n_train": n_rows,
            **{f"train_{name}": round(value, 6) for name, value in totals.items()},
            **validation.entry(),
        }
        progress.history.append(entry)
        self.on_epoch(entry)
        progress.epoch += 1
        progress.n_batches, progress.sums = 0, {}
        self.save_if_due()

    def total(self, value: float) -> float:
        """Sum a number over processes."""
        return float(self.group.sum(torch.tensor(value, dtype=torch.float64)))

    @property
    def device(self) -> torch.device:
        """Where the panel is."""
        return self.panel.label_mean.device

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over what is trained, at the rates of the stage."""
        learned = self.config.losses.balance_tasks == "uncertainty"
        self.task_balance = UncertaintyWeights().to(self.device) if learned else None
        rate = self.stage.learning_rate if self.progress.stage < len(self.config.stages) else 0.0
        groups: list[dict[str, Any]] = [{"params": list(self.panel.parameters()), "peak": rate}]
        if "backbone" in self.trained:
            encoder = [
                weight for weight in self.trained["backbone"].parameters() if weight.requires_grad
            ]
            factor = self.config.backbone.learning_rate_factor
            groups.append({"params": encoder, "peak": rate * factor})
        if self.task_balance is not None:
            balance = list(self.task_balance.parameters())
            groups.append({"params": balance, "peak": rate, "weight_decay": 0.0})
        decay = self.config.optimizer.weight_decay
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)

    def save_if_due(self) -> None:
        """Write the state every so often; when, does not change what is computed."""
        if time.monotonic() - self.saved_at > self.save_every_s:
            self.save()

    def save(self) -> None:
        """Write the state, in the first process."""
        start = time.monotonic()
        if self.group.is_first:
            record = {"member": self.member, **self.progress.record()}
            save_state(self.state_file, self.tensors(), record)
        self.saved_at = time.monotonic()
        self.save_every_s = max(SAVE_EVERY_S, SAVE_SHARE * (self.saved_at - start))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that the next step depends on."""
        tensors = {
            **pack("weights", self.trained.state_dict()),
            **pack("best", self.best),
            **pack("optimizer", optimizer_tensors(self.optimizer)),
        }
        if self.mean_gate is not None:
            tensors["mean_gate"] = self.mean_gate
        if self.task_balance is not None:
            tensors["task_balance"] = self.task_balance.log_variances
        return tensors

    def restore(self) -> None:
        """Continue from the state on disk, if there is one."""
        if not self.state_file.exists():
            return
        tensors, record = load_state(self.state_file)
        if record.pop("member") != self.member:
            return  # that one is done; the run was stopped before its state was removed
        self.progress = Progress.from_record(record)
        self.trained.load_state_dict(unpack("weights", tensors))
        self.best = unpack("best", tensors)
        self.optimizer = self.build_optimizer()
        restore_optimizer(self.optimizer, unpack("optimizer", tensors))
        mean_gate = tensors.get("mean_gate")
        self.mean_gate = None if mean_gate is None else mean_gate.to(self.device)
        if self.task_balance is not None:
            self.task_balance.load_state_dict({"log_variances": tensors["task_balance"]})


def has_task(stage: Stage, material: Material, rows: list[int]) -> bool:
    """Tell whether a stage has something to learn: clips, and two classes if only those count."""
    only_classes = stage.mos == (0.0, 0.0)
    return bool(rows) and not (only_classes and len(material.synthesizers) < 2)
