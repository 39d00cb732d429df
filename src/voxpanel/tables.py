r"""Score tables: rows written as they come, and means over them.

CSV, JSONL and Parquet hold the same columns with the same numbers; `rows.py` reads all
three. Every writer is a context manager around a function that takes one `Score`.
Text is UTF-8; a file name that is no UTF-8 has its odd bytes written as `\udcXX`.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from voxpanel.errors import ConfigError
from voxpanel.records import SCORE_COLUMNS, Score

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "path": "the file, as given or found",
        "mos": "predicted mean opinion score, 1-5; empty where `error` says why",
        "mos_low": "lower end of the 95 % interval for the mean of a panel's ratings",
        "mos_high": "upper end of it",
        "system": "what made the clip, if a manifest says so",
        "sample_rate_hz": "the file's own rate",
        "duration_s": "its length",
        "bandwidth_hz": "where its content ends, whatever the rate",
        "speech_s": "how much of it sounds like speech",
        "synthesizer": "the likeliest class that the model knows",
        "synthesizer_p": "the probability of that class",
        "flags": "reasons for doubt, separated by `;`",
        "model": "name, version and a hash of weights and settings",
        "error": "why the file has no score",
    }
)
# fmt: off
DECIMALS: Mapping[str, int] = MappingProxyType({
    "mos": 3, "mos_low": 3, "mos_high": 3, "duration_s": 3, "bandwidth_hz": 0, "speech_s": 3,
    "synthesizer_p": 3,
})
# fmt: on
GATE_DECIMALS = 4
ENDINGS = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 500  # rows that a Parquet file holds back

Cell = str | int | float | None
Write = Callable[[Score], None]


def column_names(n_gates: int = 0) -> tuple[str, ...]:
    """Name the columns of a table, `gate_1` ... after the others."""
    return SCORE_COLUMNS + gate_names(n_gates)


def gate_names(n_gates: int) -> tuple[str, ...]:
    """Name the columns of gates.

    >>> gate_names(2)
    ('gate_1', 'gate_2')
    """
    return tuple(f"gate_{number}" for number in range(1, n_gates + 1))


def cells(score: Score, n_gates: int = 0) -> dict[str, Cell]:
    """Return a row by column, numbers rounded as every table has them.

    A row without a score has no gates: they are None.

    >>> row = cells(Score("a.wav", mos=3.14159, flags=("short", "clipped")))
    >>> row["mos"], row["flags"], row["error"]
    (3.142, 'short;clipped', None)
    """
    row: dict[str, Cell] = {name: getattr(score, name) for name in SCORE_COLUMNS}
    row["flags"] = ";".join(score.flags)
    gates: tuple[float | None, ...] = score.gates or (None,) * n_gates
    row |= zip(gate_names(n_gates), gates[:n_gates], strict=True)
    return {name: rounded(value, decimals(name)) for name, value in row.items()}


def rounded(value: Cell, n_decimals: int) -> Cell:
    """Round a float; anything else stays."""
    return round(value, n_decimals) if isinstance(value, float) else value


def decimals(column: str) -> int:
    """Return how many decimals a column's numbers have."""
    return DECIMALS.get(column, GATE_DECIMALS)


def csv_line(values: Iterable[str]) -> str:
    r"""Write one line of CSV that ends in a bare newline.

    The csv module quotes a carriage return in a name only if its own line end has one.

    >>> csv_line(["a,b", "c\rd", ""])
    '"a,b","c\rd",\n'
    """
    line = io.StringIO(newline="")
    csv.writer(line).writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"


def csv_cells(row: Mapping[str, Cell]) -> Iterator[str]:
    """Yield a row's cells as text; None is empty."""
    for name, value in row.items():
        if isinstance(value, float):
            yield f"{value:.{decimals(name)}f}"
        else:
            yield "" if value is None else str(value)


@contextmanager
def csv_table(stream: TextIO, n_gates: int = 0) -> Iterator[Write]:
    """Write CSV, each line as soon as its row comes."""
    stream.write(csv_line(column_names(n_gates)))

    def write(score: Score) -> None:
        stream.write(csv_line(csv_cells(cells(score, n_gates))))
        stream.flush()

    yield write


@contextmanager
def jsonl_table(stream: TextIO, n_gates: int = 0) -> Iterator[Write]:
    """Write one JSON object a line, as soon as its row comes."""

    def write(score: Score) -> None:
        stream.write(json_object(score, n_gates) + "\n")
        stream.flush()

    yield write


@contextmanager
def json_array(stream: TextIO, n_gates: int = 0) -> Iterator[Write]:
    """Write one JSON array, row by row; it is closed even if the rows break off."""
    separator = "[\n"

    def write(score: Score) -> None:
        nonlocal separator
        stream.write(separator + json_object(score, n_gates))
        stream.flush()
        separator = ",\n"

    try:
        yield write
    finally:
        stream.write("[]\n" if separator == "[\n" else "\n]\n")


def json_object(score: Score, n_gates: int) -> str:
    """Write a row as JSON; what is not known is null."""
    return json.dumps(cells(score, n_gates), ensure_ascii=False, allow_nan=False)


@contextmanager
def parquet_table(path: Path, n_gates: int = 0) -> Iterator[Write]:
    """Write Parquet in groups of rows; the file is whole even if the rows break off."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, column_type(name)) for name in column_names(n_gates)])
    group: list[dict[str, Cell]] = []
    with parquet.ParquetWriter(path, schema) as file:

        def flush() -> None:
            file.write_table(pyarrow.Table.from_pylist(group, schema))
            group.clear()

        def write(score: Score) -> None:
            group.append({name: as_utf8(cell) for name, cell in cells(score, n_gates).items()})
            if len(group) == ROW_GROUP:
                flush()

        try:
            yield write
        finally:
            flush()


def column_type(name: str) -> str:
    """Return the type of a column in Parquet."""
    if name == "sample_rate_hz":
        return "int64"
    return "float64" if name in DECIMALS or name.startswith("gate_") else "string"


def as_utf8(cell: Cell) -> Cell:
    """Replace what no UTF-8 text can hold, the odd bytes of a file name."""
    if not isinstance(cell, str):
        return cell
    return cell.encode("utf-8", "backslashreplace").decode("utf-8")


def check_ending(path: Path) -> None:
    """Refuse a table that could not be written.

    Raises:
        ConfigError: an ending that is not a table's, or Parquet without its library.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{path}: ends in {ending!r}; a table ends in {', '.join(ENDINGS)}")
    if ending == ".parquet":
        try:
            import pyarrow  # noqa: F401  # whether it is there is the question
        except ImportError as error:
            raise ConfigError(
                f"{path}: Parquet needs pyarrow; run `pip install 'voxpanel[parquet]'`"
                " or write .csv"
            ) from error


@contextmanager
def open_table(path: Path, n_gates: int = 0) -> Iterator[Write]:
    """Write a table to a file by its ending; what is there is replaced."""
    check_ending(path)
    ending = path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".parquet":
        with parquet_table(path, n_gates) as write:
            yield write
        return
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        table: AbstractContextManager[Write]
        table = csv_table(stream, n_gates) if ending == ".csv" else jsonl_table(stream, n_gates)
        with table as write:
            yield write


@dataclass(frozen=True, slots=True)
class SystemMean:
    """The mean of a system's scores.

    mos, mos_low, mos_high: means over the n clips that have a score; None if there is
        none. The ends are those of the clips, as if the model erred alike on all of them.
    n_failed: clips without a score.
    """

    system: str
    n: int
    n_failed: int
    mos: float | None
    mos_low: float | None
    mos_high: float | None


class Tally:
    """Counts rows as they pass, and sums their scores by system."""

    def __init__(self) -> None:
        self.n = 0
        self.n_failed = 0
        self._systems: dict[str, Sums] = {}

    def add(self, score: Score) -> None:
        """Count one row; one without a system is in no mean."""
        self.n += 1
        self.n_failed += score.mos is None
        if score.system is not None:
            self._systems.setdefault(score.system, Sums()).add(score)

    def system_means(self) -> list[SystemMean]:
        """Return the means, systems in order of first appearance."""
        return [sums.mean(system) for system, sums in self._systems.items()]


@dataclass(slots=True)
class Sums:
    """What one system adds up to so far."""

    n: int = 0
    n_failed: int = 0
    mos: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def add(self, score: Score) -> None:
        """Add a clip; one without an interval counts as certain."""
        if score.mos is None:
            self.n_failed += 1
            return
        self.n += 1
        self.mos += score.mos
        self.low += score.mos if score.mos_low is None else score.mos_low
        self.high += score.mos if score.mos_high is None else score.mos_high

    def mean(self, system: str) -> SystemMean:
        """Divide by the number of clips."""
        mos, low, high = (
            total / self.n if self.n else None for total in (self.mos, self.low, self.high)
        )
        return SystemMean(system, self.n, self.n_failed, mos, low, high)
