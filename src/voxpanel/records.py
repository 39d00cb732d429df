"""The rows that cross rooms: a rating, a clip to train on, a score.

All are frozen. A rating is a row of a manifest as it was written; a clip is what
training sees, the mean of a clip's ratings in one listening test; a score is a
row of the score table (`docs/cli.md`, `voxpanel score`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rating:
    """One row of a manifest: a listener's score of a clip, or a clip alone.

    path: the audio file, resolved against the manifest's folder.
    score: on the 1-5 scale, whatever scale the manifest used; None if unlabelled.
    line: the row's line in its manifest, the header being line 1.
    listener_attributes: the `listener_*` columns, without that prefix.
    """

    path: Path
    line: int
    system: str | None = None
    score: float | None = None
    listener: str | None = None
    test: str | None = None
    synthesizer: str | None = None
    sentence: str | None = None
    text: str | None = None
    split: str | None = None
    listener_attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip in one listening test, with the mean of its ratings.

    score: mean rating, 1-5; None if nobody rated it.
    spread: standard deviation of its ratings (n - 1); None below two ratings.
    """

    path: Path
    score: float | None = None
    n_ratings: int = 0
    spread: float | None = None
    system: str | None = None
    test: str | None = None
    synthesizer: str | None = None
    sentence: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One row of the score table; `mos` is None where `error` says why.

    path: as given or found, never shortened.
    mos, mos_low, mos_high: 1-5; the two ends are the 95 % interval for the mean
        of a panel's ratings.
    bandwidth_hz: where the content ends, whatever the header's rate says.
    flags: names out of `voxpanel.measure.FLAGS`.
    model: name, version and a hash of weights and settings.
    gates: one weight an expert, summing to 1.
    """

    path: str
    mos: float | None = None
    mos_low: float | None = None
    mos_high: float | None = None
    system: str | None = None
    sample_rate_hz: int | None = None
    duration_s: float | None = None
    bandwidth_hz: float | None = None
    speech_s: float | None = None
    synthesizer: str | None = None
    synthesizer_p: float | None = None
    flags: tuple[str, ...] = ()
    model: str | None = None
    error: str | None = None
    gates: tuple[float, ...] = ()


SCORE_COLUMNS = tuple(column.name for column in fields(Score) if column.name != "gates")
