"""Degradations do what they say: levels, bands, shares and lengths, measured on what comes out."""

import numpy as np
import pytest
from hostile import RATE_HZ, voice
from scipy.signal import butter, correlate, periodogram, sosfiltfilt

from voxpanel.augment import degradations as degrade
from voxpanel.errors import ConfigError

RATES_HZ = (8_000, 16_000, 22_050, 44_100, 48_000)


def white(seconds: float = 2.0, rate_hz: int = RATE_HZ, seed: int = 9) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (0.05 * random.standard_normal(round(seconds * rate_hz))).astype(np.float32)


def power_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


ALL = {
    "noise": lambda clip, _, seed: degrade.add_noise(clip, white(), 10, random(seed)),
    "band": lambda clip, rate_hz, _: degrade.limit_band(clip, rate_hz, 3_400),
    "clipping": lambda clip, *_: degrade.clip_peaks(clip, 0.02),
    "packets": lambda clip, rate_hz, seed: degrade.drop_packets(clip, rate_hz, 0.2, random(seed)),
    "room": lambda clip, rate_hz, seed: degrade.reverberate(clip, rate_hz, 0.4, random(seed)),
    "vorbis": lambda clip, rate_hz, _: degrade.through_codec(clip, rate_hz, "vorbis", 0.1),
    "mu-law": lambda clip, rate_hz, _: degrade.through_codec(clip, rate_hz, "mu-law"),
    "gsm": lambda clip, rate_hz, _: degrade.through_codec(clip, rate_hz, "gsm"),
}
RANDOM = ("noise", "packets", "room")


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("name", ALL)
def test_what_comes_out_is_as_long_and_differs_and_the_input_is_as_it_was(name, rate_hz):
    clip = voice(0.7, rate_hz)
    before = clip.copy()
    altered = ALL[name](clip, rate_hz, 0)
    np.testing.assert_array_equal(clip, before)
    assert not np.shares_memory(altered, clip)
    assert (altered.shape, altered.dtype) == (clip.shape, np.float32)
    assert np.isfinite(altered).all()
    is_untouched = name == "band" and rate_hz <= 6_800
    assert is_untouched or not np.array_equal(altered, clip)


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(name):
    clip = voice(0.7)
    first, again, other = (ALL[name](clip, RATE_HZ, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (name not in RANDOM)


@pytest.mark.parametrize("snr_db", [-5, 0, 15, 40])
@pytest.mark.parametrize("noise_gain", [1e-3, 1.0, 30.0])
def test_noise_has_the_ratio_that_was_asked_for(snr_db, noise_gain):
    clip = 0.05 * voice()
    noisy = degrade.add_noise(clip, noise_gain * white(3.0), snr_db, random())
    assert np.abs(noisy).max() < 1  # so nothing was scaled, and the difference is the noise
    found_db = power_db(clip) - power_db(noisy - clip)
    assert found_db == pytest.approx(snr_db, abs=0.1)


def test_a_mix_over_full_scale_is_lowered_and_keeps_its_ratio():
    clip = 2 * voice(4.0)  # with a peak of 0.8
    noisy = degrade.add_noise(clip, white(4.0), 0, random())
    assert np.abs(noisy).max() == pytest.approx(1, abs=1e-6)
    share = np.dot(noisy, clip) / np.dot(clip, clip)  # of the speech in the mix
    assert share < 0.9
    found_db = power_db(share * clip) - power_db(noisy - share * clip)
    assert found_db == pytest.approx(0, abs=0.1)


def test_noise_that_is_too_short_is_repeated_from_a_random_place():
    clip, noise = 0.05 * voice(), white(0.25)
    n = len(noise)
    added = [degrade.add_noise(clip, noise, 0, random(seed)) - clip for seed in range(2)]
    for difference in added:
        # Rounding of float32 samples near 0.1.
        np.testing.assert_allclose(difference[n : 2 * n], difference[:n], atol=1e-7)
    assert np.abs(added[0] - added[1]).max() > 0.01


def test_noise_on_silence_is_silence():
    silence = np.zeros(8_000, np.float32)
    np.testing.assert_array_equal(degrade.add_noise(silence, white(), 10, random()), silence)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("bandwidth_hz", [1_700, 3_400, 5_500])
def test_nothing_is_left_above_a_band_limit_and_all_below(rate_hz, bandwidth_hz):
    clip = white(2.0, rate_hz)
    limited = degrade.limit_band(clip, rate_hz, bandwidth_hz)
    inner = slice(rate_hz // 10, -rate_hz // 10)  # a filter rings at the cut ends of noise
    frequencies_hz, before = periodogram(clip[inner], rate_hz, "hann")
    _, after = periodogram(limited[inner], rate_hz, "hann")
    above, below = frequencies_hz > bandwidth_hz, frequencies_hz < 0.9 * bandwidth_hz
    assert 10 * np.log10(after[above].mean() / before[above].mean()) < -40
    np.testing.assert_allclose(after[below].mean(), before[below].mean(), rtol=0.01)
    # In place, too: what is below differs by less than -40 dB, sample by sample.
    low = butter(8, 0.6 * bandwidth_hz, fs=rate_hz, output="sos")
    kept, found = (sosfiltfilt(low, each)[inner] for each in (clip, limited))
    assert power_db(found - kept) < power_db(kept) - 40


@pytest.mark.parametrize("bandwidth_hz", [8_000, 20_000])
def test_a_limit_above_what_the_rate_can_carry_changes_nothing(bandwidth_hz):
    limited = degrade.limit_band(voice(), RATE_HZ, bandwidth_hz)
    np.testing.assert_array_equal(limited, voice())


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_so_many_samples_lie_on_the_flat_top_and_the_peak_stays(share):
    clip = white()  # no two samples are equal
    clipped = degrade.clip_peaks(clip, share)
    peak = np.abs(clip).max()
    assert np.abs(clipped).max() == pytest.approx(peak, rel=1e-6)
    on_top = np.abs(clipped) >= peak * (1 - 1e-6)
    assert on_top.mean() == pytest.approx(share, abs=2 / len(clip))
    gains = clipped[~on_top] / clip[~on_top]
    np.testing.assert_allclose(gains, gains[0], rtol=1e-5)  # the rest is only louder
    assert gains[0] > 1


def test_clipping_nothing_or_silence_changes_nothing():
    np.testing.assert_array_equal(degrade.clip_peaks(voice(), 0.0), voice())
    silence = np.zeros(1_000, np.float32)
    np.testing.assert_array_equal(degrade.clip_peaks(silence, 0.3), silence)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.95])
def test_so_many_packets_of_20_ms_are_silent_and_the_others_untouched(share, rate_hz):
    n_packets, size = 6_000, rate_hz // 50
    clip = np.ones(n_packets * size, np.float32)
    packets = degrade.drop_packets(clip, rate_hz, share, random()).reshape(n_packets, size)
    lost = (packets == 0).all(axis=1)
    assert ((packets == 1).all(axis=1) | lost).all()
    # Runs of two make the spread of the share up to twice that of independent packets.
    assert lost.mean() == pytest.approx(share, abs=8 * np.sqrt(share * (1 - share) / n_packets))
    n_runs = lost[0] + np.count_nonzero(lost[1:] & ~lost[:-1])
    mean_run = max(2, share / (1 - share))  # no shorter than what single kept packets leave
    assert lost.sum() / n_runs == pytest.approx(mean_run, rel=0.25)


@pytest.mark.parametrize(("share", "n_lost"), [(0, 0), (1, 50)])
def test_no_packets_or_all_of_them_can_be_lost(share, n_lost):
    clip = np.ones(RATE_HZ, np.float32)
    packets = degrade.drop_packets(clip, RATE_HZ, share, random()).reshape(50, -1)
    assert np.count_nonzero((packets == 0).all(axis=1)) == n_lost


def test_the_last_packet_may_be_short():
    kept = degrade.drop_packets(np.ones(1_000, np.float32), RATE_HZ, 0.5, random(3))
    assert len(kept) == 1_000
    assert set(kept.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("rt60_s", [0.2, 0.6, 1.5])
def test_a_room_decays_by_60_db_in_its_reverberation_time(rt60_s, rate_hz):
    impulse = np.zeros(round((rt60_s + 0.2) * rate_hz), np.float32)
    impulse[100] = 0.5
    response = degrade.reverberate(impulse, rate_hz, rt60_s, random())
    assert np.abs(response[:100]).max() < 1e-6  # nothing before the sound
    assert response[100] == np.abs(response).max() == pytest.approx(0.5)
    energy = np.square(response[101:], dtype=np.float64)  # the tail alone
    decay_db = 10 * np.log10(np.cumsum(energy[::-1])[::-1] / energy.sum() + 1e-12)
    fitted = (decay_db < -5) & (decay_db > -25)  # T20, by Schroeder's backward integral
    slope_db = np.polyfit(np.flatnonzero(fitted) / rate_hz, decay_db[fitted], 1)[0]
    assert -60 / slope_db == pytest.approx(rt60_s, rel=0.15)


def test_a_rooms_tail_has_a_quarter_of_the_direct_sounds_energy():
    impulse = np.zeros(RATE_HZ, np.float32)
    impulse[0] = 0.5
    response = degrade.reverberate(impulse, RATE_HZ, 0.5, random())
    assert np.sum(response[1:] ** 2) / response[0] ** 2 == pytest.approx(0.25, rel=0.1)


def test_a_room_fills_the_pauses_and_is_not_clipped():
    clip = np.concatenate([voice(1.0), np.zeros(RATE_HZ // 2, np.float32)])
    wet = degrade.reverberate(clip, RATE_HZ, 0.8, random())
    pause = slice(RATE_HZ, RATE_HZ + RATE_HZ // 10)
    assert -40 < power_db(wet[pause]) - power_db(wet[:RATE_HZ]) < -3
    loud = degrade.reverberate(2 * clip, RATE_HZ, 0.8, random())
    assert np.abs(loud).max() <= 1


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("codec", degrade.CODECS)
def test_a_codec_delays_nothing(codec, rate_hz):
    clip = voice(1.0, rate_hz)
    coded = degrade.through_codec(clip, rate_hz, codec)
    likeness = correlate(coded, clip, method="fft")
    lag = int(np.argmax(likeness)) - (len(clip) - 1)
    assert abs(lag) / rate_hz <= 0.5 / 8_000  # half a sample of the slowest codec
    assert np.corrcoef(coded, clip)[0, 1] > 0.8


@pytest.mark.parametrize("codec", ["mu-law", "gsm"])
def test_a_telephone_codec_leaves_nothing_above_4_khz(codec):
    coded = degrade.through_codec(white(), RATE_HZ, codec)
    frequencies_hz, power = periodogram(coded[1_600:-1_600], RATE_HZ, "hann")
    above = power[frequencies_hz > 4_000].mean()
    assert 10 * np.log10(above / power[frequencies_hz < 3_000].mean()) < -40


def test_a_lower_quality_of_vorbis_is_further_from_the_clip():
    clip = voice(2.0, 44_100)
    off_db = [
        power_db(degrade.through_codec(clip, 44_100, "vorbis", quality) - clip)
        for quality in (0.0, 0.5, 1.0)
    ]
    assert off_db[0] > off_db[1] + 3
    assert off_db[1] > off_db[2] + 3


def test_a_clip_over_full_scale_is_lowered_as_a_whole_before_it_is_coded():
    quiet, loud = voice(1.0), 5 * voice(1.0, seed=1)  # several blocks each
    clip = np.concatenate([quiet, loud])
    coded = degrade.through_codec(clip, RATE_HZ, "vorbis", 1.0)
    n = len(quiet)
    gains = [np.dot(coded[part], clip[part]) / np.dot(clip[part], clip[part])
             for part in (slice(0, n), slice(n, None))]  # fmt: skip
    assert gains[0] == pytest.approx(gains[1], rel=0.02)
    assert gains[1] == pytest.approx(1 / np.abs(clip).max(), rel=0.02)


def test_a_minute_of_vorbis_is_written_in_blocks():
    clip = np.tile(voice(2.0, 48_000), 15)
    coded = degrade.through_codec(clip, 48_000, "vorbis", 0.3)
    last = slice(-96_000, None)
    assert np.corrcoef(coded[last], clip[last])[0, 1] > 0.9


def test_an_unknown_codec_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError, match="codec 'opus': known are vorbis, mu-law, gsm"):
        degrade.through_codec(voice(), RATE_HZ, "opus")
