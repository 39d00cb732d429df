"""Manifests: one row a rating or one row a clip, checked before any audio is read.

Columns are described in `COLUMNS`; any `listener_*` column is an attribute of the
listener, any other column is ignored and named in `Manifest.ignored_columns`.
Reading the three file formats is in `rows.py`, the scales are in `scales.py`.
"""

import difflib
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from voxpanel.errors import DataError, ManifestError
from voxpanel.records import Clip, Rating
from voxpanel.rows import Problems, read_rows
from voxpanel.scales import check_scale, read_score

COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "path": "audio file, relative to the manifest",
        "system": "what made the clip; averages are taken over it",
        "score": "the rating; empty for unlabelled audio",
        "listener": "who rated",
        "test": "which listening test the rating is from",
        "scale": "scale of the score; empty is 1-5",
        "synthesizer": "class of the auxiliary task",
        "sentence": "what is said; groups folds",
        "text": "the words themselves",
        "split": "train, dev or test",
    }
)
SPLITS = ("train", "dev", "test")
LISTENER_PREFIX = "listener_"
# Names that other tools give to our columns and that no likeness of spelling gives away.
SYNONYMS: Mapping[str, str] = MappingProxyType(
    {"mos": "score", "rating": "score", "listener_id": "listener", "wav_path": "path"}
)
LIKENESS = 0.8  # of difflib; one letter lost or swapped in the shortest name still passes
ONE_A_CLIP = ("system", "synthesizer", "sentence", "split")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that passed every check.

    ratings: one a row, in the order of the file.
    ignored_columns: columns whose names mean nothing here.
    """

    ratings: tuple[Rating, ...]
    source: Path
    ignored_columns: tuple[str, ...] = ()


def read_manifest(path: str | Path, *, check_files: bool = True) -> Manifest:
    """Read and check a manifest: CSV, JSONL or Parquet by its ending.

    Scores are mapped to 1-5 from the scale of their row. Paths are joined to the
    manifest's folder, neither resolved nor opened. An empty cell is an absent value.

    Args:
        path: the manifest.
        check_files: whether every audio file has to be there.

    Raises:
        ManifestError: with up to ten problems and how many there are in all, each
            by file, line and column.
    """
    source = Path(path)
    problems = Problems(source)
    table = read_rows(source, problems)
    ignored = check_header(source, table.columns)
    parser = RowParser(problems, table.columns)
    ratings = tuple(parser.parse(line, cells) for line, cells in table.rows)
    if check_files:
        note_missing_files(ratings, problems)
    problems.raise_if_any()
    if not ratings:
        raise ManifestError(f"{source}: no rows below the header; give at least one clip")
    return Manifest(ratings, source, ignored)


def check_header(source: Path, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns to ignore; refuse a misspelt one and a missing `path`.

    A name that resembles one of ours is a slip unless ours is there as well.
    """
    problems = Problems(source)
    ignored = []
    for column in columns:
        if column in COLUMNS:
            continue
        meant = resembled(column)
        if meant and meant not in columns:
            problems.add(1, f"column {column!r} is not known here; did you mean {meant!r}?")
        elif not is_attribute(column):
            ignored.append(column)
    if "path" not in columns and not problems.n_found:
        problems.add(1, f"column 'path' is missing; the columns are {', '.join(columns)}")
    problems.raise_if_any()
    return tuple(ignored)


def resembled(column: str) -> str | None:
    """Name the column of ours that a name seems to stand for.

    >>> resembled("Sytem"), resembled("mos"), resembled("sample_rate")
    ('system', 'score', None)
    """
    name = column.strip().lower()
    if name in SYNONYMS:
        return SYNONYMS[name]
    if is_attribute(name):
        return None
    return next(iter(difflib.get_close_matches(name, COLUMNS, n=1, cutoff=LIKENESS)), None)


def is_attribute(column: str) -> bool:
    """Tell whether a column describes the listener: `listener_` and a name."""
    return column.startswith(LISTENER_PREFIX) and column != LISTENER_PREFIX


class RowParser:
    """Turns the rows of one manifest into ratings and notes what is wrong with them."""

    def __init__(self, problems: Problems, columns: tuple[str, ...]) -> None:
        self.problems = problems
        self.folder = problems.source.parent
        self.attribute_columns = [column for column in columns if is_attribute(column)]
        # A clip's ratings share one path and a listener's ratings one set of attributes.
        self.paths: dict[str, Path] = {}
        self.attributes: dict[tuple[str, ...], Mapping[str, str]] = {}
        self.lines: dict[tuple[str, str, str], int] = {}

    def parse(self, line: int, row: Mapping[str, str]) -> Rating:
        """Turn one row into a rating; a wrong cell is noted and left out of it."""
        cell = row.get
        self.note_duplicate(line, row)
        return Rating(
            path=self.path(line, row["path"]),
            line=line,
            system=cell("system") or None,
            score=self.score(line, cell("score", ""), cell("scale", "")),
            listener=cell("listener") or None,
            test=cell("test") or None,
            synthesizer=cell("synthesizer") or None,
            sentence=cell("sentence") or None,
            text=cell("text") or None,
            split=self.split(line, cell("split", "")),
            listener_attributes=self.describe(tuple(row[name] for name in self.attribute_columns)),
        )

    def describe(self, cells: tuple[str, ...]) -> Mapping[str, str]:
        """Return a listener's attributes, those that are given."""
        known = self.attributes.get(cells)
        if known is None:
            names = [column.removeprefix(LISTENER_PREFIX) for column in self.attribute_columns]
            known = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
            self.attributes[cells] = known
        return known

    def path(self, line: int, cell: str) -> Path:
        """Join a path to the manifest's folder; an absolute one stays."""
        if not cell:
            self.problems.add(line, "column 'path' is empty; name an audio file")
        path = self.paths.get(cell)
        if path is None:
            path = self.paths[cell] = self.folder / cell
        return path

    def score(self, line: int, cell: str, scale_cell: str) -> float | None:
        """Read a score from its own cell and its scale's."""
        column = "scale"
        try:
            scale = check_scale(scale_cell)
            column = "score"
            return read_score(cell, scale) if cell else None
        except DataError as error:
            self.problems.add(line, f"column {column!r} {error}")
            return None

    def split(self, line: int, cell: str) -> str | None:
        """Check the name of a split."""
        if cell and cell not in SPLITS:
            self.problems.add(line, f"column 'split' is {cell!r}; use {', '.join(SPLITS)}")
        return cell or None

    def note_duplicate(self, line: int, row: Mapping[str, str]) -> None:
        """Note a listener who rates the same clip twice in one test."""
        listener = row.get("listener")
        if not listener:
            return
        first = self.lines.setdefault((row["path"], listener, row.get("test", "")), line)
        if first != line:
            self.problems.add(
                line,
                f"column 'listener' is {listener!r}, who rated {row['path']!r} in this "
                f"test on line {first} too; keep one, or name the tests in column 'test'",
            )


def note_missing_files(ratings: Iterable[Rating], problems: Problems) -> None:
    """Note each audio file that is not there, at the first row that names it."""
    first_lines: dict[Path, int] = {}
    for rating in ratings:
        first_lines.setdefault(rating.path, rating.line)
    for path, line in first_lines.items():
        if not path.is_file():
            problems.add(
                line,
                f"column 'path': no file {str(path)!r}; paths are relative to the manifest",
            )


def clips(ratings: Iterable[Rating]) -> list[Clip]:
    """Average ratings into one clip per audio file and listening test.

    Every rating weighs the same. What only some rows of a clip tell (its system,
    say) holds for all of them.

    Returns:
        Clips in order of first appearance.

    Raises:
        ManifestError: two rows of a clip disagree on its system, synthesizer,
            sentence or split; both lines are named.
    """
    groups: dict[tuple[Path, str | None], list[Rating]] = {}
    for rating in ratings:
        groups.setdefault((rating.path, rating.test), []).append(rating)
    return [join_ratings(group) for group in groups.values()]


def join_ratings(group: list[Rating]) -> Clip:
    """Make one clip of its ratings."""
    scores = [rating.score for rating in group if rating.score is not None]
    facts = {column: only_value(group, column) for column in ONE_A_CLIP}
    return Clip(
        path=group[0].path,
        score=math.fsum(scores) / len(scores) if scores else None,
        n_ratings=len(scores),
        spread=statistics.stdev(scores) if len(scores) > 1 else None,
        test=group[0].test,
        **facts,
    )


def only_value(group: list[Rating], column: str) -> str | None:
    """Return the one value that a clip's ratings give in a column."""
    found: str | None = None
    first_line = 0
    for rating in group:
        value: str | None = getattr(rating, column)
        if value is None or value == found:
            continue
        if found is not None:
            raise ManifestError(
                f"lines {first_line} and {rating.line}: the clip {str(rating.path)!r} has "
                f"{column} {found!r} and {value!r}; a clip has one"
            )
        found, first_line = value, rating.line
    return found
