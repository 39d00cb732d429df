"""What changes during training, as functions of the step or of past losses.

The learning rate warms up and falls along a cosine; the weights of the two tasks
(eq. 3) move in a straight line, or follow the losses: learned uncertainties, or
dynamic weight averaging. `EarlyStop` counts the epochs without a better validation.
The stages that set these numbers are in the recipes, the steps are in `loop.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxpanel.errors import ConfigError, DataError


def learning_rate_factor(
    step: int, n_steps: int, warmup_fraction: float, final_fraction: float = 0.0
) -> float:
    """Return the share of the peak learning rate to use for one update.

    A straight line up over the first `warmup_fraction` of the steps, then half a
    cosine down. No update is wasted at rate 0: the warm-up starts one stride above
    it, and `final_fraction` is reached at `n_steps`, one step after the last update.

    Args:
        step: which update, from 0; beyond `n_steps` the rate stays at its end.
        n_steps: updates in the stage, 1 or more.
        warmup_fraction: of the steps, 0 up to below 1; rounded to whole steps.
        final_fraction: of the peak rate, 0-1.

    Raises:
        ConfigError: an argument is out of its range.

    >>> [learning_rate_factor(step, 6, 0.33) for step in (0, 1, 2, 4, 6)]
    [0.3333333333333333, 0.6666666666666666, 1.0, 0.5, 0.0]
    """
    require_steps(step, n_steps)
    if not 0 <= warmup_fraction < 1:
        raise ConfigError(f"warmup_fraction is {warmup_fraction}; give 0 up to below 1")
    if not 0 <= final_fraction <= 1:
        raise ConfigError(f"final_fraction is {final_fraction}; give 0 to 1")
    n_warmup = round(warmup_fraction * n_steps)
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    progress = min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))
    return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2


def task_weights(
    step: int, n_steps: int, start: tuple[float, float], end: tuple[float, float]
) -> tuple[float, float]:
    """Return the weights of the MOS and the class loss for one update (eq. 3).

    A straight line: the first update has `start`, the last one `end`. A stage of
    one update has `start`.

    Args:
        step: which update, from 0; beyond the last one the weights stay at `end`.
        n_steps: updates in the stage, 1 or more.
        start, end: weights of (MOS, class).

    Raises:
        ConfigError: a step or a number of steps that cannot be.

    >>> [task_weights(step, 3, (0.25, 0.75), (0.75, 0.25)) for step in range(3)]
    [(0.25, 0.75), (0.5, 0.5), (0.75, 0.25)]
    """
    require_steps(step, n_steps)
    progress = min(1.0, step / max(1, n_steps - 1))
    mos = (1 - progress) * start[0] + progress * end[0]
    synthesizer = (1 - progress) * start[1] + progress * end[1]
    return mos, synthesizer


def require_steps(step: int, n_steps: int) -> None:
    """Refuse a step before the first, and a stage without steps."""
    if n_steps < 1:
        raise ConfigError(f"n_steps is {n_steps}; a stage has 1 update or more")
    if step < 0:
        raise ConfigError(f"step is {step}; steps count from 0")


def dynamic_weights(
    previous: Sequence[float], earlier: Sequence[float], temperature: float = 2.0
) -> tuple[float, ...]:
    """Weigh the tasks by how slowly their losses fall: dynamic weight averaging.

    `softmax(r / temperature)` with r_k the loss of task k in the previous epoch over
    its loss in the epoch before: a task that stops falling gets more weight. The
    weights sum to 1, as those of `task_weights` do (the source's sum to the number
    of tasks). The first two epochs have no such ratio; weigh them by `task_weights`.

    Args:
        previous: mean loss of each task in the last epoch.
        earlier: the same, one epoch before.
        temperature: the higher, the more equal the weights.

    Raises:
        DataError: lengths differ, or a loss is not above 0.
        ConfigError: the temperature is not above 0.

    Source: Liu et al. 2019 (arXiv 1803.10704), eq. 7.

    >>> dynamic_weights([0.5, 2.0], [1.0, 4.0])
    (0.5, 0.5)
    """
    if len(previous) != len(earlier):
        raise DataError(
            f"previous and earlier losses must pair up: got {len(previous)} and {len(earlier)}"
        )
    if not temperature > 0:
        raise ConfigError(f"dynamic weights: temperature is {temperature}; give a number above 0")
    for task, loss in enumerate([*previous, *earlier]):
        if not 0 < loss < math.inf:
            raise DataError(f"task {task % len(previous)}: a mean loss is {loss}; expected above 0")
    ratios = [new / old / temperature for new, old in zip(previous, earlier, strict=True)]
    largest = max(ratios)  # taken off first, so that exp stays finite
    shares = [math.exp(ratio - largest) for ratio in ratios]
    return tuple(share / math.fsum(shares) for share in shares)


class UncertaintyWeights(nn.Module):
    """Weigh the two tasks by uncertainties that are learned with the network.

    With s = log sigma^2 for each task, the loss is
    `exp(-s_mos) L_mos / 2 + exp(-s_class) L_class + (s_mos + s_class) / 2`, the half
    belonging to a regression. Keep `log_variances` out of weight decay, which
    would pull both uncertainties towards 1.

    Source: Kendall et al. 2018 (arXiv 1705.07115), eq. 7-10.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(2))

    def forward(self, mos: Tensor, synthesizer: Tensor, share: float = 1.0) -> Tensor:
        """Return the joint loss of the two tasks' mean losses.

        Args:
            mos, synthesizer: this process's part of the mean loss of each task.
            share: this process's part of the term that no data enter, `1 / n_processes`,
                so that it is counted once when gradients are summed.
        """
        precisions = torch.exp(-self.log_variances)
        tasks = precisions[0] * mos / 2 + precisions[1] * synthesizer
        return tasks + share * self.log_variances.sum() / 2

    def task_weights(self) -> tuple[float, float]:
        """Return the weights of (MOS, class) in force, for the log."""
        mos, synthesizer = torch.exp(-self.log_variances.detach()).tolist()
        return mos / 2, synthesizer


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Counts the epochs since the last better validation.

    A key is a tuple compared from its first number on, larger being better: for
    the paper's choice `(system SRCC, -system MSE, utterance LCC)`. NaN (a
    correlation with a constant) is worse than any number, and kept as None. An
    equal key is no improvement; but where no number is defined, nothing held out
    can judge, and the last epoch counts as the best.

    patience: epochs without improvement after which training stops.
    best: the best key so far; None before the first epoch.
    n_without: epochs since it.
    """

    patience: int = 5
    best: tuple[float | None, ...] | None = None
    n_without: int = 0

    def after(self, key: Sequence[float]) -> "EarlyStop":
        """Return the state after one more epoch.

        >>> stop = EarlyStop(patience=2).after((0.8, -0.2)).after((0.8, -0.3))
        >>> stop.improved, stop.should_stop, stop.after((0.7, -0.1)).should_stop
        (False, False, True)
        """
        defined = tuple(None if math.isnan(number) else float(number) for number in key)
        blind = all(number is None for number in (*defined, *(self.best or ())))
        if blind or self.best is None or rank(defined) > rank(self.best):
            return EarlyStop(self.patience, defined, 0)
        return EarlyStop(self.patience, self.best, self.n_without + 1)

    @property
    def improved(self) -> bool:
        """Whether the last epoch was the best so far."""
        return self.best is not None and self.n_without == 0

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return self.n_without >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, ready for JSON."""
        best = None if self.best is None else list(self.best)
        return {"patience": self.patience, "best": best, "n_without": self.n_without}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "EarlyStop":
        """Return the object whose `state` this is."""
        best = None if state["best"] is None else tuple(state["best"])
        return cls(state["patience"], best, state["n_without"])


def rank(key: tuple[float | None, ...]) -> tuple[float, ...]:
    """Return a key that compares: None, an undefined number, below every other."""
    return tuple(-math.inf if number is None else number for number in key)
