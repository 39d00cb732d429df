"""What can be said of a clip without a model: level, bandwidth, speech, defects.

The numbers stand beside every score, the flags say when to doubt it, and
`refusal` says which clips are not scored at all. Only `peak`, `active_level_db`
and the flag `silent` depend on the clip's gain.

Axes: T samples, M milliseconds, F frames, B frequency bands, W windows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from voxpanel.audio import Audio, resample

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "silent": "its level is below that of 16-bit dither; not scored",
        "non-speech": "under 0.2 s, or half of a shorter clip, sounds like speech; not scored if 0",
        "speech-in-doubt": "the model takes it for no speech, though it changes as speech does: "
        "loud noise over speech, or music; the interval is the whole scale",
        "short": "under 1 s: listeners and models are less sure; not scored under 0.1 s",
        "long": "over 30 s: the score averages over speech that may change",
        "clipped": "at least 0.05 % of the samples lie on a flat top",
        "band-limited": "nothing above 7 kHz, as over a telephone; the encoder hears up to 8 kHz",
        "resampled": "the content ends below 0.7 of half the sampling rate, as after upsampling",
        "multichannel": "several channels were mixed down to one",
    }
)
MIN_DURATION_S = 0.1
SHORT_S = 1.0
LONG_S = 30.0
SILENT_DB = -95.0  # silence rounded to 16 bits with triangular dither measures -96.3
FLOOR_DB = -100.0  # stands for everything below, digital silence included
MIN_SPEECH_S = 0.2
BAND_LIMIT_HZ = 7_000.0
BAND_SHARE = 0.7  # of half the rate: 16 kHz speech at 24 kHz fills 0.67
CLIPPED_SHARE = 0.0005
FLAT_TOP_PEAK = 0.05  # quieter than that, a few equal steps of 16 bits look like a flat top

MARGIN_DB = 15.9  # P.56: what is active lies at most so far below the active level

# Bandwidth: a band holds content if it reaches to within 65 dB of the strongest band, and
# either comes and goes, as noise of rounding does not, or is within 35 dB.
BAND_HZ = 250.0
CONTENT_DB = -65.0
SOLID_DB = -35.0
CHANGE_DB = 6.0
SPECTRUM_S = 0.032
MAX_SPECTRA = 2_000  # of a long clip, evenly spaced

# Speech: frames of 48 ms every 16 ms at 8 kHz, judged in windows of about a second.
SPEECH_RATE_HZ = 8_000
SPEECH_FLOOR_DB = -40.0  # of a band, against the active level of all of them
FRAME = 384
HOP = 128
N_FFT = 576
SPEECH_BANDS_HZ = (100, 250, 450, 700, 1000, 1400, 1900, 2500, 3200, 3900)
WINDOW = 64  # frames, 1.024 s: one bin of a window's spectrum is 0.98 Hz
WINDOW_HOP = 8
SYLLABLES = slice(2, 11)  # bins of 2-10 Hz, the rates at which syllables follow one another
FLUTTER = slice(13, None)  # bins of 13-31 Hz, where noise changes as much as below
CHUNK = 4_096  # frames or windows at once, which bounds the memory

# Over speech of some 60 systems, 99 % of the windows have a rate ratio above 7.5, a depth above
# 7.7 dB and a difference above 0.12; with pink noise as loud as the speech, 90 % have 2.7 and
# 2.7 dB. Steady noise has 0.9 and 1.5 dB, gated noise a difference of 0.01.
MIN_RATE_RATIO = 3.0
MIN_DEPTH_DB = 2.5
MIN_DIFFERENCE = 0.05
MAX_TONE_SHARE = 0.97


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of one clip.

    bandwidth_hz: where the content ends, whatever the header's rate says.
    peak: the largest absolute sample; full scale is 1.
    clipped: the share of samples on a flat top, 0-1.
    active_level_db: active speech level (ITU-T P.56) in dBov, of which a square wave
        at full scale has 0; never below `FLOOR_DB`.
    activity: the share of time that is active in the sense of P.56, 0-1.
    speech_s: how much of the active time sounds like speech.
    flags: names out of `FLAGS`, in its order.
    """

    duration_s: float
    rate_hz: int
    bandwidth_hz: float
    peak: float
    clipped: float
    active_level_db: float
    activity: float
    speech_s: float
    flags: tuple[str, ...]


class ActiveLevel(NamedTuple):
    """The level while somebody speaks, and when that is.

    is_active: `[M]`, one value a millisecond.
    """

    level_db: float
    is_active: NDArray[np.bool_]


def measure(audio: Audio) -> Measurements:
    """Measure a clip, in time and memory that grow linearly with its length."""
    samples = audio.samples - audio.samples.mean(dtype=np.float64).astype(np.float32)
    swing = float(np.abs(samples).max())
    level = ActiveLevel(FLOOR_DB, np.zeros(1, bool))
    bandwidth_hz = speech_s = 0.0
    if swing > 10 ** (SILENT_DB / 20):
        samples /= np.float32(swing)  # what follows cannot depend on the gain
        level = active_speech_level(samples, audio.rate_hz)
        bandwidth_hz = content_bandwidth(samples, audio.rate_hz, level.is_active)
        speech_s = speech_duration(samples, audio.rate_hz, level.is_active)
        level = level._replace(level_db=level.level_db + 20 * math.log10(swing))
    measured = Measurements(
        duration_s=audio.duration_s,
        rate_hz=audio.rate_hz,
        bandwidth_hz=bandwidth_hz,
        peak=float(np.abs(audio.samples).max()),
        clipped=flat_top_share(audio.samples),
        active_level_db=max(level.level_db, FLOOR_DB),
        activity=float(level.is_active.mean()),
        speech_s=speech_s,
        flags=(),
    )
    return replace(measured, flags=_flags(measured, audio.n_channels))


def _flags(measured: Measurements, n_channels: int) -> tuple[str, ...]:
    is_silent = measured.active_level_db < SILENT_DB
    bandwidth_hz = measured.bandwidth_hz
    flags = {
        "silent": is_silent,
        "non-speech": not is_silent
        and measured.speech_s < min(MIN_SPEECH_S, measured.duration_s / 2),
        "speech-in-doubt": False,  # a model's to say
        "short": measured.duration_s < SHORT_S,
        "long": measured.duration_s > LONG_S,
        "clipped": measured.clipped >= CLIPPED_SHARE,
        "band-limited": 0 < bandwidth_hz < BAND_LIMIT_HZ,
        "resampled": 0 < bandwidth_hz < BAND_SHARE * measured.rate_hz / 2,
        "multichannel": n_channels > 1,
    }
    return tuple(name for name in FLAGS if flags[name])


def refusal(measurements: Measurements) -> str | None:
    """Say why a clip cannot be scored at all; None if it can."""
    if measurements.duration_s < MIN_DURATION_S:
        return f"too short: {measurements.duration_s:.3f} s, at least {MIN_DURATION_S} s is needed"
    if "silent" in measurements.flags:
        return f"silent: an active level under {SILENT_DB:.0f} dBov; check the recording"
    if measurements.speech_s == 0:
        return "no speech found: nothing in it changes as syllables do; check that it is speech"
    return None


def active_speech_level(samples: NDArray[np.float32], rate_hz: int) -> ActiveLevel:
    """Measure the active speech level (P.56, method B).

    That is the level of the time when an envelope lies no more than 15.9 dB below that
    very level, and of the 0.2 s after it. Gain shifts it exactly; silence around the clip
    leaves it as it is, but for those 0.2 s. The Recommendation's thresholds lie 6 dB
    apart; these lie 0.5 dB apart and start at the clip's own peak, so that less is left
    to interpolate.

    Args:
        samples: `[T]`, not all zero.
        rate_hz: their rate.

    Source: ITU-T P.56 (12/2011), clause 7.
    """
    from scipy.ndimage import maximum_filter1d
    from scipy.signal import lfilter

    block = rate_hz // 1000
    starts = np.arange(0, len(samples), block)
    rectified = np.add.reduceat(np.abs(samples), starts).astype(np.float64) / block  # [M]
    energy = float(np.add.reduceat(np.square(samples), starts).sum(dtype=np.float64))
    decay = math.exp(-block / rate_hz / 0.03)  # two equal one-pole filters in a row
    envelope = lfilter([(1 - decay) ** 2], [1, -2 * decay, decay**2], rectified)
    # A hangover of H samples after the last crossing is a maximum over the H before each one.
    hangover = round(0.2 * rate_hz / block)
    held = maximum_filter1d(envelope, hangover + 1, origin=hangover // 2, mode="constant")
    thresholds = held.max() * 10 ** (np.arange(0, -120, -0.5) / 20)
    n_active = len(held) - np.searchsorted(np.sort(held), thresholds)
    levels_db = 10 * np.log10(energy / (n_active * block))
    margins_db = levels_db - 20 * np.log10(thresholds)
    # The lowest threshold within the margin; of a lone click, that which comes nearest.
    within = np.flatnonzero(margins_db <= MARGIN_DB)
    last = int(within[-1]) if len(within) else int(np.argmin(margins_db))
    between = slice(last, last + 2)
    level_db = float(np.interp(MARGIN_DB, margins_db[between], levels_db[between]))
    threshold = min(10 ** ((level_db - MARGIN_DB) / 20), float(thresholds[last]))
    return ActiveLevel(level_db, held >= threshold)


def flat_top_share(samples: NDArray[np.float32]) -> float:
    """Return the share of samples that lie on a flat top or bottom, 0-1.

    A flat top is three or more equal samples in a row at the clip's own highest or
    lowest value, so a clip that was attenuated after it was clipped is still found;
    one that was resampled or coded afterwards is not. Below -26 dBov none is sought.

    >>> flat_top_share(np.array([0, 1, 1, 1, 0, -1, -1, 0], dtype=np.float32))
    0.375
    """
    n_flat = 0
    for extreme in {float(samples.max()), float(samples.min())}:
        if abs(extreme) >= FLAT_TOP_PEAK:
            at_extreme = np.concatenate(([False], samples == extreme, [False]))
            edges = np.flatnonzero(at_extreme[1:] != at_extreme[:-1])
            runs = edges[1::2] - edges[::2]
            n_flat += int(runs[runs >= 3].sum())
    return n_flat / len(samples)


def content_bandwidth(
    samples: NDArray[np.float32], rate_hz: int, is_active: NDArray[np.bool_]
) -> float:
    """Find where the content ends, in Hz, to about 250 Hz and never above half the rate.

    Args:
        samples: `[T]`.
        rate_hz: their rate.
        is_active: `[M]`, which milliseconds count.

    Returns:
        The upper edge of the highest two neighbouring bands with content; 0 if none.
    """
    from scipy.fft import rfft

    length = 2 ** round(math.log2(SPECTRUM_S * rate_hz))
    frames = sliding_window_view(_at_least(samples, length), length)[:: length // 2]
    centres = (np.arange(len(frames)) + 1) / (len(frames) + 1)
    chosen = np.flatnonzero(_pick(is_active, centres))
    if len(chosen) > MAX_SPECTRA:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MAX_SPECTRA).astype(int)]
    if not len(chosen):
        return 0.0
    power = np.square(np.abs(rfft(frames[chosen] * np.blackman(length).astype(np.float32))))
    n_bins = max(1, round(BAND_HZ * length / rate_hz))
    starts = np.arange(0, length // 2 + 1 - n_bins // 2, n_bins)  # a last rest joins its neighbour
    bands_db = 10 * np.log10(np.add.reduceat(power, starts, axis=1) / n_bins + 1e-20)  # [F, B]
    loud_db, quiet_db = np.quantile(bands_db, [0.95, 0.25], axis=0)
    reach_db = loud_db - loud_db.max()
    comes_and_goes = (reach_db > CONTENT_DB) & (loud_db - quiet_db > CHANGE_DB)
    has_content = comes_and_goes | (reach_db > SOLID_DB)
    has_content[1:] &= has_content[:-1] | (reach_db[1:] == 0)  # one band alone is a whistle
    edges_hz = np.append(starts[1:] * rate_hz / length, rate_hz / 2)
    return float(edges_hz[has_content][-1])


def speech_duration(
    samples: NDArray[np.float32], rate_hz: int, is_active: NDArray[np.bool_]
) -> float:
    """Return how many seconds of the active time sound like speech.

    Speech changes at the rate of syllables, differently in each frequency band, and is
    no tone. Noise changes at all rates alike, a gate or a click changes all bands alike.
    Whispering passes, and so do singing and many animals: this test would rather hear
    speech where there is none than miss it.

    Args:
        samples: `[T]`.
        rate_hz: their rate.
        is_active: `[M]`, which milliseconds count.
    """
    speech = _at_least(resample(samples, rate_hz, SPEECH_RATE_HZ), FRAME)
    bands_db, power, tone_power = _frame_features(sliding_window_view(speech, FRAME)[::HOP])
    centres = (np.arange(len(power)) * HOP + FRAME / 2) / len(speech)
    active_power = power[_pick(is_active, centres)]
    if not active_power.any():
        return 0.0
    # The active level, other than the highest one, is not lifted above the speech by a click.
    floor_db = 10 * math.log10(float(active_power.mean())) + SPEECH_FLOOR_DB
    is_speech = _is_syllabic(np.maximum(bands_db, floor_db), power, tone_power)
    moments = (np.arange(len(is_active)) + 0.5) / len(is_active)
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, moments)
    return float((is_active & is_speech[nearest]).mean()) * len(samples) / rate_hz


def _frame_features(
    frames: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the bands' levels `[F, B]` in dB, all power `[F]` and the strongest tone's `[F]`."""
    from scipy.fft import rfft

    bands_db, power, tone_power = [], [], []
    edges = np.array(SPEECH_BANDS_HZ) * N_FFT // SPEECH_RATE_HZ
    for start in range(0, len(frames), CHUNK):
        windowed = frames[start : start + CHUNK] * np.hanning(FRAME).astype(np.float32)
        spectra = np.square(np.abs(rfft(windowed, N_FFT))).astype(np.float64)  # [F, bins]
        bands = np.add.reduceat(spectra[:, : edges[-1]], edges[:-1], axis=1)
        bands_db.append(10 * np.log10(bands + 1e-20))
        total = np.cumsum(spectra, axis=1)
        power.append(total[:, -1])
        tone_power.append((total[:, 7:] - total[:, :-7]).max(axis=1))  # 7 bins, 97 Hz
    return np.concatenate(bands_db), np.concatenate(power), np.concatenate(tone_power)


def _is_syllabic(
    bands_db: NDArray[np.float64], power: NDArray[np.float64], tone_power: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Mark the frames `[F]` that lie in the middle half of a window that sounds like speech."""
    n_frames = len(power)
    half = WINDOW // 2
    n_windows = 1 + max(0, -(-(n_frames - half) // WINDOW_HOP))
    # Padded so that the windows' middle halves, a hop apart, cover the clip to its ends.
    padding = (half // 2, (n_windows - 1) * WINDOW_HOP + half - n_frames + half // 2)
    windows = sliding_window_view(np.pad(bands_db, (padding, (0, 0)), mode="edge"), WINDOW, axis=0)
    tones = sliding_window_view(np.pad([power, tone_power], ((0, 0), padding)), WINDOW, axis=1)
    share = tones[1, ::WINDOW_HOP].sum(axis=-1) / (tones[0, ::WINDOW_HOP].sum(axis=-1) + 1e-20)
    starts = np.arange(0, n_windows * WINDOW_HOP, WINDOW_HOP)
    changes = [
        _changes_like_speech(windows[starts[i : i + CHUNK]]) for i in range(0, n_windows, CHUNK)
    ]
    is_speech = np.zeros(n_frames, bool)
    for start in starts[np.concatenate(changes) & (share < MAX_TONE_SHARE)]:
        is_speech[start : start + half] = True
    return is_speech


def _changes_like_speech(windows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Judge windows `[W, B, WINDOW]` of band levels in dB by how they change in time."""
    from scipy.fft import rfft

    levels = windows - windows.mean(axis=-1, keepdims=True)
    depth_db = np.sqrt(np.square(levels).mean(axis=(1, 2)))
    taper = np.hanning(WINDOW)
    spectra = np.square(np.abs(rfft(levels * taper))).mean(axis=1)  # [W, bins]
    syllables = spectra[:, SYLLABLES].sum(axis=1)
    flutter = spectra[:, FLUTTER].sum(axis=1)
    apart = levels - levels.mean(axis=1, keepdims=True)  # what is not common to all bands
    spectra_apart = np.square(np.abs(rfft(apart * taper))).mean(axis=1)
    syllables_apart = spectra_apart[:, SYLLABLES].sum(axis=1)
    is_speech: NDArray[np.bool_] = (
        (depth_db > MIN_DEPTH_DB)
        & (syllables > MIN_RATE_RATIO * flutter)
        & (syllables_apart > MIN_DIFFERENCE * syllables)
    )
    return is_speech


def _pick(values: NDArray[np.bool_], moments: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Look up `[M]` values at moments of the clip, 0 being its start and 1 its end."""
    places = np.minimum((moments * len(values)).astype(int), len(values) - 1)
    return np.asarray(values[places], dtype=bool)


def _at_least(samples: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
    """Append silence to a clip that is shorter than one frame."""
    return np.pad(samples, (0, max(0, n_samples - len(samples))))
