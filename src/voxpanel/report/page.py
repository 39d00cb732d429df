"""Scores as one self-contained HTML page: means by system drawn, every clip to hear.

The page loads nothing but the audio files, by relative links. Whatever a bar shows
stands in the table beside it as a number.
"""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from voxpanel.measure import FLAGS
from voxpanel.records import Score
from voxpanel.tables import SystemMean

LOWEST, HIGHEST = 1.0, 5.0  # the scale of MOS
ROW, LABEL, AXIS, WIDTH = 28, 180, 22, 620  # pixels: a system's height, its name, the foot, all

PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
body { color: #1b1f24; background: #fff }
table { border-collapse: collapse }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #d5dae0 }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap }
td.path { overflow-wrap: anywhere }
tr.failed td { color: #a3200d }
svg { width: 100%; max-width: ${width}px; height: auto; font-size: 13px }
audio { height: 2rem; width: 15rem }
@media (prefers-color-scheme: dark) {
  body { color: #e6e9ed; background: #15181c }
  th, td { border-color: #3a414a }
  tr.failed td { color: #ff9a8a }
}
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
$systems
<h2>Clips</h2>
<table>
<thead><tr><th scope="col">clip</th><th scope="col">MOS</th><th scope="col">95 % interval</th>
<th scope="col">system</th><th scope="col">listen</th><th scope="col">notes</th></tr></thead>
<tbody>
$clips
</tbody>
</table>
$legend
</body>
</html>
"""
)


def write_page(
    path: Path, title: str, scores: Sequence[Score], means: Sequence[SystemMean]
) -> None:
    """Write the page to a file; what is there is replaced.

    Args:
        scores: rows in the order of the table; their paths are from the working folder.
        means: by system; without any there is no figure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render(title, scores, means, path.parent)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def render(title: str, scores: Sequence[Score], means: Sequence[SystemMean], folder: Path) -> str:
    """Return the page as it should stand in a folder."""
    n_scored = sum(score.mos is not None for score in scores)
    models = dict.fromkeys(score.model for score in scores if score.model)
    return PAGE.substitute(
        title=escape(title),
        width=WIDTH,
        summary=escape(f"{n_scored} of {len(scores)} clips scored by {', '.join(models)}."),
        systems=systems_section(means) if means else "",
        clips="\n".join(clip_row(score, folder) for score in scores),
        legend=legend(scores),
    )


def systems_section(means: Sequence[SystemMean]) -> str:
    """Draw the means and list them."""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(mean.system)}</th><td class="number">{mean.n}</td>'
        f'<td class="number">{number(mean.mos)}</td>'
        f'<td class="number">{span(mean.mos_low, mean.mos_high)}</td></tr>'
        for mean in means
    )
    return (
        f"<h2>Systems</h2>\n{figure(means)}\n<table>\n<thead><tr>"
        '<th scope="col">system</th><th scope="col">n</th><th scope="col">MOS</th>'
        f'<th scope="col">95 % interval</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>'
        "\n<p>n is the number of clips behind a mean. An interval has the mean width of its "
        "clips' intervals, as if the model erred alike on all of them.</p>"
    )


def figure(means: Sequence[SystemMean]) -> str:
    """Draw a bar a system from 1 to its mean, and a line for its interval."""
    bottom = ROW * len(means)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {bottom + AXIS}" role="img" aria-label="'
        'Mean predicted score of each system; the numbers are in the table below">'
    ]
    for tick in range(round(LOWEST), round(HIGHEST) + 1):
        x = place(tick)
        parts.append(f'<path d="M{x:.1f} 0V{bottom}" stroke="currentColor" opacity=".2"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" '
            f'fill="currentColor">{tick}</text>'
        )
    parts += [bar(mean, row) for row, mean in enumerate(means)]
    return "\n".join([*parts, "</svg>"])


def bar(mean: SystemMean, row: int) -> str:
    """Draw one system; only its name if nothing of it was scored."""
    middle = ROW * row + ROW / 2
    name = (
        f'<text x="{LABEL - 8}" y="{middle + 4:.1f}" text-anchor="end" '
        f'fill="currentColor">{escape(mean.system)}</text>'
    )
    if mean.mos is None or mean.mos_low is None or mean.mos_high is None:
        return name
    left, right = place(LOWEST), place(mean.mos)
    low, high = place(mean.mos_low), place(mean.mos_high)
    return (
        f"<g><title>{escape(mean.system)}: {number(mean.mos)}, "
        f"{span(mean.mos_low, mean.mos_high)}</title>{name}"
        f'<rect x="{left:.1f}" y="{middle - 8:.1f}" width="{right - left:.1f}" height="16" '
        'fill="#4a86c5"/>'
        f'<path d="M{low:.1f} {middle - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8" '
        'stroke="currentColor" stroke-width="1.5" fill="none"/></g>'
    )


def place(mos: float) -> float:
    """Return where a score lies on the axis, in pixels.

    >>> place(1.0), place(5.0)
    (180.0, 600.0)
    """
    return LABEL + (WIDTH - 20 - LABEL) * (mos - LOWEST) / (HIGHEST - LOWEST)


def clip_row(score: Score, folder: Path) -> str:
    """Write a clip's row, with a player."""
    path = escape(score.path)
    failed = "" if score.error is None else ' class="failed"'
    notes = ", ".join(score.flags) if score.error is None else f"not scored: {score.error}"
    player = f'<audio controls preload="none" src="{link(score.path, folder)}"'
    return (
        f'<tr{failed}><td class="path">{path}</td><td class="number">{number(score.mos)}</td>'
        f'<td class="number">{span(score.mos_low, score.mos_high)}</td>'
        f"<td>{escape(score.system or '')}</td>"
        f'<td>{player} aria-label="{path}"></audio></td><td>{escape(notes)}</td></tr>'
    )


def link(path: str, folder: Path) -> str:
    """Return the relative link from a page's folder to a file.

    >>> link("clips/a b#1.wav", Path("demo"))
    '../clips/a%20b%231.wav'
    """
    relative = Path(os.path.relpath(path, folder)).as_posix()
    return quote(os.fsencode(relative))


def legend(scores: Sequence[Score]) -> str:
    """Explain the flags that occur."""
    there = [name for name in FLAGS if any(name in score.flags for score in scores)]
    if not there:
        return ""
    entries = "".join(f"<dt>{name}</dt><dd>{escape(FLAGS[name])}</dd>" for name in there)
    return f"<h2>Notes</h2>\n<dl>{entries}</dl>"


def number(mos: float | None) -> str:
    """Write a score as tables have it; a dash stands for none."""
    return "-" if mos is None else f"{mos:.3f}"


def span(low: float | None, high: float | None) -> str:
    """Write an interval."""
    return "-" if low is None or high is None else f"{number(low)} to {number(high)}"
