"""Score the clips in `examples/` with the shipped model; `make demo` runs this.

Prints the tables that `voxpanel score examples/manifest.csv` prints, and writes
`demo/scores.csv` and `demo/report.html`. The exit status is 1 if a model says that
degrading a clip did not make it worse, or cannot score one.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from voxpanel.cli.score import short_table, system_table
from voxpanel.data.manifest import read_manifest
from voxpanel.inputs import list_inputs
from voxpanel.records import Score
from voxpanel.report.page import write_page
from voxpanel.score import Scorer
from voxpanel.tables import Tally, open_table

ROOT = Path(__file__).parent.parent
MANIFEST = Path("examples", "manifest.csv")
OUT = Path("demo")
DEGRADED = "-degraded"  # what follows the name of the clean system


def main() -> int:
    """Run the demo from the repository's root; return the exit status."""
    os.chdir(ROOT)
    files = list_inputs([str(MANIFEST)])
    scorer = Scorer.load("base")
    systems = {file.path: file.system for file in files if file.system is not None}
    scores: list[Score] = []
    tally = Tally()
    with short_table(list(systems)) as show, open_table(OUT / "scores.csv") as write:
        for score in scorer.score_many([file.path for file in files], systems=systems):
            show(score)
            write(score)
            tally.add(score)
            scores.append(score)
    print("\n" + system_table(tally.system_means()))
    write_page(OUT / "report.html", "voxpanel demo", scores, tally.system_means())
    print(f"\nwrote {OUT / 'scores.csv'} and {OUT / 'report.html'}")
    n_better, n_texts = count_better(scores)
    print(f"in {n_better} of {n_texts} spoken texts the clean clip scores above its degraded copy")
    return 0 if n_better == n_texts and tally.n_failed == 0 else 1


def count_better(scores: Sequence[Score]) -> tuple[int, int]:
    """Count the texts whose clean clip scores higher, and all texts; per synthesizer."""
    by_path = {score.path: score.mos or 0.0 for score in scores}
    clips = {
        (rating.system, rating.sentence): by_path[str(rating.path)]
        for rating in read_manifest(MANIFEST).ratings
    }
    pairs = [
        (mos, clips[f"{system}{DEGRADED}", sentence])
        for (system, sentence), mos in clips.items()
        if system and not system.endswith(DEGRADED)
    ]
    return sum(clean > degraded for clean, degraded in pairs), len(pairs)


if __name__ == "__main__":
    sys.exit(main())
