"""From audio to what a head reads: moments of the encoder's frames, and the full band.

Training (through the cache in `store.py`) and scoring both come through here, so
that they cannot hear a file differently.

Axes: B clips, L layers, P pairs of layers, D features, K full-band numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxpanel.audio import Audio, read_audio
from voxpanel.errors import AudioError
from voxpanel.features.backbone import Backbone
from voxpanel.features.fullband import fullband
from voxpanel.features.moments import Moments, moments
from voxpanel.measure import Measurements, measure, refusal


class Features(NamedTuple):
    """What a head reads of B clips.

    moments: of the encoder's frames.
    fullband: `[B, K]`, see `fullband.py`.
    """

    moments: Moments
    fullband: Tensor

    def select(self, rows: Tensor) -> "Features":
        """Return the features of some clips, by their places."""
        return Features(Moments(*(part[rows] for part in self.moments)), self.fullband[rows])

    def to(self, device: torch.device) -> "Features":
        """Return the features on a device."""
        moved = Moments(*(part.to(device) for part in self.moments))
        return Features(moved, self.fullband.to(device))


@dataclass(frozen=True, eq=False)
class ClipInput:
    """One clip, decoded and measured, ready for the encoder.

    samples: `[T]` float32 at the encoder's rate.
    fullband: `[K]`.
    """

    samples: NDArray[np.float32]
    fullband: NDArray[np.float32]
    measurements: Measurements


def prepare(audio: Audio, rate_hz: int, min_samples: int) -> ClipInput:
    """Measure a clip and bring it to the encoder's rate.

    Args:
        audio: at its own rate.
        rate_hz, min_samples: of the encoder; a clip shorter than this gets silence after it.
    """
    measurements = measure(audio)
    samples = audio.at(rate_hz)
    samples = np.pad(samples, (0, max(0, min_samples - len(samples))))
    return ClipInput(samples, fullband(audio, measurements.bandwidth_hz), measurements)


def read_clip(path: Path, backbone: Backbone) -> ClipInput:
    """Decode, measure and prepare a file to train on.

    Raises:
        AudioError: it cannot be decoded, or there is nothing in it to rate.
    """
    clip = prepare(read_audio(path), backbone.rate_hz, backbone.min_samples)
    reason = refusal(clip.measurements)
    if reason:
        raise AudioError(f"{path}: {reason}")
    return clip


def encode(backbone: Backbone, clips: Sequence[ClipInput]) -> Features:
    """Encode a batch of clips of any lengths; what gradients flow is the caller's choice."""
    # A backbone without weights has buffers.
    device = next(chain(backbone.parameters(), backbone.buffers())).device
    n_samples = torch.tensor([len(clip.samples) for clip in clips])
    samples = torch.zeros(len(clips), int(n_samples.max()))
    for row, clip in enumerate(clips):
        samples[row, : len(clip.samples)] = torch.from_numpy(clip.samples)
    pooled = moments(backbone(samples.to(device), n_samples.to(device)))
    bands = torch.from_numpy(np.stack([clip.fullband for clip in clips]))
    return Features(pooled, bands.to(device))


def concatenate(parts: Sequence[Features]) -> Features:
    """Put the features of several batches together."""
    pooled = [torch.cat(tensors) for tensors in zip(*(part.moments for part in parts), strict=True)]
    return Features(Moments(*pooled), torch.cat([part.fullband for part in parts]))
