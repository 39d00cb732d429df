"""`voxpanel score`: audio in, a score table out."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxpanel.cli.output import (
    PARTLY_DONE,
    interruptible,
    number,
    pad,
    printable,
    progress_bar,
    say,
    text_table,
    widest,
)

if TYPE_CHECKING:
    from voxpanel.inputs import Input
    from voxpanel.records import Score
    from voxpanel.score import Scorer
    from voxpanel.tables import SystemMean, Tally, Write


def score(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files, folders with all below, quoted globs, lists of paths (.txt, or - for "
            "stdin) and manifests (.csv, .jsonl, .parquet).",
        ),
    ],
    model: Annotated[
        str, typer.Option(help="A shipped model's name, a model's folder or a hub id.")
    ] = "base",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="A .csv, .jsonl or .parquet file."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as a JSON array.")] = False,
    test: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The listening test to answer for, if a model knows it."),
    ] = None,
    experts: Annotated[
        bool, typer.Option("--experts", help="Add the gate's weights: gate_1 ... gate_N.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is a GPU if any.")] = "auto",
) -> None:
    """Score audio files on the 1-5 scale.

    Each score has its 95 % interval. Rows are written as they come: to FILE, or to
    stdout as CSV (as a short table if that is a terminal). A file that cannot be scored
    keeps its row, with the reason, and makes the exit status 3.

    \b
    voxpanel score talk.wav
    voxpanel score recordings/ -o scores.csv
    voxpanel score manifest.csv --json
    """  # noqa: D301  # click reads \b: the lines below it stay as they are
    files = find_files(inputs, out, force=force, as_json=as_json)
    from voxpanel.score import Scorer  # torch is loaded here, not by --help
    from voxpanel.tables import Tally

    scorer = Scorer.load(model, device=device)
    check_request(scorer, test, experts=experts)
    systems = {file.path: file.system for file in files if file.system is not None}
    rows = scorer.score_many([file.path for file in files], test=test, systems=systems)
    n_gates = scorer.n_gates if experts else 0
    tally = Tally()
    on_terminal = out is None and not as_json and sys.stdout.isatty()
    with (
        interruptible("the rows so far are kept"),
        open_output(files, out, n_gates, as_json=as_json) as write,
        progress_bar("scoring", len(files), wanted=not on_terminal) as advance,
    ):
        for row in rows:
            write(row)
            tally.add(row)
            advance()
    sum_up(tally)


def find_files(
    inputs: Sequence[str], out: Path | None, *, force: bool, as_json: bool
) -> list["Input"]:
    """Refuse a request that makes no sense, before anything heavy is loaded."""
    from voxpanel.errors import AudioError
    from voxpanel.inputs import list_inputs
    from voxpanel.tables import check_ending

    if out is not None:
        if as_json:
            raise typer.BadParameter(
                "goes to stdout; -o FILE.jsonl writes JSON", param_hint="--json"
            )
        check_ending(out)
        if out.exists() and not force:
            raise typer.BadParameter(f"{out} exists; add --force to replace it", param_hint="-o")
        if any(Path(name).resolve() == out.resolve() for name in inputs):
            raise typer.BadParameter(f"{out} is one of the inputs", param_hint="-o")
    try:
        return list_inputs(inputs)
    except AudioError as error:
        raise typer.BadParameter(str(error), param_hint="INPUT") from None


def check_request(scorer: "Scorer", test: str | None, *, experts: bool) -> None:
    """Refuse what this model cannot answer."""
    if test is not None and test not in scorer.test_names:
        known = ", ".join(scorer.test_names) or "none"
        message = f"{test!r}: {scorer.model_id} was trained on the tests {known}"
        raise typer.BadParameter(message, param_hint="--test")
    if experts and scorer.n_gates == 0:
        message = f"{scorer.model_id} has no mixture of experts"
        raise typer.BadParameter(message, param_hint="--experts")


def open_output(
    files: Iterable["Input"], out: Path | None, n_gates: int, *, as_json: bool
) -> "AbstractContextManager[Write]":
    """Return the writer of rows that was asked for."""
    from voxpanel.tables import csv_table, json_array, open_table

    if out is not None:
        return open_table(out, n_gates)
    if as_json:
        return json_array(sys.stdout, n_gates)
    if sys.stdout.isatty():
        return short_table([file.path for file in files])
    return csv_table(sys.stdout, n_gates)


@contextmanager
def short_table(paths: Sequence[str]) -> "Iterator[Write]":
    """Write rows for reading, aligned, each as soon as it comes."""
    width = widest(["path", *map(printable, paths)])
    typer.echo(f"{pad('path', width)}  MOS    95 % interval   notes")

    def write(row: "Score") -> None:
        interval = "-" if row.mos is None else f"{number(row.mos_low)} to {number(row.mos_high)}"
        notes = ", ".join(row.flags)
        if row.error is not None:
            notes = f"not scored: {row.error.removeprefix(f'{row.path}: ')}"
        cells = (pad(printable(row.path), width), f"{number(row.mos):5}", f"{interval:14}", notes)
        typer.echo(printable("  ".join(cells).rstrip()))

    yield write


def sum_up(tally: "Tally") -> None:
    """Say how many files were scored, and the means by system if systems are known."""
    means = tally.system_means()
    if means:
        say("\n" + system_table(means))
    if tally.n > 1 or tally.n_failed:
        files = "1 file" if tally.n == 1 else f"{tally.n} files"
        failed = f", {tally.n_failed} not: see column error" if tally.n_failed else ""
        say(f"{files}, {tally.n - tally.n_failed} scored{failed}")
    if tally.n_failed:
        raise typer.Exit(PARTLY_DONE)


def system_table(means: Sequence["SystemMean"]) -> str:
    """Lay out the means by system; `n` counts the clips that each is over."""
    rows = [["system", "n", "MOS", "95 % interval"]]
    for mean in means:
        interval = "-" if mean.mos is None else f"{number(mean.mos_low)} to {number(mean.mos_high)}"
        rows.append([mean.system, str(mean.n), number(mean.mos), interval])
    return text_table(rows)
