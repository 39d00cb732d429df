"""A backbone without weights: the log-mel spectrum, level removed.

A baseline that any trained encoder has to beat, and a fast stand-in for one in
tests. Axes: B clips, T samples, K frequency bins, M mel bands, F frames.

Windows of 25 ms every 10 ms lie wholly inside the clip, so its last 10 ms may
go unheard and no frame sees padding. Levels are relative to the clip's mean.
"""

import math

import torch
from torch import Tensor

from voxpanel.errors import ConfigError
from voxpanel.features.backbone import Backbone, LayerFrames, frame_mask

RATE_HZ = 16_000
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
MOST_MELS = 128  # each still holds a bin of 40 Hz
FLOOR = 1e-8  # power relative to the clip's mean band: 80 dB below it
TINY = 1e-30  # divides silence, whose mean power is zero

# Slaney's mel scale: linear up to 1 kHz, then 27 mel for every factor of 6.4.
LINEAR_HZ_PER_MEL = 200 / 3
BREAK_HZ = 1000.0
BREAK_MEL = BREAK_HZ / LINEAR_HZ_PER_MEL
MEL_PER_NEPER = 27 / math.log(6.4)


class Melbank(Backbone):
    """Log-mel bands of a clip; one layer, `dim` is the number of bands."""

    name = "melbank"
    n_layers = 1
    min_samples = WINDOW
    trained = False
    filters: Tensor  # buffers
    window: Tensor

    def __init__(self, n_mels: int = 80) -> None:
        """Build the filters.

        Raises:
            ConfigError: no bands, or so many that they are narrower than a bin.
        """
        super().__init__()
        if not 1 <= n_mels <= MOST_MELS:
            raise ConfigError(f"melbank: n_mels is {n_mels}; give 1 to {MOST_MELS}")
        self.dim = n_mels
        self.register_buffer("filters", mel_filters(n_mels), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, samples: Tensor, n_samples: Tensor) -> LayerFrames:
        """Encode `[B, T]` samples at 16 kHz; see `Backbone.forward`."""
        n_frames = (n_samples - WINDOW) // HOP + 1
        spectrum = torch.stft(
            samples, WINDOW, HOP, WINDOW, self.window, center=False, return_complex=True
        )
        bands = spectrum.abs().square().transpose(1, 2) @ self.filters  # [B, F, M]
        own = frame_mask(n_frames, bands.shape[1])[:, :, None]
        mean = (bands * own).sum(dim=(1, 2), keepdim=True) / (n_frames[:, None, None] * self.dim)
        frames = torch.log(bands / mean.clamp_min(TINY) + FLOOR) * own
        return LayerFrames(frames[:, None], n_frames)


def hz_to_mel(hz: float) -> float:
    """Convert a frequency to Slaney's mel.

    Source: M. Slaney, "Auditory Toolbox", Interval Research report 1998-010.

    >>> hz_to_mel(200.0), round(hz_to_mel(6400.0), 6)
    (3.0, 42.0)
    """
    if hz < BREAK_HZ:
        return hz / LINEAR_HZ_PER_MEL
    return BREAK_MEL + MEL_PER_NEPER * math.log(hz / BREAK_HZ)


def mel_to_hz(mel: float) -> float:
    """Invert `hz_to_mel`.

    >>> mel_to_hz(3.0), round(mel_to_hz(42.0), 6)
    (200.0, 6400.0)
    """
    if mel < BREAK_MEL:
        return mel * LINEAR_HZ_PER_MEL
    return BREAK_HZ * math.exp((mel - BREAK_MEL) / MEL_PER_NEPER)


def mel_filters(n_mels: int) -> Tensor:
    """Return triangles `[K, M]` between 0 Hz and 8 kHz, each reaching to its neighbours' peaks.

    Every triangle has the area of one hertz, so wide bands do not weigh more.
    """
    step = hz_to_mel(RATE_HZ / 2) / (n_mels + 1)
    corners = torch.tensor([mel_to_hz(step * i) for i in range(n_mels + 2)], dtype=torch.float64)
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    bins = torch.linspace(0, RATE_HZ / 2, WINDOW // 2 + 1, dtype=torch.float64)[:, None]
    rise = (bins - low) / (peak - low)
    fall = (high - bins) / (high - peak)
    triangles = torch.minimum(rise, fall).clamp_min(0) * 2 / (high - low)
    return triangles.float()
