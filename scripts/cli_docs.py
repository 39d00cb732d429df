"""The text of `docs/cli.md`, made from what the code says of itself."""

import inspect
from collections.abc import Mapping
from typing import Any

import typer.main
from typer.testing import CliRunner

from voxpanel import cli
from voxpanel.data.manifest import COLUMNS
from voxpanel.measure import FLAGS
from voxpanel.tables import MEANINGS

WIDTH = 80
PREFACE = """\
# The command line

<!-- Made by `python scripts/check_docs.py --write` from the code; change it there. -->
"""


def cli_docs() -> str:
    """Return the page."""
    sections = [PREFACE, conventions(), block("voxpanel")]
    for name in commands():
        sections += [f"## voxpanel {name}\n", block("voxpanel", name)]
    sections += [
        "## Columns of a score table\n",
        "With `--experts`, `gate_1` ... `gate_N` follow.\n",
        table("column", "meaning", MEANINGS),
        "## Flags\n",
        table("flag", "meaning", FLAGS),
        "## Columns of a manifest\n",
        "One row a rating, or one row a clip. Any other `listener_*` column describes the "
        "listener; what else there is, is ignored.\n",
        table("column", "meaning", COLUMNS),
    ]
    return "\n".join(sections)


def commands() -> Mapping[str, Any]:
    """Return the commands by name."""
    group: Any = typer.main.get_command(cli.app)
    found: Mapping[str, Any] = group.commands
    return found


def conventions() -> str:
    """Return what holds for every command, as the package `cli` says it."""
    _, text, *_ = inspect.cleandoc(cli.__doc__ or "").split("\n\n")
    return text + "\n"


def block(*words: str) -> str:
    """Return the help of a command in a fenced block."""
    runner = CliRunner(env={"COLUMNS": str(WIDTH), "NO_COLOR": "1"})
    result = runner.invoke(cli.app, [*words[1:], "--help"], prog_name="voxpanel")
    return f"```text\n{result.output.strip()}\n```\n"


def table(left: str, right: str, rows: Mapping[str, str]) -> str:
    """Return a Markdown table."""
    lines = [f"| {left} | {right} |", "| --- | --- |"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in rows.items()]
    return "\n".join(lines) + "\n"
