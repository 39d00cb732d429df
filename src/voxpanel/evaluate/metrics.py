"""The four metrics of predicted against rated scores, at whichever level.

Definitions are scipy's, on float64: LCC is Pearson's correlation, SRCC is
Spearman's with average ranks for ties, KTAU is Kendall's tau-b, MSE is the mean
squared difference. Averages per system are in `levels.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxpanel.errors import DataError

METRICS = ("mse", "lcc", "srcc", "ktau")
# Below this spread, relative to the mean, differences are rounding (scipy's bound too).
CONSTANT = 1e-13


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of n pairs.

    undefined: why the correlations are nan; None where they are numbers.
    """

    n: int
    mse: float
    lcc: float
    srcc: float
    ktau: float
    undefined: str | None = None


def metrics(predicted: ArrayLike, rated: ArrayLike) -> Metrics:
    """Compare predicted with rated scores.

    Args:
        predicted: N scores.
        rated: N scores; item i of both is one utterance, or one system.

    Raises:
        DataError: no pair, lengths differ, or a score is NaN or infinite.

    Source: the paper, table 1 (utterances) and table 2 (systems).

    >>> metrics([2.0, 3.0, 5.0], [2.0, 4.0, 5.0]).srcc
    1.0
    """
    x, y = as_pair(predicted, rated)
    return Metrics(len(x), mse(x, y), lcc(x, y), srcc(x, y), ktau(x, y), why_undefined(x, y))


def mse(predicted: ArrayLike, rated: ArrayLike) -> float:
    """Average the squared differences.

    >>> mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    x, y = as_pair(predicted, rated)
    return float(np.mean((x - y) ** 2))


def lcc(predicted: ArrayLike, rated: ArrayLike) -> float:
    """Correlate linearly (Pearson); nan for a constant or fewer than two pairs."""
    x, y = as_pair(predicted, rated)
    if why_undefined(x, y):
        return float("nan")
    from scipy import stats

    return float(stats.pearsonr(x, y).statistic)


def srcc(predicted: ArrayLike, rated: ArrayLike) -> float:
    """Correlate average ranks (Spearman); nan for a constant or fewer than two pairs."""
    x, y = as_pair(predicted, rated)
    if why_undefined(x, y):
        return float("nan")
    from scipy import stats

    return float(stats.spearmanr(x, y).statistic)


def ktau(predicted: ArrayLike, rated: ArrayLike) -> float:
    """Compare the order of all pairs (Kendall's tau-b); nan where `srcc` is."""
    x, y = as_pair(predicted, rated)
    if why_undefined(x, y):
        return float("nan")
    from scipy import stats

    return float(stats.kendalltau(x, y, variant="b").statistic)


def why_undefined(x: NDArray[np.float64], y: NDArray[np.float64]) -> str | None:
    """Say why a correlation of two arrays is undefined; None if it is not."""
    if len(x) < 2:
        return "one pair has no correlation"
    for name, values in (("predicted", x), ("rated", y)):
        if is_constant(values):
            return f"the {name} scores are all {values[0]:.6g}, and a constant has no correlation"
    return None


def is_constant(values: NDArray[np.float64]) -> bool:
    """Tell whether values differ by no more than rounding."""
    mean = values.mean()
    return bool(np.linalg.norm(values - mean) <= CONSTANT * abs(mean))


def as_pair(
    predicted: ArrayLike, rated: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both as float64 arrays `[N]` after checking that they pair up."""
    x, y = as_scores(predicted, "predicted"), as_scores(rated, "rated")
    if len(x) != len(y):
        raise DataError(f"predicted and rated must pair up: got {len(x)} and {len(y)} scores")
    if len(x) == 0:
        raise DataError("no pair of a predicted and a rated score; give at least one")
    return x, y


def as_scores(values: ArrayLike | Sequence[float], name: str) -> NDArray[np.float64]:
    """Return finite scores as a float64 array `[N]`."""
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} scores are not numbers: {error}") from error
    if scores.ndim != 1:
        raise DataError(f"{name} scores have shape {scores.shape}; give one dimension")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise DataError(f"{name} score {wrong[0]} is {scores[wrong[0]]}; drop the pair first")
    return scores
