"""The shipped model `base`: what has to hold for any clip, whatever its score is worth."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import RATE_HZ
from safetensors.torch import load_file
from scipy.signal import fftconvolve, firwin, resample

from voxpanel.audio import read_audio
from voxpanel.augment.degradations import add_noise
from voxpanel.model.checkpoint import known_models, shipped_folder
from voxpanel.score import Scorer

ENGINES = ("espeak-ng", "flite", "festival")
SENTENCES = ("train", "cups")
CLIPS = (
    "espeak-ng_train_clean_22.05k.flac",
    "flite_train_clean_16k.flac",
    "festival_cups_clean_48k.flac",
    "festival_train_degraded_32k.flac",
)
TIME_S = np.arange(4 * RATE_HZ) / RATE_HZ


@pytest.fixture(scope="module")
def base():
    return Scorer.load("base", device="cpu")


@pytest.fixture(scope="module")
def rows(base, examples):
    """The score of each example by its name."""
    paths = sorted(examples.glob("*.flac"))
    return {path.name: row for path, row in zip(paths, base.score_many(paths), strict=True)}


def condition(rows, engine, sentence, state):
    (row,) = (rows[name] for name in rows if name.startswith(f"{engine}_{sentence}_{state}_"))
    return row


def encoded(samples, rate_hz, file_format, subtype):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=file_format, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_clean_clip_beats_the_degraded_one(rows, engine, sentence):
    clean, degraded = (condition(rows, engine, sentence, state) for state in ("clean", "degraded"))
    assert clean.mos > degraded.mos + 0.5  # half a step of the scale; by ear it is more than one


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_clean_speech_is_taken_for_speech_and_gets_an_interval(rows, engine, sentence):
    row = condition(rows, engine, sentence, "clean")
    assert not {"non-speech", "speech-in-doubt"} & set(row.flags)
    assert row.mos_low <= row.mos <= row.mos_high
    assert row.mos_high - row.mos_low < 4  # less than the whole scale


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_speech_under_noise_as_loud_as_itself_is_doubted_at_most(rows, engine, sentence):
    row = condition(rows, engine, sentence, "degraded")
    assert "non-speech" not in row.flags
    assert row.mos is not None


@pytest.mark.parametrize("name", ["flite_train_clean_16k.flac", "festival_cups_clean_48k.flac"])
def test_more_noise_is_a_lower_score(base, examples, name):
    audio = read_audio(examples / name)
    random = np.random.default_rng(0)
    noise = random.standard_normal(len(audio.samples)).astype(np.float32)
    scores = [
        base.score(add_noise(audio.samples, noise, snr_db, random), rate_hz=audio.rate_hz).mos
        for snr_db in (50, 30, 15, 0)
    ]
    assert all(above > below for above, below in pairwise(scores))


@pytest.mark.parametrize("name", CLIPS)
def test_the_same_recording_scores_the_same_at_any_rate(base, examples, name):
    audio = read_audio(examples / name)
    n_tenths = len(audio.samples) * 10 // audio.rate_hz  # of a second: whole samples at each rate
    wide = resample(audio.samples[: n_tenths * audio.rate_hz // 10], n_tenths * 4_800)
    sharp = firwin(2_001, 7_500, fs=48_000, window=("kaiser", 12))
    limited = fftconvolve(wide, sharp, mode="same")
    limited *= 0.5 / np.abs(limited).max()
    scores = [
        base.score(resample(limited, n_tenths * rate_hz // 10), rate_hz=rate_hz).mos
        for rate_hz in (48_000, 44_100, 24_000, 16_000)
    ]
    # Levels and bandwidth are measured at each rate's own resolution; one listener's
    # ratings of one clip scatter twenty times as far.
    assert np.ptp(scores) < 0.05


@pytest.mark.parametrize("name", CLIPS)
def test_the_gain_does_not_matter(base, examples, name):
    audio = read_audio(examples / name)
    plain = 0.4 * audio.samples / np.abs(audio.samples).max()  # 6 dB more do not clip
    scores = [
        base.score(10 ** (gain_db / 20) * plain, rate_hz=audio.rate_hz).mos
        for gain_db in (-30, -12, 0, 6)
    ]
    assert np.ptp(scores) < 0.02  # float32 rounding of the scaled samples; measured: 0.001


def test_the_same_voice_on_both_channels_is_mono(base, examples):
    audio = read_audio(examples / CLIPS[1])
    mono = base.score(audio.samples, rate_hz=audio.rate_hz)
    both = base.score(np.stack([audio.samples] * 2), rate_hz=audio.rate_hz)
    assert both.mos == mono.mos
    assert both.flags == (*mono.flags, "multichannel")


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("FLAC", "PCM_24"),
        ("AIFF", "PCM_16"),
    ],
)
def test_the_format_of_the_file_does_not_matter(base, examples, rows, file_format, subtype):
    name = CLIPS[1]
    samples, rate_hz = soundfile.read(examples / name)
    content = encoded(samples, rate_hz, file_format, subtype)
    # The very same samples; in another batch float32 sums have another order.
    assert base.score(content).mos == pytest.approx(rows[name].mos, abs=1e-3)


def test_the_name_of_the_file_does_not_matter(base, examples, rows, tmp_path):
    path = tmp_path / "excellent natural studio mos=5.degraded"
    path.write_bytes((examples / CLIPS[1]).read_bytes())
    assert base.score(path).mos == pytest.approx(rows[CLIPS[1]].mos, abs=1e-3)


def test_the_order_and_company_of_files_does_not_matter(base, examples, rows):
    names = sorted(rows, reverse=True)
    for name, row in zip(names, base.score_many([examples / name for name in names]), strict=True):
        assert row.mos == pytest.approx(rows[name].mos, abs=1e-3)
    alone = base.score(examples / names[0])
    assert alone.mos == pytest.approx(rows[names[0]].mos, abs=1e-3)


def coloured(slope):
    """Return noise whose power falls as frequency to the `slope`."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(TIME_S)))
    return np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** (slope / 2))


def chords():
    """Return three notes at a time, struck twice a second."""
    notes = 110 * 2 ** (np.random.default_rng(0).integers(0, 36, (8, 3)) / 12)
    played = np.repeat(notes, len(TIME_S) // 8, axis=0)
    sound = np.sin(2 * np.pi * np.cumsum(played, axis=0) / RATE_HZ).sum(axis=1)
    return sound * np.exp(-3 * (TIME_S % 0.5))


NO_SPEECH = {
    "silence": np.zeros(len(TIME_S)),
    "white noise": coloured(0),
    "pink noise": coloured(1),
    "brown noise": coloured(2),
    "throbbing noise": coloured(1) * (1 + np.sin(2 * np.pi * 4 * TIME_S)),
    "gated noise": coloured(0) * (TIME_S % 0.5 < 0.25),
    "tone": np.sin(2 * np.pi * 440 * TIME_S),
    "hum": np.sign(np.sin(2 * np.pi * 50 * TIME_S)),
    "sweep": np.sin(2 * np.pi * (200 + 300 * TIME_S) * TIME_S),
    "chords": chords(),
    "clicks": (np.arange(len(TIME_S)) % 4_000 == 0) - 0.00025,
}


@pytest.mark.parametrize("name", NO_SPEECH)
def test_what_is_no_speech_gets_no_confident_score(base, tmp_path, name):
    sound = 0.3 * NO_SPEECH[name] / max(np.abs(NO_SPEECH[name]).max(), 1e-9)
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(sound, RATE_HZ, "WAV", "PCM_16"))
    (row,) = base.score_many([path])
    if row.error is None:
        assert {"non-speech", "speech-in-doubt"} & set(row.flags)
        assert (row.mos_low, row.mos_high) == (1, 5)
    else:
        assert row.mos is None


def test_the_shipped_folder_is_whole_and_small():
    folder = shipped_folder()
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "README.md", "LICENSE-Distill-MOS"} <= names
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6
    config = (folder / "config.json").read_text("utf-8")
    assert str(Path.home()) not in config  # no path of where it was made
    assert '"source": null' in config


def test_the_shipped_weights_survived_half_precision():
    for name, weight in load_file(shipped_folder() / "model.safetensors").items():
        # The scale of a feature that was constant in training is infinite on purpose.
        is_scale = name.endswith(".scale")
        assert not weight.isnan().any(), name
        assert is_scale or weight.isfinite().all(), name


def test_base_is_listed_with_what_it_was_trained_on_and_how_well_it_does(base):
    (record,) = known_models()
    assert record == base.record
    assert record.name == "base"
    assert record.training
    assert record.measured
    assert record.calibration.n >= 19
    assert 0.85 <= record.calibration.coverage <= 1
    assert base.model_id.startswith(f"base {record.version} ")
    mixture = record.config.mixture
    assert base.n_gates == mixture.n_experts * record.config.validation.members


def test_every_listening_test_that_base_knows_can_be_answered_for(base, examples):
    path = examples / CLIPS[1]
    answers = [base.score(path, test=test) for test in (None, *base.test_names)]
    assert all(1 <= row.mos <= 5 for row in answers)
    assert len({row.mos for row in answers}) == len(answers)
    for row in answers:
        assert sum(row.gates) == pytest.approx(1, abs=1e-5)
        assert min(row.gates) >= 0
