"""Out of fold on yourtts-pt: what the recipes are worth on human ratings of known systems.

    python bench/yourtts.py DATA/rated/yourtts-pt

On the very same folds: the recipe `frozen`, its mixture alone, one expert in place of the
mixture, `ssl-mos` (mean of the encoder's last layer, one linear layer), and a ridge
on mean and deviation of the encoder's third transformer layer. Folds are grouped by sentence,
by speaker (5 each) and by system (each unseen in turn), several draws of each. A clip's
score always comes from models that saw neither it nor its group. Written as it goes:
a second call continues.
"""

import argparse
import csv
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from numpy.typing import NDArray

from voxpanel.config import Config, read_config
from voxpanel.data.manifest import clips, read_manifest
from voxpanel.data.splits import folds
from voxpanel.evaluate.levels import evaluate_levels, mean_pairs
from voxpanel.evaluate.metrics import lcc
from voxpanel.features.extract import concatenate
from voxpanel.features.load import load_backbone
from voxpanel.features.store import FeatureStore, default_store
from voxpanel.model.checkpoint import load_model
from voxpanel.model.network import Panel
from voxpanel.records import Clip
from voxpanel.train.run import train

FROZEN = ("backbone.name=distilled", "backbone.source=null", "backbone.fine_tune=false")
ALONE = "frozen, mixture alone"  # the training of `frozen`, its answers without the blend
PREDICTORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "frozen": ("frozen", ()),
    "ssl-mos": ("ssl-mos", (*FROZEN, "stages.0.learning_rate=1.0e-3")),
    "frozen, one expert alone": (
        "frozen",
        ("blend.ridge=0", "blend.prior=0", "mixture.n_experts=1"),
    ),
}
SHOWN = ("ridge", "ssl-mos", "frozen, one expert alone", ALONE, "frozen")
DIFFERENCES = (
    ("frozen", "ridge"),
    ("frozen", "ssl-mos"),
    ("frozen", ALONE),
    (ALONE, "frozen, one expert alone"),
)
MOST_DRAWS = 20
SCHEMES = {"sentence": 5, "speaker": 5, "system": 11}
RIDGE_LAYER, RIDGE_PENALTY = 3, 300.0  # the layer that README's ridge reads; 0 is the projection
N_BOOTSTRAP = 1000

Draws = dict[tuple[str, str], list[NDArray[np.float64]]]  # by scheme and predictor


class Silent:
    """Watches a training and says nothing."""

    def begin(self, task: str, total: int) -> None:
        """Ignore."""

    def advance(self, note: str = "") -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder rated/yourtts-pt")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("build/bench-yourtts"))
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "yourtts.md"
    )
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    write_manifest(arguments.data.resolve(), work / "all.csv")
    warm_cache(work / "all.csv")
    jobs = [
        (work, predictor, scheme, draw, fold)
        for predictor in ("ridge", *PREDICTORS)
        for scheme, n_folds in SCHEMES.items()
        for draw in range(arguments.draws)
        for fold in range(n_folds)
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, name in enumerate(pool.imap_unordered(run_fold, jobs)):
            print(f"{done + 1}/{len(jobs)} {name}", flush=True)
    table = report(work)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(table, encoding="utf-8")
    print(table)


def write_manifest(data: Path, path: Path) -> None:
    """Turn the corpus's ratings into a manifest; natural speech is a class of its own."""
    with (data / "ratings.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "system", "listener", "score", "sentence", "synthesizer"])
        for row in rows:
            natural = row["system"].startswith("GT")
            writer.writerow(
                [
                    str(data / row["path"]),
                    row["system"],
                    row["listener"],
                    row["score"],
                    Path(row["path"]).stem,
                    "natural" if natural else row["system"],
                ]
            )


def warm_cache(manifest: Path) -> None:
    """Compute every clip's features once, so that workers find them."""
    store = FeatureStore(load_backbone(read_config("frozen").backbone), default_store())
    for clip in clips(read_manifest(manifest).ratings):
        store.one(clip.path)


def outer_folds(listened: Sequence[Clip], scheme: str, draw: int) -> NDArray[np.int64]:
    """Return the fold of each clip; a system's folds are the systems, in any draw."""
    sentences = [str(clip.sentence) for clip in listened]
    keys = {
        "sentence": sentences,
        "speaker": [sentence.partition("_")[0] for sentence in sentences],
        "system": [str(clip.system) for clip in listened],
    }
    return folds(keys[scheme], SCHEMES[scheme], draw)


def run_fold(job: tuple[Path, str, str, int, int]) -> str:
    """Train without one fold, score it, and write the scores down."""
    work, predictor, scheme, draw, fold = job
    name = f"{predictor} {scheme} {draw} {fold}"
    path = work / f"{name}.json"
    if path.exists():
        return name
    torch.set_num_threads(1)
    manifest = read_manifest(work / "all.csv")
    listened = clips(manifest.ratings)
    numbers = outer_folds(listened, scheme, draw)
    held = np.flatnonzero(numbers == fold)
    store = FeatureStore(load_backbone(read_config("frozen").backbone), default_store())
    if predictor == "ridge":
        answers = {predictor: ridge_scores(store, listened, numbers != fold)}
    else:
        recipe, overrides = PREDICTORS[predictor]
        config = read_config(recipe, [*overrides, f"seed={draw}"])
        kept = {listened[row].path for row in np.flatnonzero(numbers != fold)}
        answers = trained_scores(
            work, predictor, config, kept, store, [listened[row].path for row in held]
        )
    for answer, scores in answers.items():
        draft = work / f"{answer} {scheme} {draw} {fold}.draft"
        draft.write_text(json.dumps({"rows": held.tolist(), "scores": scores}))
        draft.rename(draft.with_suffix(".json"))
    return name


def trained_scores(
    work: Path,
    predictor: str,
    config: Config,
    kept: set[Path],
    store: FeatureStore,
    paths: Sequence[Path],
) -> dict[str, list[float]]:
    """Train on the rows of some clips and score others; `frozen` also without its blend."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        manifest = Path(folder) / "train.csv"
        with (work / "all.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        with manifest.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([rows[0], *(row for row in rows[1:] if Path(row[0]) in kept)])
        network = load_model(train([manifest], Path(folder) / "model", config, Silent())).network
    features = concatenate([store.one(path) for path in paths])
    tests = torch.zeros(len(paths), dtype=torch.long)
    with torch.inference_mode():
        answers = {predictor: network(features, tests).mos.tolist()}
        if predictor == "frozen":
            for panel in network.panels:
                assert isinstance(panel, Panel)
                panel.blend = None
            answers[ALONE] = network(features, tests).mos.tolist()
    return answers


def ridge_scores(
    store: FeatureStore, listened: Sequence[Clip], kept: NDArray[np.bool_]
) -> list[float]:
    """Fit a ridge on pooled features of one layer, standardised, and score the rest."""
    features = concatenate([store.one(clip.path) for clip in listened]).moments
    n_layers = features.mean.shape[1]
    place = sum(n_layers - layer for layer in range(RIDGE_LAYER))  # of the layer with itself
    deviation = features.covariance[:, place].clamp_min(1e-8).sqrt()
    x = torch.cat([features.mean[:, RIDGE_LAYER], deviation], dim=1).double().numpy()
    y = np.array([clip.score for clip in listened], dtype=np.float64)
    x = (x - x[kept].mean(0)) / (x[kept].std(0) + 1e-6)
    penalty = RIDGE_PENALTY * np.eye(int(kept.sum()))
    weights = np.linalg.solve(x[kept] @ x[kept].T + penalty, y[kept] - y[kept].mean())
    scores = x[~kept] @ (x[kept].T @ weights) + y[kept].mean()
    return [float(score) for score in scores]


def gather_draws(work: Path, predictor: str, scheme: str, n: int) -> list[NDArray[np.float64]]:
    """Put each draw's folds together, `[n]` scores a draw; a draw that lacks a fold is left out."""
    draws = []
    for draw in range(MOST_DRAWS):
        parts = [
            work / f"{predictor} {scheme} {draw} {fold}.json" for fold in range(SCHEMES[scheme])
        ]
        if all(part.exists() for part in parts):
            scores = np.full(n, np.nan)
            for part in parts:
                content = json.loads(part.read_text())
                scores[content["rows"]] = content["scores"]
            draws.append(scores)
    return draws


def report(work: Path) -> str:
    """Return the tables: means over draws with their spread, and paired differences."""
    listened = clips(read_manifest(work / "all.csv").ratings)
    rated = np.array([clip.score for clip in listened], dtype=np.float64)
    systems = [str(clip.system) for clip in listened]
    every = {
        (scheme, name): gather_draws(work, name, scheme, len(rated))
        for scheme in SCHEMES
        for name in SHOWN
    }
    parts = [
        "# Out of fold on yourtts-pt",
        f"{len(listened)} clips, {len(set(systems))} systems; mean over draws of folds, ± standard "
        "deviation over draws. `python bench/yourtts.py`",
        describe_machine(),
        accuracy_table(every, rated, systems),
        "Paired differences on the same folds, mean over draws, with a 95 % interval from "
        f"{N_BOOTSTRAP} bootstrap draws of whole systems:",
        difference_table(every, rated, systems),
    ]
    return "\n\n".join(parts) + "\n"


def accuracy_table(every: Draws, rated: NDArray[np.float64], systems: Sequence[str]) -> str:
    """Return every predictor's metrics by scheme."""
    lines = [
        "| folds by | predictor | draws | utterance LCC | SRCC | MSE | system LCC | SRCC | MSE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (scheme, name), draws in every.items():
        if draws:
            values = np.array([both_levels(scores, rated, systems) for scores in draws])
            spread = values.std(axis=0, ddof=min(1, len(draws) - 1))
            numbers = zip(values.mean(axis=0), spread, strict=True)
            cells = " | ".join(f"{mean:.3f} ±{deviation:.3f}" for mean, deviation in numbers)
            lines.append(f"| {scheme} | {name} | {len(draws)} | {cells} |")
    return "\n".join(lines)


def both_levels(
    scores: NDArray[np.float64], rated: NDArray[np.float64], systems: Sequence[str]
) -> list[float]:
    """Return LCC, SRCC and MSE over utterances, then over systems."""
    result = evaluate_levels(scores, rated, systems)
    assert result.system is not None
    return [
        getattr(level, metric)
        for level in (result.utterance, result.system)
        for metric in ("lcc", "srcc", "mse")
    ]


def difference_table(every: Draws, rated: NDArray[np.float64], systems: Sequence[str]) -> str:
    """Return how far apart predictors are, over the draws that both have."""
    lines = [
        "| folds by | difference | draws | utterance LCC | system LCC |",
        "|---|---|---|---|---|",
    ]
    for scheme in SCHEMES:
        for one, other in DIFFERENCES:
            common = list(zip(every[scheme, one], every[scheme, other], strict=False))
            if common:
                ours, theirs = zip(*common, strict=True)
                cells = " | ".join(
                    f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
                    for value, low, high in paired(ours, theirs, rated, systems)
                )
                lines.append(f"| {scheme} | {one} - {other} | {len(common)} | {cells} |")
    return "\n".join(lines)


def paired(
    ours: Sequence[NDArray[np.float64]],
    theirs: Sequence[NDArray[np.float64]],
    rated: NDArray[np.float64],
    systems: Sequence[str],
) -> list[tuple[float, float, float]]:
    """Return the difference in LCC at both levels: value, low, high."""
    names = sorted(set(systems))
    members = [np.flatnonzero(np.array(systems) == name) for name in names]
    generator = np.random.default_rng(0)
    all_differences = []
    for drawn in [
        list(range(len(names))),
        *generator.integers(len(names), size=(N_BOOTSTRAP, len(names))),
    ]:
        rows = np.concatenate([members[place] for place in drawn])
        labels = [str(copy) for copy, place in enumerate(drawn) for _ in members[place]]
        both = [
            np.mean([lccs(scores[rows], rated[rows], labels) for scores in side], axis=0)
            for side in (ours, theirs)
        ]
        all_differences.append(both[0] - both[1])
    differences = np.array(all_differences)
    low, high = np.nanpercentile(differences[1:], [2.5, 97.5], axis=0)
    return [(float(differences[0, k]), float(low[k]), float(high[k])) for k in range(2)]


def lccs(
    scores: NDArray[np.float64], rated: NDArray[np.float64], labels: Sequence[str]
) -> tuple[float, float]:
    """Return the LCC over utterances and over systems."""
    return lcc(scores, rated), lcc(*mean_pairs(scores.tolist(), rated.tolist(), labels))


if __name__ == "__main__":
    main()
