import builtins
import io
import os
import sys

import numpy as np
import pytest
import soundfile
from hostile import RATE_HZ, header, voice, wav_bytes, write_odd, write_undecodable
from scipy.signal import periodogram

from voxpanel import audio
from voxpanel.audio import AUDIO_SUFFIXES, from_array, mix_down, read_audio, resample
from voxpanel.errors import AudioError

# fmt: off
UNDECODABLE = [
    "empty.wav", "header_only.wav", "promises_much.wav", "cut_header.wav", "text.wav",
    "playlist.m4a", "zeros.wav", "nan.wav", "slow.wav", "fast.wav", "crowd.wav", "folder.wav",
    "dangling.wav", "missing.wav", "pipe.wav",
]
# fmt: on


def tone(frequency_hz: float, rate_hz: int, seconds: float = 1.0) -> np.ndarray:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def level_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-30)


@pytest.fixture(scope="module")
def undecodable(tmp_path_factory):
    return {file.path.name: file for file in write_undecodable(tmp_path_factory.mktemp("bad"))}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_is_no_audio_is_refused_by_name_and_reason(undecodable, name):
    if name not in undecodable:
        pytest.skip("no such thing on this system")
    path, says = undecodable[name]
    with pytest.raises(AudioError, match=says) as refusal:
        read_audio(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_every_undecodable_file_is_tested(undecodable):
    assert set(undecodable) <= set(UNDECODABLE)


def test_odd_files_sound_like_the_plain_one(tmp_path):
    plain = voice()
    for path in write_odd(tmp_path):
        samples = read_audio(path).at(RATE_HZ)[: len(plain)]
        likeness = np.corrcoef(samples, plain[: len(samples)])[0, 1]
        # 8 bits, mu-law, Ogg and MP3 add noise some 25 dB down or less.
        assert likeness > 0.98, f"{path.name}: {likeness}"
        assert len(samples) == len(plain), path.name


def test_bytes_read_like_the_file_they_came_from(tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(wav_bytes(voice()))
    from_bytes = read_audio(path.read_bytes())
    np.testing.assert_array_equal(from_bytes.samples, read_audio(str(path)).samples)
    assert from_bytes.source == "<bytes>"
    assert from_bytes.duration_s == 2.0


def test_empty_bytes_are_refused():
    with pytest.raises(AudioError, match=r"^<bytes>: the file is empty"):
        read_audio(b"")


def test_16_bit_samples_are_divided_by_their_full_range():
    content = header(8) + np.array([0, 16_384, -32_768, 32_767], "<i2").tobytes()
    expected = [0.0, 0.5, -1.0, 32_767 / 32_768]
    assert read_audio(content).samples.tolist() == expected


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "private.wav"
    path.write_bytes(wav_bytes(voice()))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read anything, so chmod proves nothing
    with pytest.raises(AudioError, match=r"private\.wav: cannot be opened \(Permission denied\)"):
        read_audio(path)


def test_a_disk_that_fails_while_reading_is_no_crash(tmp_path, monkeypatch):
    path = tmp_path / "talk.wav"
    path.write_bytes(wav_bytes(voice()))

    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    def open_failing(number, *_):
        os.close(number)
        return Failing()

    monkeypatch.setattr(os, "fdopen", open_failing)
    with pytest.raises(AudioError, match=r"talk\.wav: reading failed \(Input/output error\)"):
        read_audio(path)


def test_a_name_with_a_nul_is_refused():
    with pytest.raises(AudioError, match="cannot be opened"):
        read_audio("talk\0.wav")


def test_of_a_file_cut_half_way_the_first_half_is_used():
    content = wav_bytes(voice())
    half = read_audio(content[: len(content) // 2]).samples
    np.testing.assert_array_equal(half, read_audio(content).samples[: len(half)])
    assert len(half) == pytest.approx(16_000, abs=20)  # half of 44 + 64000 bytes
    flac = io.BytesIO()
    soundfile.write(flac, np.tile(voice(), 10), RATE_HZ, format="FLAC")
    assert 0 < read_audio(flac.getvalue()[:-100_000]).duration_s < 20


def test_a_clip_over_the_limit_is_refused():
    with pytest.raises(AudioError, match=r"<bytes>: longer than 1 s"):
        read_audio(wav_bytes(voice(2.0)), max_duration_s=1.0)
    assert read_audio(wav_bytes(voice(1.0)), max_duration_s=1.0).duration_s == 1.0


def test_no_more_values_are_decoded_than_the_limit_allows(monkeypatch):
    monkeypatch.setattr(audio, "MAX_VALUES", 60_000)
    assert read_audio(wav_bytes(voice())).duration_s == 2.0
    with pytest.raises(AudioError, match=r"longer than 2 s.* 2 channels"):
        read_audio(wav_bytes(np.tile(voice(2.0), (2, 1))))


def test_channels_are_mixed_by_their_mean():
    left, right = voice(seed=1), voice(seed=2)
    clip = from_array(np.stack([left, right]), RATE_HZ)
    np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=1e-7)  # float32 rounding
    assert clip.n_channels == 2
    eight = np.stack([voice(seed=seed) for seed in range(8)])
    np.testing.assert_allclose(mix_down(eight), sum(eight) / 8, atol=1e-7)


def test_a_second_channel_with_its_sign_swapped_does_not_silence_the_clip():
    np.testing.assert_array_equal(mix_down(np.stack([voice(), -voice()])), voice())
    louder = np.stack([voice(), -2 * voice(), voice()])
    np.testing.assert_array_equal(mix_down(louder), -2 * voice())


def test_one_voice_among_silent_channels_is_no_cancelled_mix():
    channels = np.zeros((64, 32_000), np.float32)
    channels[5] = voice()
    np.testing.assert_allclose(mix_down(channels), voice() / 64, atol=1e-8)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_at_16_khz(rate_hz):
    stereo = np.tile(tone(1_000, rate_hz), (2, 1))  # time last, or the pitch would not move
    at_16k = from_array(stereo, rate_hz).at(16_000)
    assert at_16k.dtype == np.float32
    assert len(at_16k) == 16_000
    frequencies_hz, power = periodogram(at_16k, 16_000, window="hann")
    assert frequencies_hz[np.argmax(power)] == 1_000.0
    assert level_db(at_16k[1_000:-1_000]) == pytest.approx(-9.03, abs=0.01)  # 0.5 / sqrt 2


def test_a_tone_above_the_new_half_rate_does_not_alias():
    middle = resample(tone(9_000, 48_000), 48_000, 16_000)[2_000:-2_000]
    assert level_db(middle) < -100


def test_a_clip_at_the_wanted_rate_is_not_copied():
    clip = from_array(voice(), RATE_HZ)
    assert clip.at(RATE_HZ) is clip.samples


def test_the_clip_does_not_change_with_the_callers_array():
    samples = voice()
    clip = from_array(samples, RATE_HZ)
    samples[:] = 0
    np.testing.assert_array_equal(clip.samples, voice())


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-128, 64], np.int8), [-1.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        (np.array([-32_768, 16_384], np.int16), [-1.0, 0.5]),
        (np.array([-(2**31), 2**30], np.int32), [-1.0, 0.5]),
        (np.array([0.25, -3.0], np.float64), [0.25, -3.0]),
        ([0.25, 0.5], [0.25, 0.5]),
    ],
)
def test_arrays_are_brought_to_a_full_scale_of_one(samples, expected):
    assert from_array(samples, 16_000).samples.tolist() == expected


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([], "no samples"),
        (np.zeros((2, 0)), "no samples"),
        (0.5, r"expected samples \[T\] or \[C, T\]"),
        (np.zeros((1, 2, 3)), r"got the shape \(1, 2, 3\)"),
        (np.zeros((16_000, 2)), "time is the last axis"),
        (np.zeros((40, 2)), "time is the last axis"),
        (np.zeros((65, 16_000)), "65 channels"),
        (["a", "b"], "type <U1"),
        ([None, 1.0], "type object"),
        ([True, False], "type bool"),
        ([1, 2, 3], "type int64"),
        ([1j, 2j], "type complex128"),
        ([[1.0], [1.0, 2.0]], "not an array of numbers"),
        ([0.0, np.nan, 1.0, np.nan], r"2 of 4 samples .* first at 0\.000 s"),
        ([1e300, 0.0], "1 of 2 samples"),
    ],
)
def test_arrays_that_cannot_be_samples_are_refused(samples, says):
    with pytest.raises(AudioError, match=f"^<array>: .*{says}"):
        from_array(samples, 16_000)


@pytest.mark.parametrize("rate_hz", [None, 0, -16_000, 1, 3_999, 384_001, 16_000.5, "16000", True])
def test_a_missing_or_absurd_rate_is_refused(rate_hz):
    with pytest.raises(AudioError, match="sampling rate"):
        from_array([0.1, 0.2], rate_hz)


def write_media(path, samples, rate_hz=16_000):
    av = pytest.importorskip("av")
    codec = {".m4a": "aac", ".aac": "aac", ".webm": "libopus"}[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


@pytest.mark.parametrize("name", ["talk.m4a", "talk.aac", "talk.webm"])
def test_media_containers_keep_length_and_pitch(tmp_path, name):
    sound = tone(1_000, 48_000, 2.0)
    clip = read_audio(write_media(tmp_path / name, sound, 48_000))
    assert clip.rate_hz == 48_000
    assert clip.duration_s == pytest.approx(2.0, abs=0.1)  # the coders pad both ends
    middle = clip.samples[24_000:72_000]
    frequencies_hz, power = periodogram(middle, 48_000, window="hann")
    assert frequencies_hz[np.argmax(power)] == 1_000.0
    assert level_db(middle) == pytest.approx(-9.03, abs=0.5)  # lossy


def test_a_media_file_whatever_its_name_asks_for_the_extra_if_it_is_missing(tmp_path, monkeypatch):
    path = write_media(tmp_path / "talk.m4a", voice()).rename(tmp_path / "talk.wav")
    monkeypatch.delitem(sys.modules, "av")
    real_import = builtins.__import__

    def refuse(name, *rest):
        if name == "av":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(AudioError, match=r"talk\.wav: .*pip install 'voxpanel\[media\]'"):
        read_audio(path)


def test_a_film_without_sound_is_refused(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(AudioError, match=r"film\.mp4: has no audio track"):
        read_audio(tmp_path / "film.mp4")


@pytest.mark.parametrize("name", ["talk.aac", "talk.webm"])
def test_of_a_cut_stream_the_first_part_is_used(tmp_path, name):
    content = write_media(tmp_path / name, tone(1_000, 48_000, 4.0), 48_000).read_bytes()
    assert 1.0 < read_audio(content[: len(content) // 2]).duration_s < 3.0


@pytest.mark.parametrize("kept", [24, 200, 1_000])
def test_a_cut_media_file_is_refused(tmp_path, kept):
    content = write_media(tmp_path / "talk.m4a", voice()).read_bytes()
    with pytest.raises(AudioError, match=r"^<bytes>: not audio that can be decoded"):
        read_audio(content[:kept])


def test_the_endings_of_a_folder_listing_are_lower_case():
    assert {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".webm"} <= AUDIO_SUFFIXES
    assert all(suffix.startswith(".") and suffix.islower() for suffix in AUDIO_SUFFIXES - {".mp3"})
