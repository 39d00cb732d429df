"""95 % intervals of the metrics: a bootstrap that draws whole systems.

Utterances of one system resemble each other, so drawing utterances would promise
more than the data hold; and the question is mostly how a metric would come out on
other systems. Each draw takes K of the K systems with replacement, every one with
all its utterances, and the interval is between two percentiles of the draws.

Axes: R draws, K systems, N utterances. A draw is a row of counts `[R, K]`: how
often each system is in it. Every metric of the enlarged data follows from those
counts as weights, ties included, so no draw is ever written out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxpanel.errors import DataError
from voxpanel.evaluate.metrics import as_pair, why_undefined

LOW, HIGH = 2.5, 97.5  # percentiles, the ends of a 95 % interval
MOST_UNDEFINED = 0.05  # share of draws; beyond it the ends no longer hold 95 %
N_CELLS = 4_000_000  # of a weight matrix held at once: 32 MB

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """The two ends of an interval; nan where it is undefined."""

    low: float
    high: float


UNDEFINED = Interval(float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Intervals:
    """One interval per metric, from n_draws draws of n_systems systems."""

    mse: Interval
    lcc: Interval
    srcc: Interval
    ktau: Interval
    n_systems: int
    n_draws: int


def bootstrap_systems(
    predicted: ArrayLike,
    rated: ArrayLike,
    systems: Sequence[str] | None = None,
    *,
    n_draws: int = 1000,
    seed: int = 0,
) -> Intervals:
    """Estimate how far each metric could move if other systems had been rated.

    The same number of systems and the same seed give the same draws, so the
    intervals of several predictors, or of both levels, rest on the same draws.
    Time and memory grow with N * N and N * K; 1,000 utterances take about a second.

    Args:
        predicted: N scores.
        rated: N scores; item i of both is one utterance, or one system.
        systems: N names; without them each item is drawn by itself.
        n_draws: R.
        seed: of the draws.

    Returns:
        Percentile intervals. Nan for all metrics with fewer than two systems, and
        for a correlation that is undefined in the data or in over 5 % of the draws.

    Raises:
        DataError: lengths differ, a score is NaN or infinite, or there is no draw.
    """
    x, y = as_pair(predicted, rated)
    cluster = number_systems(systems, len(x))
    n_systems = int(cluster.max()) + 1
    if n_draws < 1:
        raise DataError(f"n_draws is {n_draws}; draw at least once")
    if n_systems < 2:
        return Intervals(UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, n_systems, n_draws)
    order = np.argsort(cluster, kind="stable")
    x, y, cluster = x[order], y[order], cluster[order]
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(n_systems, [1 / n_systems] * n_systems, size=n_draws)
    mse = percentiles(mse_draws(x, y, cluster, counts))
    if why_undefined(x, y):
        return Intervals(mse, UNDEFINED, UNDEFINED, UNDEFINED, n_systems, n_draws)
    lcc, srcc = correlation_draws(x, y, cluster, counts)
    ktau = ktau_draws(x, y, cluster, counts)
    return Intervals(
        mse, percentiles(lcc), percentiles(srcc), percentiles(ktau), n_systems, n_draws
    )


def number_systems(systems: Sequence[str] | None, n_items: int) -> NDArray[np.int64]:
    """Return each item's system as a number from 0; items alone if there are none."""
    if systems is None:
        return np.arange(n_items)
    if len(systems) != n_items:
        raise DataError(f"scores and systems must pair up: got {n_items} and {len(systems)}")
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(system, len(numbers)) for system in systems])


def percentiles(draws: Floats) -> Interval:
    """Return the interval that 95 % of the defined draws are in."""
    undefined = np.isnan(draws)
    if undefined.mean() > MOST_UNDEFINED:
        return UNDEFINED
    low, high = np.percentile(draws[~undefined], [LOW, HIGH])
    return Interval(float(low), float(high))


def mse_draws(
    x: Floats, y: Floats, cluster: NDArray[np.int64], counts: NDArray[np.int64]
) -> Floats:
    """Return the mean squared difference of each draw, `[R]`."""
    squares = np.bincount(cluster, weights=(x - y) ** 2)  # [K]
    draws: Floats = (counts @ squares) / (counts @ np.bincount(cluster))
    return draws


def correlation_draws(
    x: Floats, y: Floats, cluster: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return LCC and SRCC of each draw, `[R]` each."""
    n_at_once = max(1, N_CELLS // len(x))
    linear, ranked = [], []
    for start in range(0, len(counts), n_at_once):
        weights = counts[start : start + n_at_once, cluster].astype(np.float64)  # [r, N]
        linear.append(weighted_lcc(x[None, :], y[None, :], weights))
        ranks_x, ranks_y = weighted_ranks(x, weights), weighted_ranks(y, weights)
        ranked.append(weighted_lcc(ranks_x, ranks_y, weights))
    return np.concatenate(linear), np.concatenate(ranked)


def weighted_lcc(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Correlate the rows of x and y, `[1 or r, N]`, under the rows of weights."""
    total = weights.sum(axis=1, keepdims=True)
    dx = x - (weights * x).sum(axis=1, keepdims=True) / total
    dy = y - (weights * y).sum(axis=1, keepdims=True) / total
    product = (weights * dx * dy).sum(axis=1)
    scale = np.sqrt((weights * dx**2).sum(axis=1) * (weights * dy**2).sum(axis=1))
    # Rounding leaves a constant row some spread, so constants are found by comparison.
    scale[is_constant_row(x, weights) | is_constant_row(y, weights)] = 0.0
    return divide_or_nan(product, scale)


def divide_or_nan(numerator: Floats, denominator: Floats) -> Floats:
    """Divide where the denominator is positive; nan elsewhere."""
    undefined = np.full_like(numerator, np.nan)
    quotient: Floats = np.divide(numerator, denominator, out=undefined, where=denominator > 0)
    return quotient


def is_constant_row(values: Floats, weights: Floats) -> NDArray[np.bool_]:
    """Tell for each row of weights whether all values with weight are the same."""
    present = weights > 0
    low = np.where(present, values, np.inf).min(axis=1)
    high = np.where(present, values, -np.inf).max(axis=1)
    constant: NDArray[np.bool_] = low == high
    return constant


def weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Rank values `[N]` as if each occurred as often as its weight says: `[r, N]`.

    Ties get the average of their ranks, and so do the copies of one value. If B
    copies are below and T are tied, the ranks B + 1 ... B + T average to
    B + (T + 1) / 2.
    """
    order = np.argsort(values, kind="stable")
    _, first, position = np.unique(values[order], return_index=True, return_inverse=True)
    tied = np.add.reduceat(weights[:, order], first, axis=1)  # [r, distinct values]
    below = np.cumsum(tied, axis=1) - tied
    ranks = np.empty_like(weights)
    ranks[:, order] = (below + (tied + 1) / 2)[:, position]
    return ranks


def ktau_draws(
    x: Floats, y: Floats, cluster: NDArray[np.int64], counts: NDArray[np.int64]
) -> Floats:
    """Return Kendall's tau-b of each draw, `[R]`; items are sorted by cluster.

    With s = sign(x_i - x_j) and t = sign(y_i - y_j), tau-b is the sum over pairs of
    s t, divided by the root of (the number of pairs with s != 0) times (with t != 0).
    Under weights w each sum over pairs becomes a quadratic form, the sum of
    w_i w_j s t. Copies of one item tie with each other and add nothing. As w is
    constant within a cluster, the inner sum over j needs only one number per
    item and cluster.
    """
    n_items = len(x)
    starts = np.flatnonzero(np.diff(cluster, prepend=-1))
    weights = counts.astype(np.float64)
    sums = np.zeros((3, len(counts)))
    n_at_once = max(1, N_CELLS // n_items)
    for start in range(0, n_items, n_at_once):
        rows = slice(start, start + n_at_once)
        s = np.sign(x[rows, None] - x[None, :])
        t = np.sign(y[rows, None] - y[None, :])
        for k, pairs in enumerate((s * t, np.abs(s), np.abs(t))):
            per_cluster = np.add.reduceat(pairs, starts, axis=1)  # [rows, K]
            inner = weights @ per_cluster.T  # [R, rows]
            sums[k] += (inner * weights[:, cluster[rows]]).sum(axis=1)
    agreement, untied_x, untied_y = sums
    return divide_or_nan(agreement, np.sqrt(untied_x * untied_y))
