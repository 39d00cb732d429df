"""The scales that listening tests use, and the way from each to 1-5.

A score on another scale is mapped linearly, end to end. That keeps ranks and
correlations, but says nothing about whether panels use the two scales alike.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

from voxpanel.errors import DataError

DEFAULT_SCALE = "1-5"
SCALES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"1-5": (1.0, 5.0), "0-100": (0.0, 100.0), "1-7": (1.0, 7.0)}
)


def read_score(cell: str, scale: str) -> float:
    """Read a rating as its manifest wrote it and map it to 1-5.

    Args:
        cell: a number in text.
        scale: a key of `SCALES`.

    Raises:
        DataError: not a number, NaN, or outside the scale; the message goes after
            the column's name.

    >>> read_score("4", "1-5"), read_score("50", "0-100"), read_score("7", "1-7")
    (4.0, 3.0, 5.0)
    """
    low, high = SCALES[scale]
    try:
        score = float(cell)
    except ValueError:
        raise DataError(f"is {cell!r}, not a number; write one such as 3.5") from None
    if math.isnan(score):
        raise DataError("is NaN; leave the cell empty where nobody rated")
    if not low <= score <= high:
        raise DataError(
            f"is {cell}; the scale {scale} allows {low:g} to {high:g} "
            "(give column 'scale' if another was used)"
        )
    return 1.0 + 4.0 * (score - low) / (high - low)


def check_scale(cell: str) -> str:
    """Return the scale that a cell names; an empty one is 1-5.

    Raises:
        DataError: no such scale; the message goes after the column's name.

    >>> check_scale(""), check_scale("0-100")
    ('1-5', '0-100')
    """
    scale = cell or DEFAULT_SCALE
    if scale not in SCALES:
        raise DataError(f"is {scale!r}, not a scale known here; use {', '.join(SCALES)}")
    return scale
