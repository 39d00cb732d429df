"""From utterances to systems: both levels of an evaluation.

The utterance level compares every pair. The system level first averages predicted
and rated scores within each system, then compares the averages. The metrics are
in `metrics.py`, their intervals in `intervals.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from voxpanel.errors import DataError
from voxpanel.evaluate.intervals import Intervals
from voxpanel.evaluate.metrics import METRICS, Metrics, as_pair, metrics


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Predicted against rated scores at both levels.

    system: None where the systems are not known.
    utterance_intervals, system_intervals: None where they were not asked for.
    n_rated: utterances that have a rating.
    n_missing: those of them whose score is missing (they could not be scored); the
        metrics are over the others.
    n_unrated: scores that no rating belongs to; they are left out.
    """

    utterance: Metrics
    system: Metrics | None = None
    utterance_intervals: Intervals | None = None
    system_intervals: Intervals | None = None
    n_rated: int = 0
    n_missing: int = 0
    n_unrated: int = 0

    @property
    def n_scored(self) -> int:
        """Count the utterances that the metrics are over."""
        return self.utterance.n

    def as_dict(self) -> dict[str, object]:
        """Return what `voxpanel evaluate --json` prints.

        Each level is `n` and, by metric, `value`, `low` and `high`; what is
        undefined or was not asked for is None, as JSON has no nan.
        """
        system = self.system and level_as_dict(self.system, self.system_intervals)
        return {
            "utterance": level_as_dict(self.utterance, self.utterance_intervals),
            "system": system,
        }


def level_as_dict(values: Metrics, intervals: Intervals | None) -> dict[str, object]:
    """Return one level of `Evaluation.as_dict`."""
    level: dict[str, object] = {"n": values.n}
    for name in METRICS:
        low, high = getattr(intervals, name) if intervals else (math.nan, math.nan)
        cell = {"value": getattr(values, name), "low": low, "high": high}
        level[name] = {key: None if math.isnan(x) else x for key, x in cell.items()}
    return level


def evaluate_levels(
    predicted: ArrayLike, rated: ArrayLike, systems: Sequence[str] | None = None
) -> Evaluation:
    """Compute the metrics at both levels, without intervals.

    Args:
        predicted: N scores.
        rated: N scores; item i of both is one utterance.
        systems: N names; without them there is no system level.

    Raises:
        DataError: lengths differ, or a score is NaN or infinite.
    """
    x, y = as_pair(predicted, rated)
    system = None
    if systems is not None:
        system = metrics(*mean_pairs(x.tolist(), y.tolist(), systems))
    return Evaluation(metrics(x, y), system, n_rated=len(x))


def mean_pairs(
    predicted: Sequence[float], rated: Sequence[float], systems: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Average both kinds of scores per system; systems in order of first appearance."""
    return (
        list(system_means(predicted, systems).values()),
        list(system_means(rated, systems).values()),
    )


def system_means(scores: Sequence[float], systems: Sequence[str]) -> dict[str, float]:
    """Average utterance scores into one score per system.

    Within a system every utterance weighs the same, whatever its duration or
    its number of raters.

    Args:
        scores: N scores, 1-5.
        systems: N names; item i of both is one utterance.

    Returns:
        Name to mean, in order of first appearance.

    Raises:
        DataError: lengths differ, or a score is NaN or infinite.

    Source: the paper, table 2 ("System-level").

    >>> system_means([4.0, 2.0, 3.5], ["A", "A", "B"])
    {'A': 3.0, 'B': 3.5}
    """
    if len(scores) != len(systems):
        raise DataError(f"scores and systems must pair up: got {len(scores)} and {len(systems)}")
    groups: dict[str, list[float]] = {}
    for row, (score, system) in enumerate(zip(scores, systems, strict=True)):
        if not math.isfinite(score):
            raise DataError(f"row {row} (system {system!r}): score is {score}; drop the row first")
        groups.setdefault(system, []).append(score)
    return {system: math.fsum(group) / len(group) for system, group in groups.items()}
