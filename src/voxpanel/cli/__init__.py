"""The command `voxpanel`, one verb a file.

Data goes to stdout or to a file that `-o` names; talk and progress bars go to stderr.
Nothing that exists is replaced without `--force`. Exit status: 0 all done; 1 an error
stopped the work; 2 the request made no sense and nothing was done; 3 done in part, and
the rows say what is missing; 130 interrupted.

Importing this loads nothing heavy: each command imports what it needs when it runs.
"""

import io
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from voxpanel.cli.evaluate import evaluate
from voxpanel.cli.models import models
from voxpanel.cli.output import ERROR, NONSENSE
from voxpanel.cli.score import score
from voxpanel.cli.train import train
from voxpanel.errors import ConfigError, VoxpanelError

app = typer.Typer(
    name="voxpanel",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text, the same on a terminal, in a pipe and in the docs
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from voxpanel import __version__

        typer.echo(f"voxpanel {__version__}")
        raise typer.Exit


@app.callback()
def voxpanel(
    version: Annotated[  # its callback does the work
        bool,
        typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """Predict how people would rate synthetic speech, on a scale of 1-5.

    A panel of experts listens: `voxpanel score talk.wav`.
    """


app.command()(score)
app.command()(train)
app.command()(evaluate)
app.command()(models)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave with its exit status.

    Args:
        args: without the name of the command; None for those of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may hold anything; tables are UTF-8 wherever they are piped to.
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    try:
        app(args=args, prog_name="voxpanel")
    except VoxpanelError as error:
        typer.echo(f"voxpanel: {error}", err=True)
        sys.exit(NONSENSE if isinstance(error, ConfigError) else ERROR)
    except OSError as error:  # a table that cannot be written, a full disk
        typer.echo(f"voxpanel: {error.filename or 'output'}: {error.strerror or error}", err=True)
        sys.exit(ERROR)
    sys.exit(0)
