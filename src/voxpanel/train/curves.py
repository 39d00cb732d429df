"""The curves of a run as one SVG: a panel a member, a line a number."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 560, 150  # of one member's panel, in pixels
LEFT, TOP, RIGHT, BOTTOM = 50, 24, 190, 20  # margins; the legend stands in the right one
LINES = (
    ("dev_utterance_lcc", "held-out utterance LCC", "#0b6"),
    ("dev_utterance_mse", "held-out utterance MSE", "#06c"),
    ("dev_accuracy", "held-out class accuracy", "#c50"),
    ("train_mos", "training MOS loss", "#888"),
)


def draw_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Draw the entries of `metrics.jsonl`, all members below one another."""
    members = sorted({int(entry["member"]) for entry in history})
    panels = [
        draw_member([entry for entry in history if entry["member"] == member], member, place)
        for place, member in enumerate(members)
    ]
    height = HEIGHT * max(1, len(members))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="11"><title>Training curves</title>\n'
        + "".join(panels)
        + "</svg>\n"
    )


def draw_member(history: Sequence[Mapping[str, Any]], member: int, place: int) -> str:
    """Draw one member's numbers over its epochs; a rule marks where a stage begins."""
    parts = [f'<g transform="translate(0 {place * HEIGHT})">']
    parts.append(f'<text x="{LEFT}" y="14">member {member + 1}</text>')
    for number in (0.0, 0.5, 1.0):
        y = vertical(number)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 28}" y="{y + 4:.1f}">{number:.1f}</text>')
    for epoch, entry in enumerate(history):
        if epoch == 0 or entry["stage"] != history[epoch - 1]["stage"]:
            x = horizontal(epoch, len(history))
            parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#bbb"/>')
            label = escape(str(entry["stage"]))
            parts.append(f'<text x="{x + 2:.1f}" y="{HEIGHT - 8}" fill="#666">{label}</text>')
    for row, (key, label, colour) in enumerate(LINES):
        points = [
            (epoch, entry[key]) for epoch, entry in enumerate(history) if is_number(entry, key)
        ]
        if points:
            parts.append(draw_line(points, len(history), colour))
            y = TOP + 14 * (row + 1)
            parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y}" fill="{colour}">{label}</text>')
    return "".join(parts) + "</g>\n"


def draw_line(points: Sequence[tuple[int, float]], n_epochs: int, colour: str) -> str:
    """Draw one number over the epochs."""
    path = " ".join(f"{horizontal(x, n_epochs):.1f},{vertical(y):.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def is_number(entry: Mapping[str, Any], key: str) -> bool:
    """Tell whether an entry has this number; an undefined one is None."""
    return entry.get(key) is not None


def horizontal(epoch: int, n_epochs: int) -> float:
    """Return where an epoch lies, in pixels."""
    return LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(1, n_epochs - 1)


def vertical(number: float) -> float:
    """Return where a number of 0-1 lies, in pixels; what is beyond lies at the edge."""
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(1.0, max(0.0, number)))
