"""What every test may ask for: the clips in `examples/` and speech of any length."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent


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
