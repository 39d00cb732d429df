"""What `base` is worth on ratings it has never seen, beside Distill-MOS on the same clips.

    python bench/zero_shot.py DATA/rated/yourtts-pt

Nothing of yourtts-pt went into `base`. Distill-MOS answers through its own encoder (the
one inside `base`) and head, which the package `distillmos` carries; its windows are
ours, so its answers differ from the package's by a few hundredths.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine

import voxpanel
from voxpanel.audio import read_audio
from voxpanel.evaluate import evaluate_pairs
from voxpanel.evaluate.pairing import Pairs

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "base"))
from teacher import Teacher  # the script that made `base` has it


def main() -> None:
    """Score every clip with both, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder rated/yourtts-pt")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "zero_shot.md"
    )
    arguments = parser.parse_args()
    ratings: dict[str, list[float]] = defaultdict(list)
    systems: dict[str, str] = {}
    with (arguments.data / "ratings.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            ratings[row["path"]].append(float(row["score"]))
            systems[row["path"]] = row["system"]
    scorer, teacher = voxpanel.load("base"), Teacher()
    rows = list(scorer.score_many([str(arguments.data / path) for path in ratings]))
    distill = [answer(teacher, arguments.data / path) for path in ratings]
    rated = np.array([np.mean(scores) for scores in ratings.values()])
    kept = np.array([row.mos is not None for row in rows])
    ours = np.array([np.nan if row.mos is None else row.mos for row in rows])
    inside = [
        row.mos_low <= rating <= row.mos_high
        for row, rating in zip(rows, rated, strict=True)
        if row.mos_low is not None and row.mos_high is not None
    ]
    names = tuple(name for name, keep in zip(systems.values(), kept, strict=True) if keep)
    lines = [
        "# Zero-shot on yourtts-pt",
        f"{kept.sum()} of {len(kept)} clips scored, {len(set(names))} systems; 95 % intervals from "
        "1,000 bootstrap draws of whole systems. `python bench/zero_shot.py`",
        describe_machine(),
        "| predictor | level | LCC | SRCC | MSE |\n|---|---|---|---|---|",
    ]
    for name, scores in ((scorer.model_id, ours), ("Distill-MOS", np.array(distill))):
        result = evaluate_pairs(Pairs(scores[kept], rated[kept], names, int(kept.sum())))
        for level in ("utterance", "system"):
            values, intervals = getattr(result, level), getattr(result, f"{level}_intervals")
            cells = " | ".join(
                f"{getattr(values, metric):.3f} ({getattr(intervals, metric)[0]:.3f} to "
                f"{getattr(intervals, metric)[1]:.3f})"
                for metric in ("lcc", "srcc", "mse")
            )
            lines[-1] += f"\n| {name} | {level} | {cells} |"
    lines.append(
        f"The 95 % intervals of `base` held the mean rating of {np.mean(inside):.1%} of "
        f"{len(inside)} clips."
    )
    table = "\n\n".join(lines) + "\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(table, encoding="utf-8")
    print(table)


def answer(teacher: Teacher, path: Path) -> float:
    """Return Distill-MOS's score of a file."""
    samples = torch.from_numpy(read_audio(path).at(16_000))[None]
    with torch.inference_mode():
        frames, _ = teacher.encoder(samples, torch.tensor([samples.shape[1]]))
        score: float = teacher.score(frames[0, -1])
    return score


if __name__ == "__main__":
    main()
