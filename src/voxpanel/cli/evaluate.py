"""`voxpanel evaluate`: how good scores are, against ratings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxpanel.cli.output import (
    PARTLY_DONE,
    interruptible,
    levels_table,
    print_json,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from voxpanel.evaluate import Evaluation


def evaluate(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE",
            help="Two: scores, then ratings (a manifest). One: a table that has both, or with "
            "--model, a manifest.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="M", help="Score the manifest's clips with this model.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE=NAME,...",
            help="What columns are called; roles are path, score, label (the rating), system.",
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Compare with the ratings of this listening test."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare with train, dev or test.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Annotated[str, typer.Option(help="With --model: cpu, cuda, ...")] = "auto",
) -> None:
    """Say how close scores come to ratings.

    MSE, LCC, SRCC and KTAU with 95 % intervals: at the utterance level over clips, at
    the system level over the means of systems. Clips are paired by path. Intervals are
    from a bootstrap that draws systems. Rated clips without a score make the exit
    status 3.

    \b
    voxpanel evaluate scores.csv ratings.csv
    voxpanel evaluate --model base ratings.csv --split test
    voxpanel evaluate table.csv --columns score=predicted,label=mos
    """  # noqa: D301  # click reads \b: the lines below it stay as they are
    from voxpanel.evaluate import evaluate as compare  # numpy is loaded here, not by --help
    from voxpanel.evaluate import parse_columns

    named = None if columns is None else parse_columns(columns)
    if model is not None:
        if len(tables) != 1 or named is not None:
            raise typer.BadParameter("needs one manifest, and no --columns", param_hint="--model")
        evaluation = evaluate_model(model, tables[0], test, split, device)
    elif len(tables) > 2:
        message = f"{len(tables)} tables; give scores and ratings, or one table that has both"
        raise typer.BadParameter(message, param_hint="TABLE")
    else:
        ratings = tables[1] if len(tables) == 2 else None
        evaluation = compare(tables[0], ratings, columns=named, test=test, split=split)
    show(evaluation, as_json=as_json)


def evaluate_model(
    model: str, manifest: Path, test: str | None, split: str | None, device: str
) -> "Evaluation":
    """Score the rated clips of a manifest and compare.

    The model answers for the listening test that is compared with, if it knows it.
    """
    from voxpanel.data.manifest import read_manifest
    from voxpanel.evaluate import evaluate as compare

    rated = [
        rating
        for rating in read_manifest(manifest).ratings
        if rating.score is not None
        and test in (None, rating.test)
        and split in (None, rating.split)
    ]
    from voxpanel.score import Scorer

    paths = list(dict.fromkeys(str(rating.path) for rating in rated))
    scorer = Scorer.load(model, device=device)
    answered = test if test in scorer.test_names else None
    if answered != test:
        say(f"{scorer.model_id} does not know the test {test!r}; its scores are for no test")
    with interruptible("nothing was compared"), progress_bar("scoring", len(paths)) as advance:
        scores = []
        for score in scorer.score_many(paths, test=answered):
            scores.append(score)
            advance()
    for score in scores:
        if score.error is not None:
            say(f"not scored: {score.error}")
    return compare(scores, rated, test=test, split=split)


def show(evaluation: "Evaluation", *, as_json: bool) -> None:
    """Print both levels; say on stderr what they are not over."""
    if as_json:
        print_json(evaluation.as_dict())
    else:
        typer.echo(levels_table(evaluation.as_dict()))
    for level in (evaluation.utterance, evaluation.system):
        if level is not None and level.undefined is not None:
            say(f"over {level.n}: {level.undefined}")
    if evaluation.system is None:
        say("no system level: no column says which system made a clip")
    if evaluation.n_unrated:
        say(f"{evaluation.n_unrated} scores belong to no rating; they are left out")
    if evaluation.n_missing:
        say(f"{evaluation.n_missing} of {evaluation.n_rated} rated clips have no score")
        raise typer.Exit(PARTLY_DONE)
