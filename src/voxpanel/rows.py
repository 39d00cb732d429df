"""Tables in CSV, JSONL or Parquet as rows of text, every row knowing its line.

The one reader of tables: manifests (`data/manifest.py`), score tables and ratings
(`evaluate/tables.py`). Cells stay text, so that an id such as `015` stays itself;
what a cell means is the caller's business. An absent value is the empty text.
"""

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from voxpanel.errors import ManifestError

N_SHOWN = 10  # problems spelled out in one error; the rest are counted


class Table(NamedTuple):
    """What `read_rows` returns.

    columns: names in the order of the file.
    rows: pairs of line and cells, to be walked once; every row has every column.
    """

    columns: tuple[str, ...]
    rows: Iterator[tuple[int, dict[str, str]]]


class Problems:
    """What is wrong with one file, collected to be reported all at once."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.n_found = 0
        self.shown: list[str] = []

    def add(self, line: int, message: str) -> None:
        """Note a problem; the first ten are kept, all are counted."""
        self.n_found += 1
        if len(self.shown) < N_SHOWN:
            self.shown.append(f"{place(self.source, line)}: {message}")

    def raise_if_any(self) -> None:
        """Raise one `ManifestError` that holds every problem noted."""
        if self.n_found == 0:
            return
        if self.n_found == 1:
            raise ManifestError(self.shown[0])
        first = f", the first {N_SHOWN}" if self.n_found > N_SHOWN else ""
        heading = f"{self.source}: {self.n_found} problems{first}:"
        raise ManifestError("\n".join([heading, *self.shown]))


def place(source: Path, line: int) -> str:
    """Name a row as its file's format counts it; Parquet has rows, text has lines.

    >>> place(Path("train.csv"), 12), place(Path("train.parquet"), 12)
    ('train.csv line 12', 'train.parquet row 12')
    """
    unit = "row" if source.suffix.lower() == ".parquet" else "line"
    return f"{source} {unit} {line}"


def read_rows(path: str | Path, problems: Problems | None = None) -> Table:
    """Read a table by its ending: `.csv`, `.jsonl` or `.parquet`.

    Args:
        path: the file. Text is UTF-8, with or without a byte-order mark.
        problems: where rows with too few or too many fields are noted and left
            out; without it the first one raises.

    Returns:
        Columns and rows. A CSV row's line is the one that it begins on, the header
        being line 1; a Parquet row's is its number, from 1. Blank lines are skipped.

    Raises:
        ManifestError: no such file, another ending, no header, a column that
            occurs twice, text that is not UTF-8, or a row that cannot be read.
    """
    source = Path(path)
    ending = source.suffix.lower()
    if ending == ".csv":
        return read_csv(source, problems)
    if ending == ".jsonl":
        return read_jsonl(source)
    if ending == ".parquet":
        return read_parquet(source)
    raise ManifestError(f"{source}: ends in {ending!r}; a table is a .csv, .jsonl or .parquet file")


def read_content(source: Path) -> bytes:
    """Return a file's bytes."""
    try:
        return source.read_bytes()
    except OSError as error:
        raise ManifestError(f"{source}: {error.strerror}") from error


def read_text(source: Path) -> str:
    """Return a file's text without its byte-order mark."""
    content = read_content(source)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = "not UTF-8 text; save it again with the encoding UTF-8"
        raise ManifestError(f"{place(source, line)}: {message}") from error


def read_csv(source: Path, problems: Problems | None) -> Table:
    """Read comma-separated values; quoted cells may hold commas, quotes and newlines."""
    lines = csv_lines(source)
    try:
        _, header = next(lines)
    except StopIteration:
        raise ManifestError(f"{source}: empty; the first line names the columns") from None
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise ManifestError(f"{source}: separated by {name}; save it with commas")
    columns = check_columns(source, header)
    return Table(columns, fit_rows(source, columns, lines, problems))


def csv_lines(source: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each CSV row that is not blank with the line that it begins on."""
    # A quote that never closes would swallow the rest of the file; strict refuses it.
    reader = csv.reader(io.StringIO(read_text(source), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = f"not CSV: {error}; check the quotes from here on"
            raise ManifestError(f"{place(source, line)}: {message}") from error
        if cells:
            yield line, cells


def fit_rows(
    source: Path,
    columns: tuple[str, ...],
    lines: Iterator[tuple[int, list[str]]],
    problems: Problems | None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows that have one cell a column; note or refuse the others."""
    n_columns = len(columns)
    for line, cells in lines:
        if len(cells) == n_columns:
            yield line, dict(zip(columns, cells, strict=True))
            continue
        message = (
            f"{len(cells)} fields where the header has {n_columns}; "
            "a comma inside a field needs quotes around the field"
        )
        if problems is None:
            raise ManifestError(f"{place(source, line)}: {message}")
        problems.add(line, message)


def check_columns(source: Path, names: list[str]) -> tuple[str, ...]:
    """Refuse a column that occurs twice; columns without a name may."""
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ManifestError(f"{source}: column {twice[0]!r} occurs twice; keep one of them")
    return tuple(names)


def read_jsonl(source: Path) -> Table:
    """Read one JSON object a line; a key that some lines lack is empty there."""
    found: list[tuple[int, dict[str, str]]] = []
    for line, text in enumerate(io.StringIO(read_text(source)), start=1):
        if text.strip():
            found.append((line, read_object(text, place(source, line))))
    if not found:
        raise ManifestError(f"{source}: empty; each line is a JSON object")
    columns = tuple(dict.fromkeys(key for _, cells in found for key in cells))
    absent = dict.fromkeys(columns, "")
    return Table(columns, ((line, absent | cells) for line, cells in found))


def read_object(text: str, where: str) -> dict[str, str]:
    """Turn one line of JSONL into cells."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise ManifestError(f'{where}: not a JSON object; write {{"path": ..., ...}}')
    return {key: as_text(value, f"{where}: column {key!r}") for key, value in row.items()}


def read_parquet(source: Path) -> Table:
    """Read a Parquet file; needs the extra `parquet`."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        message = "Parquet needs pyarrow; run `pip install 'voxpanel[parquet]'` or use CSV"
        raise ManifestError(f"{source}: {message}") from error
    try:
        table = parquet.read_table(io.BytesIO(read_content(source)))
    except ArrowInvalid as error:
        raise ManifestError(f"{source}: not a Parquet file: {error}") from error
    columns = check_columns(source, table.column_names)
    return Table(columns, parquet_rows(source, columns, table.to_pydict()))


def parquet_rows(
    source: Path, columns: tuple[str, ...], values: dict[str, list[object]]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield a Parquet table's rows as text, numbered from 1."""
    for row, cells in enumerate(zip(*values.values(), strict=True), start=1):
        where = place(source, row)
        yield (
            row,
            {
                name: as_text(value, f"{where}: column {name!r}")
                for name, value in zip(columns, cells, strict=True)
            },
        )


def as_text(value: object, where: str) -> str:
    """Write a JSON or Parquet value as a CSV cell would hold it; null is empty.

    >>> as_text(3.5, "row 1"), as_text(True, "row 1"), as_text(None, "row 1")
    ('3.5', 'true', '')
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return str(value)
    raise ManifestError(f"{where} holds a {type(value).__name__}; a cell is text, a number or null")
