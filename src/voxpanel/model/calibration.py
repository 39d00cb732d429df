"""The interval beside a score, from how far scores were off on clips held out.

Split conformal prediction: the half-width is the quantile of the absolute out-of-fold
residuals at which 95 % of new clips of the same kind fall inside, with its correction
for few residuals (Lei et al. 2018). A residual contains the noise of the panel that
was averaged, so the interval is for the mean of such a panel's ratings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxpanel.errors import DataError

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Calibration:
    """How wide intervals are, and how often they held the rating.

    half_width: in MOS.
    n: residuals it is from.
    coverage: the share of held-out clips inside intervals that were calibrated
        without their own group; None if there was one group only.
    basis: in words, what was held out.
    """

    half_width: float
    n: int
    coverage: float | None
    basis: str

    def interval(self, mos: float) -> tuple[float, float]:
        """Return the interval around a score, cut at the ends of the scale.

        >>> Calibration(0.5, 100, None, "").interval(4.8)
        (4.3, 5.0)
        """
        return max(1.0, mos - self.half_width), min(5.0, mos + self.half_width)


def calibrate(
    predicted: NDArray[np.float64],
    rated: NDArray[np.float64],
    groups: Sequence[object],
    basis: str,
) -> Calibration:
    """Set the width of intervals from out-of-fold scores, and measure their coverage.

    Args:
        predicted: N scores, each by a model that did not see its clip.
        rated: N mean ratings.
        groups: N names; coverage is measured by leaving each out in turn.

    Raises:
        DataError: there is no residual.
    """
    residuals = np.abs(predicted - rated)
    if len(residuals) == 0:
        raise DataError("no held-out rating to set intervals by; hold out more clips")
    names = np.array([str(group) for group in groups])
    inside = [
        residuals[names == name] <= conformal_quantile(residuals[names != name])
        for name in sorted(set(names.tolist()))
        if (names != name).any()
    ]
    coverage = float(np.concatenate(inside).mean()) if inside else None
    return Calibration(conformal_quantile(residuals), len(residuals), coverage, basis)


def conformal_quantile(residuals: NDArray[np.float64]) -> float:
    """Return the smallest half-width that 95 % of new residuals stay within.

    The `ceil(0.95 (n + 1))`-th smallest residual; with fewer than 19 none is large
    enough for sure, and the whole scale is the answer.

    >>> conformal_quantile(np.arange(1, 100) / 100), conformal_quantile(np.ones(18))
    (0.95, 4.0)
    """
    place = math.ceil(LEVEL * (len(residuals) + 1))
    if place > len(residuals):
        return 4.0
    return float(np.sort(residuals)[place - 1])
