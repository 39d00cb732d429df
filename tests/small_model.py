"""A model folder as training leaves one, with random weights that hear differences.

The encoder is the shipped one's network, or mel filters where speed matters more. The
standardisers are fitted to made-up voices and the heads are stretched, so that scores
of different clips lie tenths of a MOS apart: where two are said to be equal, it means
something.
"""

from pathlib import Path

import numpy as np
import torch
from hostile import RATE_HZ, voice

from voxpanel.audio import from_array
from voxpanel.config import BlendSettings, Config, read_config
from voxpanel.features.backbone import Backbone
from voxpanel.features.distilled import DistilledEncoder
from voxpanel.features.extract import encode, prepare
from voxpanel.features.melbank import Melbank
from voxpanel.model.calibration import Calibration
from voxpanel.model.card import write_card
from voxpanel.model.checkpoint import ModelRecord, save_model
from voxpanel.model.network import MosModel, Panel

SYNTHESIZERS = ("natural", "robot", "non-speech")
TESTS = ("studio", "crowd")
N_MEMBERS = 2


def small_config(**changes) -> Config:
    """Return the recipe `frozen` with other settings on top."""
    alone = {"blend": BlendSettings(), **changes}
    return read_config("frozen").model_copy(update=alone)


def small_record(**changes) -> ModelRecord:
    """Return what a model is besides its weights."""
    entries = {
        "name": "small",
        "version": "0.1",
        "config": small_config(),
        "synthesizers": SYNTHESIZERS,
        "tests": TESTS,
        "calibration": Calibration(0.5, 100, 0.94, "made up"),
        "training": {"ratings": "none"},
        "measured": {},
    }
    return ModelRecord(**{**entries, **changes})


def small_network(backbone: Backbone, seed: int = 0, **changes) -> MosModel:
    """Return an encoder with two panels."""
    torch.manual_seed(seed)
    config = small_config(**changes)
    panels = [Panel(config, backbone, len(SYNTHESIZERS), len(TESTS)) for _ in range(N_MEMBERS)]
    network = MosModel(backbone, panels).eval()
    with torch.no_grad():
        features = encode(backbone, [prepare(from_array(*clip), RATE_HZ, 400) for clip in sounds()])
        for panel in panels:
            panel.fusion.fit(features)
            torch.nn.init.normal_(panel.fusion.test.weight[1:])
            unknown = torch.zeros(len(features.fullband), dtype=torch.int64)
            panel.mos_head.weight *= 0.5 / panel(features, unknown).mos.std()
            panel.mos_head.bias -= panel(features, unknown).mos.mean() - 3
    return network


def sounds() -> list[tuple[np.ndarray, int]]:
    """Return voices with more and more noise, at three rates."""
    noise = np.random.default_rng(0).normal(0, 0.02, 2 * 48_000)
    return [
        (voice(1.0, rate_hz, seed) + place * noise[:rate_hz], rate_hz)
        for place, rate_hz in enumerate((16_000, 24_000, 48_000))
        for seed in range(4)
    ]


def save_small(
    folder: Path, encoder: str = "distilled", dtype: torch.dtype = torch.float32
) -> Path:
    """Write a model folder and return it."""
    torch.manual_seed(1)
    backbone = {"distilled": DistilledEncoder, "melbank": Melbank}[encoder]().eval()
    backbone.half().float()  # rounded as in the shipped model, before the heads are fitted
    record = small_record()
    save_model(folder, small_network(backbone), record, write_card(record), dtype)
    return folder
