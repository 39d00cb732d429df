"""The full band: what an encoder at 16 kHz cannot hear.

A log-mel spectrum on one axis of 0-24 kHz, taken at the file's own rate, so that
the same sound gives the same numbers at any rate that can carry it. Where a file
has no content, above its Nyquist frequency or above a band limit, its bands
are at the floor. Levels are relative to the clip's own, so gain does not matter.

A head reads the bands from 7 kHz up. Those below repeat what the encoder hears, and
with a few hundred ratings they teach it speakers and rooms instead of quality: on
speech at 16 kHz they cost accuracy (`docs/decisions/full-band.md`).
"""

import numpy as np
from numpy.typing import NDArray

from voxpanel.audio import Audio, resample

TOP_HZ = 24_000
TOP_RATE_HZ = 48_000  # faster files are brought down to it
N_BANDS = 40
WINDOW_S = 0.025  # bins are 40 Hz apart at every rate
HOP_S = 0.010
FLOOR_DB = -60.0
REFERENCE_HZ = 7_000  # the clip's own level is that of its louder frames below this
BLOCK_FRAMES = 4096
N_HEARD = 27  # bands centred below 7 kHz, which the encoder hears
DIM = 2 * (N_BANDS - N_HEARD) + 1


def fullband(audio: Audio, bandwidth_hz: float) -> NDArray[np.float32]:
    """Describe a clip's spectrum from 7 to 24 kHz.

    Args:
        audio: at its own rate.
        bandwidth_hz: where its content ends, as measured.

    Returns:
        `[DIM]`: the mean level of each band over frames and its deviation, in units
        of 10 dB, then `log2(bandwidth_hz / 8000)`.
    """
    levels = band_levels(audio)[:, N_HEARD:]
    width = np.log2(max(bandwidth_hz, 500.0) / 8000)
    return np.concatenate([levels.mean(0), levels.std(0), [width]]).astype(np.float32)


def band_levels(audio: Audio) -> NDArray[np.float64]:
    """Return the level of each band in each frame: `[F, N_BANDS]`, 10 dB a unit.

    0 is the floor and 6 the clip's own level, which a strong band may exceed.
    """
    samples, rate_hz = audio.samples, audio.rate_hz
    if rate_hz > TOP_RATE_HZ:
        samples, rate_hz = resample(samples, rate_hz, TOP_RATE_HZ), TOP_RATE_HZ
    n_window = round(WINDOW_S * rate_hz)
    samples = np.pad(samples, (0, max(0, n_window - len(samples))))
    starts = np.round(np.arange(0, len(samples) - n_window + 1, HOP_S * rate_hz)).astype(np.int64)
    window = np.hanning(n_window)
    # Divided by the rate and the window's energy: power per hertz, alike at all rates.
    scale = 1.0 / (rate_hz * np.sum(window**2))
    frequencies = np.fft.rfftfreq(n_window, 1 / rate_hz)
    filters = band_filters(frequencies)
    n_reference = REFERENCE_HZ * WINDOW_S  # bins; a file at 8 kHz has only some of them
    powers, references = [], []
    for block in np.array_split(starts, -(-len(starts) // BLOCK_FRAMES)):
        frames = samples[block[:, None] + np.arange(n_window)] * window
        density = np.abs(np.fft.rfft(frames, axis=1)) ** 2 * scale
        powers.append(density @ filters.T)
        references.append(density[:, frequencies < REFERENCE_HZ].sum(axis=1) / n_reference)
    reference = max(float(np.percentile(np.concatenate(references), 95)), 1e-20)
    relative_db = 10 * np.log10(np.concatenate(powers) / reference + 10 ** (FLOOR_DB / 10))
    levels: NDArray[np.float64] = (relative_db - FLOOR_DB) / 10
    return levels


def band_filters(frequencies: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return triangular bands, equally wide in mel, over a rate's bins: `[N_BANDS, K]`.

    A band's weights sum to 1 over the bins that a 48 kHz file would have, so a band
    half above the Nyquist frequency is half empty at any rate.
    """
    corners = mel_to_hz(np.linspace(0.0, hz_to_mel(float(TOP_HZ)), N_BANDS + 2))
    every = np.arange(0, TOP_HZ + 1, 1 / WINDOW_S)
    whole = triangles(corners, every).sum(axis=1, keepdims=True)
    filters: NDArray[np.float64] = triangles(corners, frequencies) / whole
    return filters


def triangles(
    corners: NDArray[np.float64], frequencies: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return for each three corners in a row a triangle of height 1."""
    low, middle, high = (corners[i : i + N_BANDS, None] for i in range(3))
    rising = (frequencies - low) / (middle - low)
    falling = (high - frequencies) / (high - middle)
    return np.maximum(0.0, np.minimum(rising, falling))


def hz_to_mel(frequency_hz: float) -> float:
    """Return the mel of a frequency (O'Shaughnessy 1987).

    >>> round(hz_to_mel(1000.0))
    1000
    """
    return float(2595.0 * np.log10(1.0 + frequency_hz / 700.0))


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the frequencies of mels; the inverse of `hz_to_mel`."""
    frequencies: NDArray[np.float64] = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return frequencies
