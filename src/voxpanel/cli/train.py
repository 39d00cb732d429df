"""`voxpanel train`: manifests in, a model folder out."""

import os
from pathlib import Path
from typing import Annotated

import typer

from voxpanel.cli.models import as_dict, describe
from voxpanel.cli.output import TrainingBars, interruptible, print_json, say


def train(  # noqa: PLR0913, PLR0917  # one parameter an option
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST", help="Rated clips, and unlabelled ones.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The model's folder; runs are in run/.")],
    config: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="paper, frozen, ssl-mos, or a YAML file."),
    ] = "frozen",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Change a setting; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over if DIR holds a run.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where features are kept; else the user's cache."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is a GPU if any.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the model's record as JSON.")
    ] = False,
) -> None:
    """Train a model on rated clips, by the paper's recipe or another.

    A recipe names the stages. `frozen` trains heads over the encoder of the shipped
    model: minutes on a laptop. What is printed at the end was measured on clips held
    out from training.

    \b
    voxpanel train ratings.csv --out my-model
    voxpanel train ratings.csv --out my-model --set optimizer.batch_size=8
    voxpanel train ratings.csv --out my-model --resume
    """  # noqa: D301  # click reads \b: the lines below it stay as they are
    if resume and force:
        message = "either go on with a run or start over, not both"
        raise typer.BadParameter(message, param_hint="--resume --force")
    from voxpanel.config import read_config

    settings = read_config(config, overrides or ())
    from voxpanel.train.run import train as run  # torch is loaded here, not by --help

    is_first = os.environ.get("RANK", "0") == "0"  # torchrun may start several; one talks
    with (
        interruptible("--resume goes on from here"),
        TrainingBars(is_quiet=not is_first) as watcher,
    ):
        run(
            manifests,
            out,
            settings,
            watcher,
            resume=resume,
            force=force,
            cache=cache,
            device=device,
        )
    if is_first:
        show(out, as_json=as_json)


def show(out: Path, *, as_json: bool) -> None:
    """Print the record of the model that was made."""
    from voxpanel.model.checkpoint import CONFIG, read_config_file, read_record

    record = read_record(read_config_file(out / CONFIG), str(out / CONFIG))
    if as_json:
        print_json(as_dict(record))
    else:
        typer.echo(describe(record))
    say(f"the model is in {out}; score with: voxpanel score --model {out} ...")
