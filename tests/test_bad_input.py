"""Whatever a list of files holds, each has its own row: a score, or the reason for none."""

import io
import os
import re

import numpy as np
import pytest
import soundfile
from hostile import (
    RATE_HZ,
    header,
    voice,
    wav_bytes,
    write_odd,
    write_undecodable,
    write_unscorable,
)

from voxpanel.errors import AudioError
from voxpanel.measure import FLAGS

# What `repr` makes of an exception that nobody thought of.
UNFORESEEN = re.compile(r"^\w+(Error|Exception|Warning)\(")
TOLERANCE = 1e-3  # float32 sums in another order
NAMES = ("comma, in it.wav", 'a "quote".wav', "two\nlines.wav", "tab\there.wav", "😀 日本語.wav")


def tone(frequency_hz: float, seconds: float = 2.0) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def noise(slope: float, seconds: float = 2.0) -> np.ndarray:
    """Return noise whose power falls as frequency to the `slope`: 0 is white, 1 is pink."""
    white = np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))
    spectrum = np.fft.rfft(white)
    shaped = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** (slope / 2))
    return (0.3 * shaped / np.abs(shaped).max()).astype(np.float32)


NO_SPEECH = {
    "silence": (np.zeros(2 * RATE_HZ, np.float32), "silent"),
    "white noise": (noise(0), "no speech"),
    "pink noise": (noise(1), "no speech"),
    "brown noise": (noise(2), "no speech"),
    "hum": (tone(50), "no speech"),
    "tone": (tone(440), "no speech"),
    "beep": (tone(1_000, 0.3), "no speech"),
    "10 ms": (voice()[4_000:4_160], "too short"),
    "50 ms": (voice()[4_000:4_800], "too short"),
    "one sample": (np.full(1, 0.5, np.float32), "too short"),
}


def assert_scored_or_explained(row):
    if row.error is None:
        assert 1 <= row.mos_low <= row.mos <= row.mos_high <= 5
    else:
        assert row.mos is row.mos_low is row.mos_high is row.synthesizer is None
        assert row.gates == ()
        assert not UNFORESEEN.match(row.error)
    assert set(row.flags) <= set(FLAGS)


def test_bad_files_cost_their_own_rows_and_no_others(fast_scorer, tmp_path):
    good = tmp_path / "good.wav"
    good.write_bytes(wav_bytes(voice()))
    bad = [*write_undecodable(tmp_path), *write_unscorable(tmp_path)]
    asked = [path for file in bad for path in (file.path, good)]
    rows = list(fast_scorer.score_many(asked))
    assert [row.path for row in rows] == [str(path) for path in asked]
    for row, file in zip(rows[::2], bad, strict=True):
        assert re.search(file.says, row.error), row
        assert_scored_or_explained(row)
    alone = fast_scorer.score(good)
    for row in rows[1::2]:
        assert row.error is None
        assert row.mos == pytest.approx(alone.mos, abs=TOLERANCE)


def test_one_bad_file_raises_with_its_path_and_reason(fast_scorer, tmp_path):
    for path, says in [*write_undecodable(tmp_path), *write_unscorable(tmp_path)]:
        with pytest.raises(AudioError, match=says) as refusal:
            fast_scorer.score(path)
        assert str(refusal.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", NO_SPEECH)
def test_what_is_no_speech_gets_no_score(fast_scorer, tmp_path, name):
    samples, says = NO_SPEECH[name]
    path = tmp_path / "clip.wav"
    path.write_bytes(wav_bytes(samples))
    (row,) = fast_scorer.score_many([path])
    assert says in row.error
    assert_scored_or_explained(row)
    assert row.duration_s == len(samples) / RATE_HZ  # what was measured is there all the same
    with pytest.raises(AudioError, match=f"<array>: {says}"):
        fast_scorer.score(samples, rate_hz=RATE_HZ)


def test_odd_files_are_scored_like_the_plain_one(fast_scorer, tmp_path):
    paths = write_odd(tmp_path)
    plain = fast_scorer.score(voice(), rate_hz=RATE_HZ)
    rows = {path.name: row for path, row in zip(paths, fast_scorer.score_many(paths), strict=True)}
    assert {name: row.error for name, row in rows.items()} == dict.fromkeys(rows)
    # 16 bits under the floats of the plain one; mel bands hear them in the pauses.
    for name in ("UPPER.WAV", "headerless.raw", "streamed.wav", "eight_channels.wav"):
        assert rows[name].mos == pytest.approx(rows['comma, "quote".wav'].mos, abs=TOLERANCE)
    for name in ("double.wav", "loud_float.wav"):
        assert rows[name].mos == pytest.approx(plain.mos, abs=TOLERANCE)
    multichannel = {name for name, row in rows.items() if "multichannel" in row.flags}
    assert multichannel == {"eight_channels.wav", "sign_swapped.wav"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_path_is_given_back_whatever_its_name(fast_scorer, tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(wav_bytes(voice(1.0)))
    asked = [str(tmp_path / name) for name in (*NAMES, "\udcff.wav", "nul\0.wav")]
    rows = list(fast_scorer.score_many(asked))
    assert [row.path for row in rows] == asked
    assert [row.error is None for row in rows] == [True] * len(NAMES) + [False, False]
    assert np.ptp([row.mos for row in rows[: len(NAMES)]]) < TOLERANCE


def test_a_file_that_may_not_be_read_is_a_row(fast_scorer, tmp_path, monkeypatch):
    path = tmp_path / "private.wav"
    path.write_bytes(wav_bytes(voice(1.0)))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read anything, so chmod proves nothing
    (row,) = fast_scorer.score_many([path])
    assert row.error == f"{path}: cannot be opened (Permission denied)"


def test_even_what_nobody_thought_of_is_a_row(fast_scorer, tmp_path, monkeypatch):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(wav_bytes(voice(1.0)))
    measure = fast_scorer.hear

    def fail_on_a(path, *args):
        if path.endswith("a.wav"):
            raise ZeroDivisionError("division by zero")
        return measure(path, *args)

    monkeypatch.setattr(fast_scorer, "hear", fail_on_a)
    first, second = fast_scorer.score_many([tmp_path / "a.wav", tmp_path / "b.wav"])
    assert (first.mos, first.error) == (None, "ZeroDivisionError('division by zero')")
    assert second.error is None


@pytest.mark.parametrize("rate_hz", [4_000, 8_000, 11_025, 96_000, 192_000, 384_000])
def test_any_usual_rate_is_scored(fast_scorer, rate_hz):
    row = fast_scorer.score(voice(1.0, rate_hz), rate_hz=rate_hz)
    assert row.sample_rate_hz == rate_hz
    assert row.bandwidth_hz <= rate_hz / 2
    assert_scored_or_explained(row)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "says"),
    [
        (np.array([0.1, np.nan] * 4_000), RATE_HZ, "4000 of 8000 samples are NaN"),
        (np.array([0.1, np.inf] * 4_000), RATE_HZ, "4000 of 8000 samples are NaN, infinite"),
        (np.array([0.1, 1e30] * 4_000), RATE_HZ, "absurdly large"),
        (np.zeros(0), RATE_HZ, "no samples"),
        (np.zeros((0, 100)), RATE_HZ, "no samples"),
        (np.zeros((16_000, 2)), RATE_HZ, "time is the last axis"),
        (np.zeros((1, 1, 100)), RATE_HZ, "expected samples"),
        (np.zeros(100, complex), RATE_HZ, "complex128"),
        (np.array(["a", "b"]), RATE_HZ, "no known full scale"),
        (voice(), 0, "rate of 0 Hz"),
        (voice(), -RATE_HZ, "rate of -16000 Hz"),
        (voice(), 16_000.5, "whole number of Hz"),
        (voice(), 3_999, "rate of 3999 Hz"),
    ],
)
def test_arrays_that_cannot_be_audio_are_refused(fast_scorer, samples, rate_hz, says):
    with pytest.raises(AudioError, match=says):
        fast_scorer.score(samples, rate_hz=rate_hz)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not audio at all" * 99, header(0)])
def test_bytes_that_are_no_audio_are_refused(fast_scorer, content):
    with pytest.raises(AudioError, match="<bytes>: "):
        fast_scorer.score(content)


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_damaged_file_is_scored_or_explained(fast_scorer, tmp_path, file_format):
    file = io.BytesIO()
    soundfile.write(file, voice(0.5), RATE_HZ, format=file_format)
    content = file.getvalue()
    random = np.random.default_rng(0)
    paths = []
    for number in range(24):
        damaged = bytearray(content[: random.integers(1, len(content))] if number % 2 else content)
        # Half of the damage is in the header, where it does most.
        for _ in range(8):
            end = min(64, len(damaged)) if number % 4 < 2 else len(damaged)
            damaged[random.integers(end)] = random.integers(256)
        paths.append(tmp_path / f"{number}.bin")
        paths[-1].write_bytes(damaged)
    rows = list(fast_scorer.score_many(paths))
    assert [row.path for row in rows] == [str(path) for path in paths]
    for row in rows:
        assert_scored_or_explained(row)
    assert any(row.error for row in rows)
