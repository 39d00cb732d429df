"""How good predicted scores are: both levels, four metrics, intervals.

`evaluate` is the whole way from files to an `Evaluation`; the parts can be called
alone: `tables.py` reads, `pairing.py` pairs, `metrics.py` compares, `levels.py`
averages by system, `intervals.py` says how sure it is. No torch in here.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from numpy.typing import ArrayLike

from voxpanel.errors import ConfigError
from voxpanel.evaluate.intervals import Interval, Intervals, bootstrap_systems
from voxpanel.evaluate.levels import Evaluation, evaluate_levels, mean_pairs, system_means
from voxpanel.evaluate.metrics import Metrics, as_pair, ktau, lcc, metrics, mse, srcc
from voxpanel.evaluate.pairing import Item, Pairs, choose, pair
from voxpanel.evaluate.tables import parse_columns, read_pairs, read_ratings, read_scores
from voxpanel.records import Clip, Rating, Score

__all__ = [
    "Evaluation",
    "Interval",
    "Intervals",
    "Metrics",
    "bootstrap_systems",
    "evaluate",
    "evaluate_levels",
    "ktau",
    "lcc",
    "metrics",
    "mse",
    "parse_columns",
    "srcc",
    "system_means",
]

RECORDS = (Score, Rating, Clip)
Scores = str | PathLike[str] | Iterable[Score] | ArrayLike
Ratings = str | PathLike[str] | Iterable[Rating] | Iterable[Clip] | ArrayLike


def evaluate(
    scores: Scores,
    ratings: Ratings | None = None,
    *,
    systems: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    test: str | None = None,
    split: str | None = None,
    n_draws: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Compare predicted scores with ratings at both levels, with intervals.

    Args:
        scores: a score table, `Score` records, or N numbers.
        ratings: a manifest or other table, `Rating` or `Clip` records, or N numbers,
            item i of both then being one utterance. Files and records are paired by
            path (`pairing.pair`). None: the table of scores holds the ratings too.
        systems: N names, with numbers only; files and records bring their own.
        columns: names of columns by role (`path`, `score`, `label`, `system`) where
            they are not those of a score table and a manifest.
        test: the listening test to compare with, if clips were rated in several.
        split: the split to compare with.
        n_draws: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        ManifestError: a table cannot be read; the line is named.
        ConfigError: an argument does not go with the kind of scores and ratings.
        DataError: scores and ratings do not fit together.

    >>> evaluate([2.0, 3.0, 4.0], [2.0, 3.5, 4.5], systems=["A", "A", "B"]).utterance.srcc
    1.0
    """
    unused = {"systems": systems, "columns": columns, "test": test, "split": split}
    if ratings is None:
        refuse_unused("one table", unused, ("columns",))
        pairs = read_pairs(table_path(scores), columns or {})
    elif is_numbers(scores) and is_numbers(ratings):
        refuse_unused("numbers", unused, ("systems",))
        predicted, rated = as_pair(scores, ratings)
        pairs = Pairs(predicted, rated, None if systems is None else tuple(systems), len(rated))
    else:
        refuse_unused("tables and records", unused, ("columns", "test", "split"))
        labels = choose(rating_items(ratings, columns), test, split)
        pairs = pair(score_items(scores, columns), labels)
    return evaluate_pairs(pairs, n_draws=n_draws, seed=seed)


def evaluate_pairs(pairs: Pairs, *, n_draws: int = 1000, seed: int = 0) -> Evaluation:
    """Compute both levels of scores that are already side by side; see `evaluate`."""
    x, y, systems = pairs.predicted, pairs.rated, pairs.systems
    evaluation = replace(
        evaluate_levels(x, y, systems),
        n_rated=pairs.n_rated,
        n_missing=pairs.n_missing,
        n_unrated=pairs.n_unrated,
    )
    if n_draws == 0:
        return evaluation
    by_system = None
    if systems is not None:
        means = mean_pairs(x.tolist(), y.tolist(), systems)
        by_system = bootstrap_systems(*means, n_draws=n_draws, seed=seed)
    by_utterance = bootstrap_systems(x, y, systems, n_draws=n_draws, seed=seed)
    return replace(evaluation, utterance_intervals=by_utterance, system_intervals=by_system)


def refuse_unused(kind: str, arguments: Mapping[str, object], used: Sequence[str]) -> None:
    """Refuse an argument that would change nothing."""
    for name, value in arguments.items():
        if value is not None and name not in used:
            raise ConfigError(f"{name!r} does not go with {kind}; these use {', '.join(used)}")


def is_numbers(values: object) -> TypeGuard[ArrayLike]:
    """Tell numbers from paths and records; what is empty counts as numbers."""
    if isinstance(values, str | PathLike):
        return False
    return not (isinstance(values, Sequence) and any(isinstance(v, RECORDS) for v in values))


def table_path(table: object) -> Path:
    """Return the path of a table."""
    if not isinstance(table, str | PathLike):
        raise ConfigError(f"a table is named by its path, not by a {type(table).__name__}")
    return Path(table)


def score_items(scores: object, columns: Mapping[str, str] | None) -> list[Item]:
    """Turn a score table or `Score` records into items."""
    if not isinstance(scores, Iterable) or isinstance(scores, str | PathLike):
        return read_scores(table_path(scores), columns)
    items = []
    for score in scores:
        if not isinstance(score, Score):
            raise ConfigError(f"scores: a {type(score).__name__} has no path to be paired by")
        items.append(Item(score.path, score.mos, score.system))
    return items


def rating_items(ratings: object, columns: Mapping[str, str] | None) -> list[Item]:
    """Turn a manifest, or `Rating` or `Clip` records, into items."""
    if not isinstance(ratings, Iterable) or isinstance(ratings, str | PathLike):
        return read_ratings(table_path(ratings), columns)
    items = []
    for rating in ratings:
        if not isinstance(rating, Rating | Clip):
            raise ConfigError(f"ratings: a {type(rating).__name__} has no path to be paired by")
        path = str(rating.path)
        items.append(Item(path, rating.score, rating.system, rating.test, rating.split))
    return items


class CallableModule(ModuleType):
    """This package's type, so that `voxpanel.evaluate(...)` works as promised.

    The package and its function share a name. Importing any part of the package
    sets `voxpanel.evaluate` to the package, which therefore has to answer calls.
    """

    __call__ = staticmethod(evaluate)


sys.modules[__name__].__class__ = CallableModule
