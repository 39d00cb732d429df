"""Listeners' own biases: some rate everything higher than others do.

A clip's mean depends on who happened to rate it. Where listeners rated many clips,
the bias of each can be estimated and taken out before averaging.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxpanel.records import Rating

SHRINKAGE = 1.0  # ratings' worth of "no bias" that a listener starts with
N_ROUNDS = 50
TOLERANCE = 1e-6


def without_bias(ratings: Sequence[Rating]) -> list[float]:
    """Return each rating less its listener's bias.

    Biases are those of an additive model, score = clip + listener, fitted in turns; a
    listener with few ratings is drawn towards no bias. A listener is another one in
    another test. Ratings without a listener stay as they are.

    Args:
        ratings: each with a score.

    Returns:
        One number a rating, on the 1-5 scale but not bound to it.
    """
    scores = np.array([rating.score for rating in ratings], dtype=np.float64)
    known = np.array([rating.listener is not None for rating in ratings])
    if not known.any():
        return list(scores.tolist())
    clips = places([(rating.path, rating.test) for rating in ratings])
    listeners = places([(rating.test, rating.listener) for rating in ratings])
    biases = fit_biases(scores, clips, listeners, known)
    return list((scores - biases[listeners]).tolist())


def fit_biases(
    scores: NDArray[np.float64],
    clips: NDArray[np.int64],
    listeners: NDArray[np.int64],
    known: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Fit one bias a listener; of listeners that are not known it is 0."""
    n_by_clip = np.bincount(clips)
    n_by_listener = np.bincount(listeners) + SHRINKAGE
    biases = np.zeros(len(n_by_listener))
    for _ in range(N_ROUNDS):
        means = np.bincount(clips, scores - biases[listeners]) / n_by_clip
        residuals = np.where(known, scores - means[clips], 0.0)
        updated = np.bincount(listeners, residuals) / n_by_listener
        if np.abs(updated - biases).max() < TOLERANCE:
            break
        biases = updated
    return biases


def places(names: Sequence[object]) -> NDArray[np.int64]:
    """Number names in order of first appearance."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
