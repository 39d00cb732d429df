"""How often each expert is asked: numbers about gate weights (paper III-C, monitoring).

Axes: N utterances, E experts. numpy only; the weights are those that
`mixture.Gate` gave, or the columns `gate_1 ... gate_E` of a score table, and
experts are numbered from 1 as those columns are. Entropies are in nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxpanel.errors import DataError

DEAD_BELOW = 0.1  # of the equal share 1 / E
SUM_TOLERANCE = 5e-3  # a score table keeps 3 decimals; 8 such weights may be off by 0.004


@dataclass(frozen=True, slots=True)
class GateReport:
    """What a gate did over N utterances.

    n_utterances: N, which every mean here is over.
    usage: the mean gate of each expert; sums to 1.
    n_effective: `exp(H(usage))`, 1 if one expert is used alone, E if all alike.
    mean_entropy: mean over utterances of the entropy of their gate; 0 if each asks
        one expert, log E if each asks all alike.
    dead: the numbers of the experts whose usage is below a tenth of 1 / E.
    winners: the share of utterances in which each expert weighs most; of equal ones
        the first wins.

    A healthy mixture has `n_effective` near E and `mean_entropy` well below log E:
    all experts are used, each for its own utterances.
    """

    n_utterances: int
    usage: tuple[float, ...]
    n_effective: float
    mean_entropy: float
    dead: tuple[int, ...]
    winners: tuple[float, ...]


def gate_report(weights: ArrayLike) -> GateReport:
    """Summarise gate weights.

    Args:
        weights: `[N, E]`, each row summing to 1.

    Raises:
        DataError: no utterance, not two axes, or a row that is no gate.

    >>> report = gate_report([[1.0, 0.0], [0.5, 0.5]])
    >>> report.usage, report.winners, report.dead
    ((0.75, 0.25), (1.0, 0.0), ())
    """
    gates = checked(weights)
    n_utterances, n_experts = gates.shape
    usage = gates.mean(axis=0)
    wins = np.bincount(gates.argmax(axis=1), minlength=n_experts)
    return GateReport(
        n_utterances=n_utterances,
        usage=tuple(usage.tolist()),
        n_effective=float(np.exp(entropy(usage))),
        mean_entropy=float(entropy(gates).mean()),
        dead=tuple((np.flatnonzero(usage < DEAD_BELOW / n_experts) + 1).tolist()),
        winners=tuple((wins / n_utterances).tolist()),
    )


def by_group(weights: ArrayLike, groups: Sequence[str]) -> dict[str, list[float]]:
    """Average the gate within each group, such as a system or a listening test.

    Every utterance of a group weighs the same.

    Args:
        weights: `[N, E]`, each row summing to 1.
        groups: N names; row i of both is one utterance.

    Returns:
        Name to the E mean weights, in order of first appearance.

    Raises:
        DataError: lengths differ, or `weights` are no gates.

    >>> by_group([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], ["A", "A", "B"])
    {'A': [0.75, 0.25], 'B': [0.0, 1.0]}
    """
    gates = checked(weights)
    if len(gates) != len(groups):
        raise DataError(f"weights and groups must pair up: got {len(gates)} and {len(groups)}")
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return {group: gates[members].mean(axis=0).tolist() for group, members in rows.items()}


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy over the last axis, in nats; 0 log 0 is 0."""
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    total: NDArray[np.float64] = -(probabilities * logs).sum(axis=-1)
    return total


def checked(weights: ArrayLike) -> NDArray[np.float64]:
    """Return the weights as float64 `[N, E]`, or say which row is no gate."""
    gates = np.asarray(weights, dtype=np.float64)
    if gates.ndim != 2 or gates.size == 0:
        raise DataError(f"weights must be [N, E] with one row or more: got {gates.shape}")
    # Written so that NaN, which compares false with everything, is refused too.
    right = (gates >= 0).all(axis=1) & (np.abs(gates.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if not right.all():
        row = int(np.flatnonzero(~right)[0])
        raise DataError(
            f"weights row {row}: {gates[row].tolist()} is no gate; "
            "weights must not be negative and must sum to 1"
        )
    return gates
