"""What goes wrong with speech on its way, each as a function of the samples.

All take mono float32 samples `[T]` and their rate and return as many, at the same
rate, altered; none changes its argument. What is random is drawn from the generator
that is handed in.
"""

import io
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

from voxpanel.audio import read_audio, resample
from voxpanel.errors import ConfigError

Samples = NDArray[np.float32]
# Name to (container, coding, the one rate it works at, or None for any).
CODECS: Mapping[str, tuple[str, str, int | None]] = MappingProxyType(
    {
        "vorbis": ("OGG", "VORBIS", None),
        "mu-law": ("WAV", "ULAW", 8_000),
        "gsm": ("WAV", "GSM610", 8_000),
    }
)
BLOCK = 8_192  # samples written at once; libsndfile's Ogg writer fails on long writes


def add_noise(samples: Samples, noise: Samples, snr_db: float, generator: Generator) -> Samples:
    """Add noise at a signal-to-noise ratio, both measured over the whole clip.

    Args:
        noise: at the same rate; a random stretch of it is used, repeated if too short.
        snr_db: power of the speech over that of the noise.
    """
    start = int(generator.integers(len(noise)))
    stretch = np.take(noise, np.arange(start, start + len(samples)), mode="wrap")
    power = float(np.mean(samples**2))
    noise_power = max(float(np.mean(stretch**2)), 1e-12)
    gain = np.sqrt(power / noise_power / 10 ** (snr_db / 10))
    return within_scale(samples + np.float32(gain) * stretch)


def limit_band(samples: Samples, rate_hz: int, bandwidth_hz: int) -> Samples:
    """Remove what lies above a frequency, as a passage through a lower rate does."""
    if 2 * bandwidth_hz >= rate_hz:
        return samples.copy()
    there_and_back = resample(
        resample(samples, rate_hz, 2 * bandwidth_hz), 2 * bandwidth_hz, rate_hz
    )
    return of_length(there_and_back, len(samples))


def clip_peaks(samples: Samples, share: float) -> Samples:
    """Cut off the largest samples, and bring what is left back to the old peak.

    Args:
        share: of the samples that end on the flat top, 0-1.
    """
    limit = float(np.quantile(np.abs(samples), 1 - share))
    peak = float(np.abs(samples).max())
    if limit <= 0:
        return samples.copy()
    return (np.clip(samples, -limit, limit) * np.float32(peak / limit)).astype(np.float32)


def drop_packets(samples: Samples, rate_hz: int, share: float, generator: Generator) -> Samples:
    """Lose packets of 20 ms, in runs of two or more on average; silence stands in for them.

    Args:
        share: of the packets lost, 0-1.
    """
    size = rate_hz // 50
    n_packets = -(-len(samples) // size)
    kept_for_each = max(1 - share, 1e-9) / max(share, 1e-9)
    end = min(0.5, kept_for_each)  # a run has two packets; more than 2 / 3 are lost in longer ones
    begin = end / kept_for_each
    draws = generator.random(n_packets)
    kept = np.ones(n_packets, dtype=np.float32)
    lost = False
    for packet in range(n_packets):
        lost = bool(draws[packet] < (1 - end if lost else begin))
        kept[packet] = 0.0 if lost else 1.0
    return samples * np.repeat(kept, size)[: len(samples)]


def reverberate(samples: Samples, rate_hz: int, rt60_s: float, generator: Generator) -> Samples:
    """Put the speech into a room: after the direct sound comes noise, 60 dB lower in `rt60_s`."""
    n_tail = max(1, round(rt60_s * rate_hz))
    decay = 10 ** (-3 * np.arange(n_tail) / n_tail)
    response = generator.standard_normal(n_tail) * decay * 0.5 / np.sqrt(np.sum(decay**2))
    response[0] = 1.0
    n_fft = 1 << (len(samples) + n_tail).bit_length()
    spectrum = np.fft.rfft(samples, n_fft) * np.fft.rfft(response, n_fft)
    return within_scale(np.fft.irfft(spectrum, n_fft)[: len(samples)].astype(np.float32))


def through_codec(samples: Samples, rate_hz: int, codec: str, quality: float = 0.5) -> Samples:
    """Encode and decode.

    Args:
        codec: a name out of `CODECS`.
        quality: of vorbis, 1 for the highest bit rate and 0 for the lowest.

    Raises:
        ConfigError: the codec is not known.
    """
    if codec not in CODECS:
        raise ConfigError(f"codec {codec!r}: known are {', '.join(CODECS)}")
    container, coding, fixed_hz = CODECS[codec]
    coding_hz = fixed_hz or min(rate_hz, 48_000)
    coded = within_scale(resample(samples, rate_hz, coding_hz))
    file = io.BytesIO()
    level = {} if fixed_hz else {"compression_level": 1 - quality}
    with soundfile.SoundFile(
        file, "w", coding_hz, channels=1, format=container, subtype=coding, **level
    ) as writer:
        for start in range(0, len(coded), BLOCK):
            writer.write(coded[start : start + BLOCK])
    decoded = resample(read_audio(file.getvalue()).samples, coding_hz, rate_hz)
    return of_length(decoded, len(samples))


def within_scale(samples: NDArray[np.floating]) -> Samples:
    """Lower a clip whose peak is over full scale, so that it is not clipped on disk."""
    peak = float(np.abs(samples).max(initial=0.0))
    return (samples / max(1.0, peak)).astype(np.float32)


def of_length(samples: Samples, n_samples: int) -> Samples:
    """Cut a clip, or put silence after it, so that it has `n_samples`."""
    return np.pad(samples[:n_samples], (0, max(0, n_samples - len(samples))))
