"""Scores and ratings out of files, as items that `pairing.py` puts side by side.

Score tables have the columns that `voxpanel score` writes, ratings those of a
manifest; other tables are read by naming their columns. No audio file is needed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from voxpanel.errors import ConfigError, DataError, ManifestError
from voxpanel.evaluate.pairing import Item, Pairs
from voxpanel.rows import Problems, Table, read_rows
from voxpanel.scales import check_scale, read_score

# What `--columns` can name, and the column that each stands for unless it is named.
ROLES: Mapping[str, str] = MappingProxyType(
    {"path": "path", "score": "mos", "label": "score", "system": "system"}
)

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A table being read: its rows, the roles of its columns, what was wrong so far."""

    table: Table
    names: Mapping[str, str]
    problems: Problems

    def cell(self, cells: Mapping[str, str], role: str) -> str:
        """Return a row's cell by the role of its column; empty if there is none."""
        return cells.get(self.names[role], "")


def parse_columns(text: str) -> dict[str, str]:
    """Read the argument of `--columns`.

    >>> parse_columns("score=predicted,label=mean")
    {'score': 'predicted', 'label': 'mean'}
    """
    named = {}
    for part in text.split(","):
        role, equals, column = part.partition("=")
        if not equals or not column:
            raise ConfigError(f"--columns {text!r}: {part!r} is not NAME=COLUMN")
        named[role.strip()] = column.strip()
    return check_roles(named)


def check_roles(named: Mapping[str, str]) -> dict[str, str]:
    """Refuse a role that does not exist."""
    for role in named:
        if role not in ROLES:
            raise ConfigError(f"columns: {role!r} is not one of {', '.join(ROLES)}")
    return dict(named)


def open_table(path: str | Path, columns: Mapping[str, str], needed: tuple[str, ...]) -> OpenTable:
    """Open a table and check that the needed columns, and all named ones, are in it."""
    source = Path(path)
    problems = Problems(source)
    names = {**ROLES, **check_roles(columns)}
    table = read_rows(source, problems)
    for role in needed:
        if names[role] not in table.columns:
            raise ManifestError(
                f"{source}: no column {names[role]!r}; it has {', '.join(table.columns)} "
                f"(say which with --columns {role}=...)"
            )
    return OpenTable(table, names, problems)


def read_scores(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Item]:
    """Read a score table: predicted scores by path.

    Args:
        path: CSV, JSONL or Parquet.
        columns: the names of the columns in the roles `path`, `score` and `system`
            where they differ from `path`, `mos` and `system`.

    Returns:
        One item a row; its score is None where the table's is empty.

    Raises:
        ManifestError: a column is missing, or a score is not a finite number.
    """
    opened = open_table(path, columns or {}, ("path", "score"))

    def read(cells: Mapping[str, str]) -> Item:
        return Item(
            path=opened.cell(cells, "path"),
            score=read_number(opened, cells, "score"),
            system=opened.cell(cells, "system") or None,
        )

    return read_all(opened, read)


def read_ratings(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Item]:
    """Read ratings: a manifest, or a table with its columns named.

    Scores are mapped to 1-5 from the scale in the row's column `scale`, if any.

    Args:
        path: CSV, JSONL or Parquet.
        columns: the names of the columns in the roles `path`, `label` and `system`
            where they differ from `path`, `score` and `system`.

    Returns:
        One item a row, its folder being the table's; its score is None where the
        table's is empty.

    Raises:
        ManifestError: a column is missing, or a score is not on its scale.
    """
    opened = open_table(path, columns or {}, ("path", "label"))
    folder = Path(path).parent

    def read(cells: Mapping[str, str]) -> Item:
        return Item(
            path=opened.cell(cells, "path"),
            score=read_label(opened, cells),
            system=opened.cell(cells, "system") or None,
            test=cells.get("test") or None,
            split=cells.get("split") or None,
            folder=folder,
        )

    return read_all(opened, read)


def read_pairs(path: str | Path, columns: Mapping[str, str]) -> Pairs:
    """Read one table that holds both kinds of scores, one row an utterance.

    Scores and labels are taken as they are, on any one scale.

    Args:
        path: CSV, JSONL or Parquet.
        columns: the names of the columns in the roles `score`, `label` and `system`.

    Raises:
        ManifestError: a column is missing, or a cell is not a finite number.
        DataError: no row has both numbers, or only some have a system.
    """
    opened = open_table(path, columns, ("score", "label", *(set(columns) & {"system"})))

    def read(cells: Mapping[str, str]) -> tuple[float | None, float | None, str | None]:
        return (
            read_number(opened, cells, "score"),
            read_number(opened, cells, "label"),
            opened.cell(cells, "system") or None,
        )

    return Pairs.from_rows(read_all(opened, read))


def read_all(opened: OpenTable, read: Callable[[Mapping[str, str]], Record]) -> list[Record]:
    """Read every row; report what was wrong in all of them at once."""
    records = []
    for line, cells in opened.table.rows:
        try:
            records.append(read(cells))
        except DataError as error:
            opened.problems.add(line, str(error))
    opened.problems.raise_if_any()
    return records


def read_number(opened: OpenTable, cells: Mapping[str, str], role: str) -> float | None:
    """Read a finite number; None if the cell is empty."""
    cell = opened.cell(cells, role)
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"column {opened.names[role]!r} is {cell!r}, not a finite number")
    return number


def read_label(opened: OpenTable, cells: Mapping[str, str]) -> float | None:
    """Read a rating, mapped to 1-5; None if the cell is empty."""
    cell = opened.cell(cells, "label")
    if not cell:
        return None
    try:
        scale = check_scale(cells.get("scale", ""))
    except DataError as error:
        raise DataError(f"column 'scale' {error}") from None
    try:
        return read_score(cell, scale)
    except DataError as error:
        raise DataError(f"column {opened.names['label']!r} {error}") from None
