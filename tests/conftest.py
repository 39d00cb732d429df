"""What every test may ask for: the clips in `examples/`, speech of any length, a small model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from small_model import save_small

from voxpanel.score import Scorer

ROOT = Path(__file__).parent.parent
# Collected for doctests, of which they have none, two of one name would be in each other's way.
collect_ignore_glob = ["*conftest.py"]


@pytest.fixture(scope="session")
def examples() -> Path:
    """Return the folder of the example clips and their `manifest.csv`."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def speech(examples: Path) -> Callable[..., NDArray[np.float32]]:
    """Return `speech(seconds)`: speech at 16 kHz; its sentence starts again where it ends."""
    clip, rate_hz = soundfile.read(examples / "flite_train_clean_16k.flac", dtype="float32")

    def cut(seconds: float = 3.0) -> NDArray[np.float32]:
        return np.resize(clip, round(seconds * rate_hz))

    return cut


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with the shipped one's encoder and random weights."""
    return save_small(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def scorer(small_model: Path) -> Scorer:
    """Return a scorer with that model."""
    return Scorer.load(small_model, device="cpu")


@pytest.fixture(scope="session")
def fast_scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """Return a scorer whose encoder is mel filters, for many clips in little time."""
    folder = tmp_path_factory.mktemp("models") / "fast"
    return Scorer.load(save_small(folder, encoder="melbank"), device="cpu")
