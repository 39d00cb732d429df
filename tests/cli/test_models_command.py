"""`voxpanel models`: what is known of each model is shown with its counts."""

import json

import pytest

from voxpanel.config import read_config
from voxpanel.model import checkpoint
from voxpanel.model.calibration import Calibration
from voxpanel.model.checkpoint import ModelRecord

CELL = {"value": 0.5, "low": 0.25, "high": 0.75}
UNDEFINED = {"value": None, "low": None, "high": None}
LEVEL = {"n": 40, "mse": CELL, "lcc": CELL, "srcc": CELL, "ktau": UNDEFINED}


@pytest.fixture
def known(monkeypatch):
    """Let the package know one model."""
    record = ModelRecord(
        name="base",
        version="0.1.0",
        config=read_config("frozen"),
        synthesizers=("flite", "festival"),
        tests=(),
        calibration=Calibration(0.75, 40, 0.9512, "held out by sentence"),
        training={"data": "our own ratings", "licence": "CC0-1.0", "n_clips": 40},
        measured={
            "held out by sentence": {"utterance": LEVEL, "system": None},
            "experts": [{"usage": [0.25, 0.75], "dead": []}, {"usage": [0.5, 0.5]}],
            "seeds": None,
        },
    )
    monkeypatch.setattr(checkpoint, "known_models", lambda: [record])
    return record


@pytest.mark.usefixtures("known")
def test_a_model_is_described_for_reading(voxpanel):
    assert voxpanel("models").out.splitlines() == [
        "base 0.1.0",
        "  trained on:",
        "    data: our own ratings",
        "    licence: CC0-1.0",
        "    n clips: 40",
        "  synthesizers: flite, festival",
        "  interval: score ± 0.75, from 40 clips; held 95.1% of ratings it was not set on",
        "  measured, held out by sentence:",
        "    level      n   MSE                     LCC                     "
        "SRCC                    KTAU",
        "    utterance  40  0.500 (0.250 to 0.750)  0.500 (0.250 to 0.750)  "
        "0.500 (0.250 to 0.750)  undefined",
        "  experts 1:",
        "    usage: 0.25, 0.75",
        "  experts 2:",
        "    usage: 0.5, 0.5",
    ]


@pytest.mark.usefixtures("known")
def test_json_has_the_same(voxpanel):
    (model,) = json.loads(voxpanel("models", "--json").out)
    assert (model["name"], model["version"]) == ("base", "0.1.0")
    assert model["trained_on"]["licence"] == "CC0-1.0"
    assert model["measured"]["held out by sentence"]["utterance"] == LEVEL
    assert model["interval"] == {"half_width": 0.75, "n": 40, "coverage": 0.9512}
