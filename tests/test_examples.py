"""The clips in `examples/`: what the manifest says of them is so."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

FOLDER = Path(__file__).parent.parent / "examples"
ENGINES = ("espeak-ng", "flite", "festival")
SENTENCES = ("train", "cups")


def read_table(name):
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


ROWS = read_table("manifest.csv")
PATHS = [row["path"] for row in ROWS]


def read_clip(name):
    samples, rate_hz = soundfile.read(FOLDER / name, always_2d=True)
    return samples[:, 0], rate_hz


def level_db(samples):
    return 10 * np.log10(np.mean(np.square(samples)) + 1e-12)


def pause_level_db(name):
    """Return the level that a twentieth of a clip's 20 ms frames stays below."""
    samples, rate_hz = read_clip(name)
    n = rate_hz // 50
    frames = samples[: len(samples) // n * n].reshape(-1, n)
    return np.percentile([level_db(frame) for frame in frames], 5)


def share_above_hz(name, edge_hz):
    samples, rate_hz = read_clip(name)
    power = np.square(np.abs(np.fft.rfft(samples)))
    return power[np.fft.rfftfreq(len(samples), 1 / rate_hz) > edge_hz].sum() / power.sum()


def test_the_manifest_lists_each_clip_once_and_nothing_else():
    assert sorted(PATHS) == sorted(path.name for path in FOLDER.glob("*.flac"))


def test_every_engine_says_every_sentence_clean_and_degraded():
    said = [(row["synthesizer"], row["sentence"], row["system"]) for row in ROWS]
    wanted = [
        (engine, sentence, system)
        for engine, sentence in itertools.product(ENGINES, SENTENCES)
        for system in (engine, f"{engine}-degraded")
    ]
    assert sorted(said) == sorted(wanted)


def test_the_texts_are_those_of_texts_csv():
    texts = {row["sentence"]: row["text"] for row in read_table("texts.csv")}
    assert {row["sentence"]: row["text"] for row in ROWS} == texts


@pytest.mark.parametrize("row", ROWS, ids=PATHS)
def test_a_name_says_engine_sentence_condition_and_rate(row):
    engine, sentence, condition, rate = Path(row["path"]).stem.split("_")
    system = engine if condition == "clean" else f"{engine}-{condition}"
    assert (row["synthesizer"], row["sentence"], row["system"]) == (engine, sentence, system)
    assert soundfile.info(FOLDER / row["path"]).samplerate == float(rate.removesuffix("k")) * 1000


def test_the_rates_of_narrow_to_full_band_delivery_are_all_there():
    rates = {soundfile.info(FOLDER / path).samplerate for path in PATHS}
    assert rates == {16000, 22050, 32000, 48000}


@pytest.mark.parametrize("path", PATHS)
def test_a_clip_is_short_mono_16_bit_flac(path):
    info = soundfile.info(FOLDER / path)
    assert (info.format, info.subtype, info.channels) == ("FLAC", "PCM_16", 1)
    assert 2.5 <= info.duration <= 5


@pytest.mark.parametrize("path", PATHS)
def test_a_clip_is_26_db_below_full_scale_and_its_delivery_clips_nothing(path):
    samples, _ = read_clip(path)
    assert level_db(samples) == pytest.approx(-26, abs=0.01)  # 16 bit round far finer than this
    assert np.abs(samples).max() < 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_degraded_clip_is_noisier_and_narrower_than_the_clean_one(engine, sentence):
    clean, degraded = sorted(path for path in PATHS if path.startswith(f"{engine}_{sentence}_"))
    assert pause_level_db(degraded) > pause_level_db(clean) + 30
    assert share_above_hz(degraded, 4000) < share_above_hz(clean, 4000) / 100


def test_all_clips_together_stay_below_one_and_a_half_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1.5e6
