"""The model card: what a model is, what it was trained on, how far to trust it."""

from collections.abc import Mapping
from typing import Any

from voxpanel.model.checkpoint import ModelRecord

METRICS = ("mse", "lcc", "srcc", "ktau")


def write_card(record: ModelRecord, preface: str = "", limits: str = "") -> str:
    """Return the card as Markdown.

    Args:
        preface: what the model is for, licences and thanks.
        limits: what it should not be used for.
    """
    calibration = record.calibration
    coverage = "not measured" if calibration.coverage is None else f"{calibration.coverage:.1%}"
    sections = [
        f"# {record.name} {record.version}",
        preface or "A voxpanel model: it predicts how people would rate speech, on a scale of 1-5.",
        "## Trained on\n\n"
        + "\n".join(f"- {key}: {value}" for key, value in record.training.items()),
        "## Accuracy on clips it had not seen\n\n" + accuracy(record.measured),
        "## Intervals\n\n"
        f"`mos_low` and `mos_high` lie {calibration.half_width:.2f} MOS from the score: 95 % of "
        f"the {calibration.n} clips {calibration.basis} were within that. Coverage of intervals "
        f"set without a clip's own group: {coverage}.",
        f"## Classes\n\n{', '.join(record.synthesizers) or 'none'}",
    ]
    if limits:
        sections.append(f"## Limits\n\n{limits}")
    return "\n\n".join(sections) + "\n"


def accuracy(measured: Mapping[str, Any]) -> str:
    """Return a table of the metrics at both levels, with counts and intervals."""
    lines = ["| clips | level | n | MSE | LCC | SRCC | KTAU |", "|---|---|---|---|---|---|---|"]
    for basis, levels in measured.items():
        for level in ("utterance", "system"):
            values = levels.get(level) if isinstance(levels, Mapping) else None
            if values:
                cells = " | ".join(cell(values[name]) for name in METRICS)
                lines.append(f"| {basis} | {level} | {values['n']} | {cells} |")
    return "\n".join(lines)


def cell(number: Mapping[str, float | None]) -> str:
    """Return a number with its interval.

    >>> cell({"value": 0.9, "low": 0.85, "high": None}), cell({"value": None})
    ('0.900', 'undefined')
    """
    value, low, high = (number.get(name) for name in ("value", "low", "high"))
    if value is None:
        return "undefined"
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
