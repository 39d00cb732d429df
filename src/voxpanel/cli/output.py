"""What all commands share: exit statuses, talk, plain tables, progress bars."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer

ERROR = 1  # an error stopped the work
NONSENSE = 2  # the request made no sense, nothing was done
PARTLY_DONE = 3  # some files could not be scored
INTERRUPTED = 130  # as shells have it for Ctrl-C

METRICS = ("mse", "lcc", "srcc", "ktau")


def say(text: str) -> None:
    """Tell the user something that is not data."""
    typer.echo(text, err=True)


def print_json(value: object) -> None:
    """Print a result as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@contextmanager
def interruptible(note: str) -> Iterator[None]:
    """Let Ctrl-C end the command with a note of what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {note}")
        raise typer.Exit(INTERRUPTED) from None


def printable(text: str) -> str:
    r"""Spell out what would garble a terminal.

    >>> printable("talk\n\x1b[2J 🎧.wav")
    'talk\\n\\x1b[2J 🎧.wav'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def pad(text: str, width: int) -> str:
    """Append blanks up to a width in terminal cells; some characters take two."""
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))


def widest(texts: Sequence[str]) -> int:
    """Return the width of the widest text in terminal cells."""
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of cells, the first one being the header.

    >>> print(text_table([["system", "n"], ["espeak-ng", "2"]]))
    system     n
    espeak-ng  2
    """
    columns = list(zip(*([printable(cell) for cell in row] for row in rows), strict=True))
    widths = [widest(column) for column in columns]
    lines = (
        "  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    )
    return "\n".join(line.rstrip() for line in lines)


def number(value: float | None, n_decimals: int = 3) -> str:
    """Write a number of a table; `-` stands for none."""
    return "-" if value is None else f"{value:.{n_decimals}f}"


def levels_table(levels: Mapping[str, Any]) -> str:
    """Lay out `Evaluation.as_dict()`: a line a level, each metric with its interval."""
    rows = [["level", "n", *(name.upper() for name in METRICS)]]
    for level, values in levels.items():
        if values is not None:
            metrics = [with_interval(values[name]) for name in METRICS]
            rows.append([level, str(values["n"]), *metrics])
    return text_table(rows)


def with_interval(metric: Mapping[str, float | None]) -> str:
    """Write a metric with its 95 % interval.

    >>> with_interval({"value": 0.9, "low": 0.85, "high": 0.94})
    '0.900 (0.850 to 0.940)'
    >>> with_interval({"value": None, "low": None, "high": None})
    'undefined'
    """
    if metric["value"] is None:
        return "undefined"
    if metric["low"] is None or metric["high"] is None:
        return number(metric["value"])
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"


@contextmanager
def progress_bar(task: str, total: int, *, wanted: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr if that is a terminal; the function given advances it."""
    from rich.console import Console
    from rich.progress import Progress

    is_shown = wanted and total > 1 and sys.stderr.isatty()
    # Data written to stdout must not be drawn into the bar.
    with Progress(
        console=Console(stderr=True),
        disable=not is_shown,
        transient=True,
        redirect_stdout=False,
    ) as bar:
        place = bar.add_task(task, total=total)
        yield lambda: bar.advance(place)


class TrainingBars:
    """Shows how far a training run is: bars on a terminal, plain lines elsewhere.

    is_quiet: show nothing, in all but one of several processes.
    """

    def __init__(self, *, is_quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.has_bars = sys.stderr.isatty() and not is_quiet
        self.has_lines = not self.has_bars and not is_quiet
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            disable=not self.has_bars,
            redirect_stdout=False,
        )
        self.total = self.done = 0

    def __enter__(self) -> "TrainingBars":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def begin(self, task: str, total: int) -> None:
        """Begin a task of `total` steps."""
        self.total, self.done = total, 0
        self.bars.add_task(task, total=total, note="")
        self.line(f"{task}: {total} steps")

    def advance(self, note: str = "") -> None:
        """Count one step; the note says how it went."""
        self.done += 1
        place = self.bars.task_ids[-1]
        self.bars.advance(place)
        if note:
            self.bars.update(place, note=note)
            self.line(f"  {self.done}/{self.total}  {note}")

    def say(self, text: str) -> None:
        """Tell the user something, above the bars."""
        if self.has_bars:
            self.bars.console.print(printable(text), markup=False, highlight=False)
        self.line(text)

    def line(self, text: str) -> None:
        """Write a plain line, where lines stand for bars."""
        if self.has_lines:
            say(text)
