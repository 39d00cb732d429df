"""A listening test small enough to train on within a test: babble, noisier by system."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from voxpanel.config import Config, build_config

NOISE = {"clear": 0.001, "grainy": 0.02, "rough": 0.1}  # by system; the babble peaks at 0.4
MOS = {"clear": 4.5, "grainy": 3.2, "rough": 1.8}
SENTENCES = ("one", "two", "three", "four")
UNRATED = "robot"  # a system that nobody rated, with a synthesizer's name
COLUMNS = ("path", "system", "synthesizer", "sentence", "listener", "test", "score", "split")

# Small, and each piece of the paper's network is in it.
SMALL: dict[str, Any] = {
    "backbone": {"name": "melbank"},
    "fusion": {"dim": 16},
    "mixture": {"n_experts": 3, "hidden": [16, 8], "gate_hidden": 8},
    "optimizer": {"batch_size": 4},
    "validation": {"folds": 2},
}
STAGES = (
    {"name": "classes", "clips": "named", "mos": [0, 0], "synthesizer": [1, 1]},
    {"name": "joint", "clips": "all", "mos": [0.3, 0.7], "synthesizer": [0.7, 0.3]},
    {"name": "ratings", "clips": "rated", "mos": [0.9, 0.9], "synthesizer": [0.1, 0.1]},
)
# wav2vec 2.0 in miniature: 400 samples a frame as in the real one, so that clips fit.
TINY_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


class Notes:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int]] = []
        self.said: list[str] = []
        self.notes: list[str] = []

    def begin(self, task: str, total: int) -> None:
        self.tasks.append((task, total))

    def advance(self, note: str = "") -> None:
        self.notes.append(note)

    def say(self, text: str) -> None:
        self.said.append(text)


def small_config(*stages: str, epochs: int = 2, rate: float = 1e-3, **changes: Any) -> Config:
    """Return a configuration of the named stages (all three if none), with changed groups."""
    chosen = [
        {"epochs": epochs, "learning_rate": rate, **stage}
        for stage in STAGES
        if not stages or stage["name"] in stages
    ]
    groups = dict(SMALL)
    for name, change in changes.items():
        both = isinstance(change, dict) and isinstance(groups.get(name), dict)
        groups[name] = {**groups[name], **change} if both else change
    return build_config({"name": "small", "stages": chosen, **groups}, "corpus.py")


def write_corpus(
    folder: Path, *, sentences: Sequence[str] = SENTENCES, unrated: bool = True
) -> Path:
    """Write clips and their manifest: two listeners rate three systems, `UNRATED` nobody."""
    rng = np.random.default_rng(0)
    rows = []
    for system in [*NOISE, *([UNRATED] if unrated else [])]:
        for place, sentence in enumerate(sentences):
            path = folder / f"{system}_{sentence}.wav"
            sound = hostile.voice(seconds=0.8 + 0.1 * place, seed=place)
            sound += np.float32(NOISE.get(system, 0.005)) * rng.standard_normal(len(sound))
            path.write_bytes(hostile.wav_bytes(np.asarray(sound, np.float32)))
            facts = {"path": path.name, "system": system, "sentence": sentence}
            if system == UNRATED:
                rows.append({**facts, "synthesizer": system})
                continue
            for listener, bias in (("ann", 0.2), ("bob", -0.2)):
                score = round(min(5.0, MOS[system] + bias + 0.1 * rng.standard_normal()), 2)
                rated = {"listener": listener, "test": "quiet", "score": score}
                rows.append({**facts, "synthesizer": system, **rated})
    return write_manifest(folder / "ratings.csv", rows)


def write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as a manifest."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a manifest, to write them changed."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_encoder(folder: Path, **options: Any) -> Path:
    """Save a random wav2vec 2.0 as `save_pretrained` does."""
    torch.manual_seed(0)
    settings = {**TINY_ENCODER, **options}
    AutoModel.from_config(AutoConfig.for_model("wav2vec2", **settings)).save_pretrained(folder)
    return folder
