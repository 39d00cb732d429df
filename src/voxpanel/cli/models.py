"""`voxpanel models`: what each model here was trained on, and how good it is."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxpanel.cli.output import levels_table, print_json

if TYPE_CHECKING:
    from voxpanel.model.checkpoint import ModelRecord


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the shipped models.

    What each was trained on, its licence, and its accuracy on clips it had not seen.
    """
    from voxpanel.model.checkpoint import known_models

    records = known_models()
    if as_json:
        print_json([as_dict(record) for record in records])
    else:
        typer.echo("\n\n".join(describe(record) for record in records))


def as_dict(record: "ModelRecord") -> dict[str, Any]:
    """Return what `--json` prints of a model."""
    return {
        "name": record.name,
        "version": record.version,
        "trained_on": dict(record.training),
        "synthesizers": list(record.synthesizers),
        "tests": list(record.tests),
        "interval": {
            "half_width": record.calibration.half_width,
            "n": record.calibration.n,
            "coverage": record.calibration.coverage,
        },
        "measured": dict(record.measured),
    }


def describe(record: "ModelRecord") -> str:
    """Lay out a model's record for reading."""
    return "\n".join(
        [
            f"{record.name} {record.version}",
            *indent(facts({"trained on": record.training})),
            *indent(facts({"synthesizers": record.synthesizers, "tests": record.tests})),
            *indent([f"interval: {interval(record)}"]),
            *indent(measurements(record.measured)),
        ]
    )


def interval(record: "ModelRecord") -> str:
    """Say how wide the model's intervals are and how often they hold."""
    calibration = record.calibration
    width = f"score ± {calibration.half_width:.2f}, from {calibration.n} clips"
    if calibration.coverage is None:
        return f"{width}; how often it holds was not measured"
    return f"{width}; held {calibration.coverage:.1%} of ratings it was not set on"


def measurements(measured: Mapping[str, Any]) -> Iterator[str]:
    """Lay out evaluations as tables, anything else as facts."""
    for name, value in measured.items():
        if isinstance(value, Mapping) and "utterance" in value:
            yield f"measured, {name}:"
            yield from indent(levels_table(value).splitlines())
        else:
            yield from facts({name: value})


def facts(values: Mapping[str, Any]) -> Iterator[str]:
    """Write nested values as lines; what is empty or not known is left out.

    >>> list(facts({"trained on": {"n_clips": 4, "rates_hz": [16000, 24000]}, "tests": ()}))
    ['trained on:', '  n clips: 4', '  rates hz: 16000, 24000']
    """
    for key, value in values.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            yield f"{name}:"
            yield from indent(facts(value))
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            yield from facts({f"{name} {place}": one for place, one in enumerate(value, start=1)})
        elif isinstance(value, list | tuple) and value:
            yield f"{name}: {', '.join(map(short, value))}"
        elif value not in (None, [], ()):
            yield f"{name}: {short(value)}"


def short(value: object) -> str:
    """Write a value, a float with 3 digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def indent(lines: Iterator[str] | list[str]) -> Iterator[str]:
    """Move lines to the right."""
    return (f"  {line}" for line in lines)
