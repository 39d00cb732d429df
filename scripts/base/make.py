"""Make the shipped model `base`, from data to model folder, in one command.

    python scripts/base/make.py DATA --work build/base

DATA is a folder with `synthesizers/`, `noise/` and `rated/stahl-codec/`; what each is,
with its licence, stands in the model card that this writes. Everything made on the way
lies in the work folder; a second call continues where the first one stopped.
"""

import argparse
import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from card import LIMITS, PREFACE, TRAINING
from clips import Made, make_clips, make_noise_clips, noise_clips, synthesizer_clips
from teacher import Teacher

from voxpanel.config import Config, read_config
from voxpanel.data.manifest import clips, read_manifest
from voxpanel.errors import AudioError
from voxpanel.evaluate import evaluate_pairs
from voxpanel.evaluate.pairing import Pairs
from voxpanel.features.extract import Features, read_clip
from voxpanel.features.moments import moments
from voxpanel.features.store import FeatureStore, write_features
from voxpanel.model.calibration import calibrate
from voxpanel.model.card import write_card
from voxpanel.model.checkpoint import load_model, save_model, shipped_folder
from voxpanel.records import Clip
from voxpanel.score import Scorer
from voxpanel.train.run import train

SEED = 0
COLUMNS = ("path", "system", "score", "listener", "test", "scale", "synthesizer", "sentence")
HUMAN = "stahl-codec"
N_PARTS = 4  # of the codec test's systems, each unseen in turn
BASIS = f"{HUMAN}, two systems at a time unseen"


class Console:
    """Says what goes on, a line a task."""

    def begin(self, task: str, total: int) -> None:
        """Name a task."""
        print(f"{task} ({total})", flush=True)

    def advance(self, note: str = "") -> None:
        """Say how an epoch went."""
        if note:
            print(f"  {note}", flush=True)

    def say(self, text: str) -> None:
        """Pass a message on."""
        print(f"  {text}", flush=True)


def main() -> None:
    """Make the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the corpora")
    parser.add_argument("--work", type=Path, default=Path("build/base"), help="folder to work in")
    parser.add_argument("--out", type=Path, default=shipped_folder(), help="the model folder")
    arguments = parser.parse_args()
    work, data = arguments.work, arguments.data.resolve()
    work.mkdir(parents=True, exist_ok=True)
    teacher = Teacher()
    encoder = work / "encoder.safetensors"
    teacher.save_encoder(encoder)
    made = list_clips(data, work / "clips")
    rows = [*teacher_rows(made, teacher, work), *human_rows(data)]
    config = read_config(Path(__file__).parent / "base.yaml", [f"backbone.source={encoder}"])
    write_manifest(work / "base.csv", rows)
    run(work / "base.csv", work / "base", config, work)
    finish(work, rows, config, arguments.out)


def list_clips(data: Path, folder: Path) -> list[Made]:
    """Write the clips and their copies, and list them."""
    noises = noise_clips(data / "noise")
    sources = synthesizer_clips(data / "synthesizers")
    print(f"clips: {len(sources)} as they came, {len(noises)} of noise", flush=True)
    made = make_clips(sources, noises, folder, SEED)
    return [*made, *make_noise_clips(noises, folder, SEED)]


def teacher_rows(made: Iterable[Made], teacher: Teacher, work: Path) -> list[dict[str, str]]:
    """Return a row a clip: the teacher's answer as the one listener of the test `teacher`."""
    answers = work / "answers.json"
    known: dict[str, float | None] = json.loads(answers.read_text()) if answers.exists() else {}
    store = FeatureStore(teacher.encoder, work / "features")
    rows = []
    for number, clip in enumerate(made):
        name = clip.path.name
        if name not in known:
            known[name] = answer(clip.path, teacher, store)
            if number % 100 == 99:
                answers.write_text(json.dumps(known))
                print(f"  answers: {number + 1}", flush=True)
        row = {
            "path": str(clip.path.resolve()),
            "system": "degraded" if clip.kind == "degraded" else clip.synthesizer,
            "synthesizer": clip.synthesizer,
            "sentence": clip.sentence,
        }
        score = known[name]
        if score is not None and clip.kind != "noise":
            row |= {"score": f"{score:.4f}", "listener": "Distill-MOS", "test": "teacher"}
        rows.append(row)
    answers.write_text(json.dumps(known))
    return rows


def answer(path: Path, teacher: Teacher, store: FeatureStore) -> float | None:
    """Return the teacher's score, and keep the clip's features from the same pass.

    None if there is nothing in the clip to score.
    """
    try:
        clip = read_clip(path, teacher.encoder)
    except AudioError:
        return None
    with torch.inference_mode():
        samples = torch.from_numpy(clip.samples)[None]
        encoded = teacher.encoder(samples, torch.tensor([samples.shape[1]]))
        bands = torch.from_numpy(clip.fullband)[None]
        write_features(store.place(path), Features(moments(encoded), bands))
        return teacher.score(encoded.frames[0, -1])


def human_rows(data: Path) -> list[dict[str, str]]:
    """Return a row a rating of the codec test, MUSHRA 0-100."""
    folder = data / "rated" / HUMAN
    with (folder / "ratings.csv").open(encoding="utf-8") as file:
        return [
            {
                "path": str(folder / row["path"]),
                "system": row["system"],
                "score": row["score"],
                "listener": row["listener"],
                "test": HUMAN,
                "scale": "0-100",
                "synthesizer": "natural" if row["system"].lower().startswith("ref") else "",
                "sentence": Path(row["path"]).parent.name,
            }
            for row in csv.DictReader(file)
            if not row["listener"].endswith("_postscreened")  # they failed the test's screening
        ]


def write_manifest(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write a manifest."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def run(manifest: Path, out: Path, config: Config, work: Path) -> None:
    """Train, unless the model is there; continue a run that was stopped."""
    if not (out / "config.json").exists():
        resume = (out / "run").exists()
        train([manifest], out, config, Console(), resume=resume, cache=work / "features")


def unseen_systems(
    work: Path, rows: list[dict[str, str]], config: Config
) -> tuple[list[Clip], list[float]]:
    """Score the codec test's clips, each by a model that never heard its system."""
    scored: list[Clip] = []
    scores: list[float] = []
    systems = sorted({row["system"] for row in rows if row.get("test") == HUMAN})
    for place in range(N_PARTS):
        unseen_now = systems[place::N_PARTS]
        is_held = [row.get("test") == HUMAN and row["system"] in unseen_now for row in rows]
        manifest, held = work / f"without-{place}.csv", work / f"only-{place}.csv"
        write_manifest(manifest, [row for row, out in zip(rows, is_held, strict=True) if not out])
        write_manifest(held, [row for row, out in zip(rows, is_held, strict=True) if out])
        fewer = config.model_copy(
            update={"validation": config.validation.model_copy(update={"members": 1})}
        )
        run(manifest, work / f"without-{place}", fewer, work)
        unseen = clips(read_manifest(held).ratings)
        scorer = Scorer.load(work / f"without-{place}")
        answered = scorer.score_many([clip.path for clip in unseen])
        for clip, score in zip(unseen, answered, strict=True):
            if score.mos is not None:
                scored.append(clip)
                scores.append(score.mos)
    return scored, scores


def finish(work: Path, rows: list[dict[str, str]], config: Config, out: Path) -> None:
    """Calibrate on systems that were held out, write the card, and save in half precision."""
    loaded = load_model(work / "base")
    unseen, scores = unseen_systems(work, rows, config)
    predicted, rated = np.array(scores), np.array([clip.score for clip in unseen], dtype=np.float64)
    systems = tuple(str(clip.system) for clip in unseen)
    measured = evaluate_pairs(Pairs(predicted, rated, systems, len(unseen))).as_dict()
    held_out = loaded.record.measured
    source = loaded.record.config.backbone.model_copy(update={"source": None})
    record = type(loaded.record)(
        name="base",
        version=loaded.record.version,
        config=loaded.record.config.model_copy(update={"backbone": source}),
        synthesizers=loaded.record.synthesizers,
        tests=loaded.record.tests,
        calibration=calibrate(predicted, rated, systems, BASIS),
        training={**TRAINING, **loaded.record.training},
        measured={
            BASIS: measured,
            "agreement with the teacher more than with people, held out by sentence": held_out[
                f"held out by {config.validation.by}"
            ],
            **{name: held_out[name] for name in ("synthesizers told", "experts")},
        },
    )
    card = write_card(record, PREFACE, LIMITS)
    save_model(out, loaded.network, record, card, dtype=torch.float16)
    shutil.copy(Path(__file__).parent / "LICENSE-Distill-MOS", out / "LICENSE-Distill-MOS")
    print(card)


if __name__ == "__main__":
    main()
