"""The full band: the same sound, the same numbers, at whatever rate and level."""

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from voxpanel.audio import Audio, from_array, read_audio
from voxpanel.features import fullband as room
from voxpanel.features.fullband import (
    DIM,
    N_BANDS,
    N_HEARD,
    TOP_HZ,
    band_levels,
    fullband,
    hz_to_mel,
    mel_to_hz,
)

CORNERS_HZ = mel_to_hz(np.linspace(0, hz_to_mel(TOP_HZ), N_BANDS + 2))
RATES_HZ = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 96_000)
DECIBEL = 0.1  # levels are in units of 10 dB


def up_to(cutoff_hz: float, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Take out everything above a frequency, without a transition."""
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / rate_hz) > cutoff_hz] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def at_rate(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> Audio:
    """Resample without loss up to 0.95 of the lower half rate."""
    return from_array(soxr.resample(samples, from_hz, to_hz, quality="VHQ"), to_hz)


def tone(frequency_hz: float, rate_hz: int = 48_000, amplitude: float = 0.1) -> NDArray[np.float32]:
    moments = np.arange(rate_hz) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * moments)).astype(np.float32)


@pytest.fixture(scope="module")
def wide(examples):
    """Speech with content up to 16 kHz, at 48 kHz."""
    samples, rate_hz = soundfile.read(examples / "festival_train_clean_32k.flac", dtype="float32")
    return soxr.resample(samples, rate_hz, 48_000, quality="VHQ")


@pytest.mark.parametrize(
    ("content_hz", "rate_hz"),
    [
        (content_hz, rate_hz)
        for content_hz in (3_400, 7_500, 10_000, 15_000)
        for rate_hz in RATES_HZ
        if content_hz <= 0.95 * rate_hz / 2
    ],
)
def test_the_same_sound_gives_the_same_numbers_at_every_rate_that_carries_it(
    wide, content_hz, rate_hz
):
    sound = up_to(content_hz, wide, 48_000)
    original, copy = from_array(sound, 48_000), at_rate(sound, 48_000, rate_hz)
    levels, expected = band_levels(copy), band_levels(original)
    # 0.1 dB: where 25 ms are no whole number of samples, bins are 40.02 Hz apart.
    np.testing.assert_allclose(levels.mean(0), expected.mean(0), atol=0.1 * DECIBEL)
    np.testing.assert_allclose(levels.std(0), expected.std(0), atol=0.1 * DECIBEL)
    np.testing.assert_allclose(
        fullband(copy, content_hz), fullband(original, content_hz), atol=0.1 * DECIBEL
    )


def test_what_a_higher_rate_adds_is_seen(wide):
    narrow = fullband(from_array(up_to(7_500, wide, 48_000), 48_000), 7_500)
    full = fullband(from_array(wide, 48_000), 7_500)
    assert np.abs(full - narrow).max() > 10 * DECIBEL


@pytest.mark.parametrize("gain_db", [-30, -6, 6])
def test_gain_does_not_matter(wide, gain_db):
    louder = from_array(wide * np.float32(10 ** (gain_db / 20)), 48_000)
    expected = fullband(from_array(wide, 48_000), 16_000)
    np.testing.assert_allclose(fullband(louder, 16_000), expected, atol=1e-5)  # float32 samples


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 32_000])
def test_bands_above_the_nyquist_frequency_are_at_the_floor(rate_hz):
    noise = np.random.default_rng(0).normal(0, 0.1, rate_hz).astype(np.float32)
    levels = band_levels(from_array(noise, rate_hz))
    above = CORNERS_HZ[:-2] >= rate_hz / 2
    assert np.abs(levels[:, above]).max() < 1e-9
    assert levels[:, CORNERS_HZ[2:] < rate_hz / 2].min() > 10 * DECIBEL


def test_a_tone_at_12_khz_has_the_level_of_its_bands_closed_form():
    low_amplitude, high_amplitude = 0.1, 0.05
    samples = tone(1_000, amplitude=low_amplitude) + tone(12_000, amplitude=high_amplitude)
    levels = band_levels(from_array(samples, 48_000)).mean(axis=0)
    # The tone below 7 kHz alone is the clip's level: its power spread over 175 bins of 40 Hz.
    around = np.flatnonzero((CORNERS_HZ[:-2] < 12_000) & (CORNERS_HZ[2:] > 12_000))
    assert len(around) == 2
    for band in around:
        low, middle, high = CORNERS_HZ[band : band + 3]
        height = np.interp(12_000, [low, middle, high], [0, 1, 0])
        share = height / ((high - low) / 2 / 40)
        power = (high_amplitude / low_amplitude) ** 2 * 175 * share
        assert levels[band] == pytest.approx(6 + np.log10(power), abs=0.1 * DECIBEL)
    beside = np.abs(np.arange(N_BANDS) - around.mean()) < 2
    assert levels[(CORNERS_HZ[1:-1] > 9_000) & ~beside].max() < 10 * DECIBEL


def test_noise_of_equal_density_has_equal_levels_on_average():
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * 48_000).astype(np.float32)
    levels = band_levels(from_array(noise, 48_000))
    mean_db = 10 * np.log10((10**levels).mean(axis=0))
    assert np.ptp(mean_db) < 0.5  # 1,000 frames of a few bins: about 0.15 dB each


def test_the_parts_of_the_vector_are_where_they_should_be(wide):
    audio = from_array(wide, 48_000)
    vector = fullband(audio, 16_000)
    levels = band_levels(audio)
    assert vector.shape == (DIM,)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(
        vector[: N_BANDS - N_HEARD], levels.mean(axis=0)[N_HEARD:], rtol=1e-6
    )
    np.testing.assert_allclose(
        vector[N_BANDS - N_HEARD : -1], levels.std(axis=0)[N_HEARD:], rtol=1e-6, atol=1e-9
    )
    assert vector[-1] == 1.0  # 16 kHz is an octave above 8 kHz


def test_what_is_left_to_the_encoder_ends_at_7_khz():
    centres_hz = CORNERS_HZ[1:-1]
    assert centres_hz[N_HEARD - 1] < 7_000 <= centres_hz[N_HEARD]


@pytest.mark.parametrize("samples", [np.zeros(48_000), np.ones(1), np.full(700, 0.5)])
def test_silence_and_clips_shorter_than_a_window_have_finite_numbers(samples):
    audio = from_array(samples.astype(np.float32), 48_000)
    assert np.isfinite(fullband(audio, 0.0)).all()
    assert band_levels(audio).min() >= 0


def test_a_long_clip_is_the_same_in_one_block_or_in_many(examples, monkeypatch):
    audio = read_audio(examples / "flite_train_clean_16k.flac")
    whole = band_levels(audio)
    monkeypatch.setattr(room, "BLOCK_FRAMES", 7)
    np.testing.assert_allclose(band_levels(audio), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("frequency_hz", [0.0, 50.0, 1_000.0, 8_000.0, 24_000.0])
def test_mel_to_hz_inverts_hz_to_mel(frequency_hz):
    mel = np.array([hz_to_mel(frequency_hz)])
    assert mel_to_hz(mel)[0] == pytest.approx(frequency_hz, abs=1e-6)
