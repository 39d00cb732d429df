"""Which score belongs to which rating: by path, and openly so.

Nothing is left out in silence. A rated clip that no score belongs to is refused,
one whose score is empty (it could not be scored) is counted, and so is a score
that no rating belongs to.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from voxpanel.errors import DataError

N_SHOWN = 10  # paths spelled out in one error; the rest are counted
# Lists of names often leave the ending out; only these are endings, `sys1.v2` has none.
AUDIO_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".webm")


@dataclass(frozen=True, slots=True)
class Item:
    """A score or a rating of one clip.

    path: as given; relative ones start from `folder`.
    score: None where there is none.
    """

    path: str
    score: float | None
    system: str | None = None
    test: str | None = None
    split: str | None = None
    folder: Path = Path()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Predicted and rated scores, `[N]` each, item i of both being one utterance.

    systems: N names; None where they are not known.
    n_rated: utterances with a rating, N of which have a score.
    n_unrated: scores that no rating belongs to.
    """

    predicted: NDArray[np.float64]
    rated: NDArray[np.float64]
    systems: tuple[str, ...] | None
    n_rated: int
    n_unrated: int = 0

    @property
    def n_missing(self) -> int:
        """Count the rated utterances that have no score."""
        return self.n_rated - len(self.rated)

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[float | None, float | None, str | None]]) -> "Pairs":
        """Build pairs from rows of predicted score, rated score and system.

        Raises:
            DataError: no row has both scores, or only some of those have a system.
        """
        rows = list(rows)
        rated = [(mos, label, system) for mos, label, system in rows if label is not None]
        both = [(mos, label, system) for mos, label, system in rated if mos is not None]
        if not both:
            raise DataError(
                f"nothing to compare: of {len(rows)} rows {len(rated)} have a rating, "
                "and none of these has a score"
            )
        return cls(
            predicted=np.array([mos for mos, _, _ in both], dtype=np.float64),
            rated=np.array([label for _, label, _ in both], dtype=np.float64),
            systems=all_or_none([system for _, _, system in both]),
            n_rated=len(rated),
            n_unrated=sum(mos is not None and label is None for mos, label, _ in rows),
        )


def all_or_none(systems: Sequence[str | None]) -> tuple[str, ...] | None:
    """Return the systems if all are known, None if none is; refuse a mixture."""
    known = tuple(system for system in systems if system is not None)
    if known and len(known) < len(systems):
        raise DataError(
            f"column 'system' is empty for {len(systems) - len(known)} of {len(systems)} "
            "utterances; fill it in for all, or leave it out"
        )
    return known or None


def pair(scores: Sequence[Item], ratings: Sequence[Item]) -> Pairs:
    """Put scores and ratings of the same clip side by side.

    They are matched by path as given; what is left, by resolved path; what is still
    left, by file name, then by file name without its audio ending, where that name
    is the only one of its kind among the scores and among the ratings. A clip's
    ratings are averaged first. Its system is the ratings', else the score's.

    Args:
        scores: one item a clip; a score of None counts as missing.
        ratings: any number a clip, of one listening test; those of None are left out.

    Raises:
        DataError: a clip has two scores or ratings from two tests, or rated clips
            are without a row among the scores.
    """
    twice = [path for path, n in Counter(item.path for item in scores).items() if n > 1]
    if twice:
        raise DataError(f"several scores for one path; keep one of each: {some_of(twice)}")
    labels = average(ratings)
    matches = match(labels, scores)
    found = {index for index in matches if index is not None}
    spare = [item for index, item in enumerate(scores) if index not in found]
    refuse_unmatched([labels[i].path for i, j in enumerate(matches) if j is None], labels, spare)
    rows = [
        (scores[j].score, label.score, label.system or scores[j].system)
        for label, j in zip(labels, matches, strict=True)
        if j is not None
    ]
    return Pairs.from_rows([*rows, *((item.score, None, None) for item in spare)])


def choose(ratings: Sequence[Item], test: str | None, split: str | None) -> list[Item]:
    """Keep the ratings of one listening test, of one split, or of both."""
    chosen = list(ratings)
    for column, wanted in (("test", test), ("split", split)):
        if wanted is None:
            continue
        there = dict.fromkeys(str(getattr(item, column) or "(empty)") for item in chosen)
        chosen = [item for item in chosen if getattr(item, column) == wanted]
        if not chosen:
            raise DataError(f"no rating has {column} {wanted!r}; there is {', '.join(there)}")
    return chosen


def average(ratings: Iterable[Item]) -> list[Item]:
    """Average each path's ratings; in order of first appearance."""
    groups: dict[str, list[Item]] = {}
    scores: dict[str, list[float]] = {}
    for item in ratings:
        if item.score is not None:
            groups.setdefault(item.path, []).append(item)
            scores.setdefault(item.path, []).append(item.score)
    labels = []
    for path, group in groups.items():
        check_one(path, "test", {item.test or "(none)" for item in group}, "choose one test")
        systems = {item.system for item in group if item.system is not None}
        check_one(path, "system", systems, "a clip has one")
        mean = math.fsum(scores[path]) / len(group)
        labels.append(replace(group[0], score=mean, system=next(iter(systems), None)))
    return labels


def check_one(path: str, column: str, values: set[str], advice: str) -> None:
    """Refuse a clip whose ratings disagree in a column."""
    if len(values) > 1:
        raise DataError(f"{path!r} has ratings with {column} {', '.join(sorted(values))}; {advice}")


def match(labels: Sequence[Item], scores: Sequence[Item]) -> list[int | None]:
    """Return for each label the index of its score."""
    matches: list[int | None] = [None] * len(labels)
    used: set[int] = set()
    ways: tuple[Callable[[Item], str], ...] = (as_given, resolved, file_name, stem)
    for way in ways:
        if len(used) == len(labels):
            break
        wanted = only_ones(map(way, labels))
        offered = only_ones(map(way, scores))
        for key, i in wanted.items():
            j = offered.get(key)
            if matches[i] is None and j is not None and j not in used:
                matches[i] = j
                used.add(j)
    return matches


def only_ones(keys: Iterable[str]) -> dict[str, int]:
    """Return the position of every key that occurs once.

    >>> only_ones(["a", "b", "a"])
    {'b': 1}
    """
    places: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for place, key in enumerate(keys):
        places[key] = place
        counts[key] += 1
    return {key: place for key, place in places.items() if counts[key] == 1}


def as_given(item: Item) -> str:
    """Identify a clip by its path as it was written."""
    return item.path


def resolved(item: Item) -> str:
    """Identify a clip by where its path leads."""
    return os.path.realpath(item.folder / item.path)


def file_name(item: Item) -> str:
    """Identify a clip by its file name."""
    return PurePath(item.path).name


def stem(item: Item) -> str:
    """Identify a clip by its file name without an audio ending.

    >>> stem(Item("a/talk.v2.wav", None)), stem(Item("talk.v2", None))
    ('talk.v2', 'talk.v2')
    """
    name = PurePath(item.path)
    return name.stem if name.suffix.lower() in AUDIO_ENDINGS else name.name


def refuse_unmatched(paths: list[str], labels: Sequence[Item], spare: Sequence[Item]) -> None:
    """Refuse rated clips that no score belongs to, showing what is left on both sides."""
    if not paths:
        return
    message = f"{len(paths)} of {len(labels)} rated clips have no score: {some_of(paths)}"
    if spare:
        unrated = some_of([item.path for item in spare])
        message += f"\n{len(spare)} scores belong to no rating: {unrated}"
    message += "\nClips are paired by path, else by a file name that occurs only once"
    raise DataError(message)


def some_of(paths: Sequence[str]) -> str:
    """List the first ten paths and count the rest."""
    rest = f" and {len(paths) - N_SHOWN} more" if len(paths) > N_SHOWN else ""
    return ", ".join(map(repr, paths[:N_SHOWN])) + rest
