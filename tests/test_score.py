"""Scorer: the same clip gets the same score, however it comes; rows stay in order."""

import itertools
import weakref
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hostile import RATE_HZ, voice, wav_bytes

from voxpanel import score
from voxpanel.audio import from_array
from voxpanel.errors import AudioError, CheckpointError, ConfigError
from voxpanel.features.extract import ClipInput
from voxpanel.measure import FLAGS
from voxpanel.score import Scorer, batches_of_like_length

# What float32 sums in another order leave was 5e-5; a table shows three decimals.
TOLERANCE = 1e-3
SECONDS = (0.3, 12.0, 1.0, 0.5, 5.0, 0.3, 2.5, 0.7, 0.9, 1.2, 3.0, 1.5, 2.0, 4.0, 0.4, 1.1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Sixteen files of 0.3-12 s, each another voice."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for seed, seconds in enumerate(SECONDS):
        made.append(str(folder / f"{seed}.wav"))
        soundfile.write(made[-1], voice(seconds, seed=seed), RATE_HZ, subtype="FLOAT")
    return made


@pytest.fixture(scope="module")
def alone(scorer, paths):
    """Each file's score, one call a file."""
    return [scorer.score(path) for path in paths]


@pytest.fixture(scope="module")
def short_paths(tmp_path_factory):
    """Twelve files of 0.4-0.6 s."""
    folder = tmp_path_factory.mktemp("short")
    made = [str(folder / f"{seed}.wav") for seed in range(12)]
    for seed, path in enumerate(made):
        soundfile.write(path, voice(0.4 + 0.2 * (seed % 2), seed=seed), RATE_HZ)
    return made


@pytest.fixture
def threads():
    """Return `torch.set_num_threads`; what was set is set again afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_same(found, expected):
    """Compare rows: numbers out of the network within `TOLERANCE`, all else exactly."""
    numbers = ("mos", "mos_low", "mos_high", "synthesizer_p", "gates")
    blank = dict.fromkeys(numbers)
    for one, other in zip(found, expected, strict=True):
        for name in numbers:
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=TOLERANCE), name
        assert replace(one, **blank) == replace(other, **blank)


def test_different_clips_get_different_scores(alone):
    scores = [row.mos for row in alone]
    assert min(scores) >= 1
    assert max(scores) <= 5
    assert np.std(scores) > 100 * TOLERANCE  # or the claims below would say nothing


def test_a_clip_gets_the_same_score_alone_and_in_a_batch_of_mixed_lengths(
    scorer, paths, alone, monkeypatch
):
    monkeypatch.setattr(score, "BATCH_S", np.inf)
    assert_same(scorer.score_many(paths), alone)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_files_does_not_matter(scorer, paths, alone, seed):
    order = 6 + np.random.default_rng(seed).permutation(7)
    found = scorer.score_many([paths[place] for place in order])
    assert_same(found, [alone[place] for place in order])


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_number_of_threads_does_not_matter(scorer, paths, alone, threads, n_threads):
    threads(n_threads)
    assert_same([scorer.score(path) for path in paths[6:8]], alone[6:8])


def test_a_score_repeats_to_the_last_bit(scorer, paths, alone):
    assert [scorer.score(path) for path in paths[6:10]] == alone[6:10]


def test_a_path_its_bytes_and_its_samples_get_the_same_score(scorer, tmp_path):
    samples = voice(1.0)
    path = tmp_path / "talk.wav"
    path.write_bytes(wav_bytes(samples, subtype="FLOAT"))
    from_path = scorer.score(path)
    assert from_path.path == str(path)
    assert scorer.score(str(path)) == from_path
    assert scorer.score(path.read_bytes()) == replace(from_path, path="<bytes>")
    assert scorer.score(samples, rate_hz=RATE_HZ) == replace(from_path, path="<array>")
    assert scorer.score(samples.astype(np.float64), rate_hz=RATE_HZ).mos == from_path.mos
    assert scorer.score(samples[None], rate_hz=RATE_HZ).mos == from_path.mos


def test_a_row_says_all_that_is_known(scorer, alone, paths):
    row = alone[2]
    assert (row.path, row.system, row.error) == (paths[2], None, None)
    assert (row.sample_rate_hz, row.duration_s) == (RATE_HZ, 1.0)
    assert 0 < row.bandwidth_hz <= RATE_HZ / 2
    assert 0 < row.speech_s <= 1.0
    assert row.model == scorer.model_id
    assert row.synthesizer in scorer.record.synthesizers
    assert 1 / 3 <= row.synthesizer_p <= 1  # the likeliest of three
    assert len(row.gates) == scorer.n_gates == 8  # four experts in each of two panels
    assert sum(row.gates) == pytest.approx(1)


def test_the_interval_is_the_calibrated_one_cut_at_the_ends_of_the_scale(alone):
    for row in alone:
        if "non-speech" not in row.flags:
            assert row.mos_low == max(1, row.mos - 0.5)  # `small_record` has 0.5
            assert row.mos_high == min(5, row.mos + 0.5)


def test_a_short_clip_is_flagged(alone):
    assert [("short" in row.flags) for row in alone] == [seconds < 1 for seconds in SECONDS]
    assert {flag for row in alone for flag in row.flags} <= set(FLAGS)


def test_scores_of_many_come_in_the_order_of_the_paths(scorer, paths):
    asked = [paths[6], "gone.wav", paths[0], paths[6], "gone.wav", paths[3]]
    rows = list(scorer.score_many(asked))
    assert [row.path for row in rows] == asked
    assert [row.error is None for row in rows] == [True, False, True, True, False, True]
    assert_same(rows[:1], rows[3:4])


def test_systems_go_by_the_path_as_given(scorer, paths):
    systems = {paths[0]: "A", "gone.wav": "B"}
    rows = scorer.score_many([paths[0], paths[3], "gone.wav"], systems=systems)
    assert [row.system for row in rows] == ["A", None, "B"]


def test_no_more_paths_are_taken_than_a_window_ahead(scorer):
    taken = itertools.count()
    endless = (f"gone-{next(taken)}.wav" for _ in itertools.repeat(None))
    rows = scorer.score_many(endless)
    assert next(taken) == 0  # nothing before the first row is asked for
    for place, row in enumerate(itertools.islice(rows, 3 * score.WINDOW), start=1):
        assert row.path == f"gone-{place}.wav"
        n_taken = next(taken)
        taken = itertools.count(n_taken)
        assert n_taken - place <= score.WINDOW


def test_no_more_clips_are_held_than_a_window_has(fast_scorer, short_paths, monkeypatch):
    monkeypatch.setattr(score, "WINDOW", 4)
    alive = weakref.WeakSet()
    most = 0

    def count_clips(*args):
        nonlocal most
        clip = ClipInput(*args)
        alive.add(clip)
        most = max(most, len(alive))
        return clip

    monkeypatch.setattr("voxpanel.features.extract.ClipInput", count_clips)
    assert len(list(fast_scorer.score_many(short_paths))) == len(short_paths)
    assert most == 4


def test_windows_do_not_show(fast_scorer, short_paths, monkeypatch):
    whole = list(fast_scorer.score_many(short_paths))
    monkeypatch.setattr(score, "WINDOW", 5)
    assert_same(fast_scorer.score_many(short_paths), whole)


def test_no_paths_are_no_rows(fast_scorer):
    assert list(fast_scorer.score_many([])) == []


def test_where_memory_runs_out_only_the_clip_that_is_too_long_loses_its_score(
    fast_scorer, short_paths, monkeypatch
):
    whole = list(fast_scorer.score_many(short_paths))
    network = fast_scorer.network
    listen = network.listen

    def listen_to_little(clips, tests):
        if len(clips) > 4:
            raise MemoryError
        if max(len(clip.samples) for clip in clips) > 0.5 * RATE_HZ:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB\nand more")
        return listen(clips, tests)

    monkeypatch.setattr(network, "listen", listen_to_little)
    rows = list(fast_scorer.score_many(short_paths))
    assert_same(rows[::2], whole[::2])
    assert [row.mos for row in rows[1::2]] == [None] * 6
    assert {row.error for row in rows[1::2]} == {
        "the network failed (tried to allocate 9 GiB); "
        "if it is the memory, cut the clip into shorter ones"
    }


def test_a_listening_test_is_answered_for_by_name(scorer, paths):
    assert scorer.test_names == ("studio", "crowd")
    scores = [scorer.score(paths[2], test=test).mos for test in (None, "studio", "crowd")]
    assert len(set(scores)) == 3
    (row,) = scorer.score_many([paths[2]], test="crowd")
    assert row.mos == scores[2]


def test_an_unknown_listening_test_is_refused_with_those_that_are_known(scorer, paths):
    message = r"test 'panel': the model small 0\.1 \w{12} knows studio, crowd"
    with pytest.raises(ConfigError, match=message):
        scorer.score(paths[0], test="panel")
    with pytest.raises(ConfigError, match=message):
        next(scorer.score_many(paths, test="panel"))


def test_an_array_needs_its_rate_and_a_file_has_its_own(scorer, paths):
    with pytest.raises(AudioError, match="an array has no rate of its own; give rate_hz"):
        scorer.score(voice(1.0))
    with pytest.raises(AudioError, match="rate_hz is for arrays; a file says its own rate"):
        scorer.score(paths[0], rate_hz=RATE_HZ)


def test_a_clip_with_hardly_any_speech_keeps_its_score_with_the_whole_scale(
    fast_scorer, monkeypatch
):
    plain = fast_scorer.score(voice(1.0), rate_hz=RATE_HZ)
    assert plain.mos_high - plain.mos_low <= 1
    monkeypatch.setattr("voxpanel.measure.speech_duration", lambda *_: 0.1)
    row = fast_scorer.score(voice(1.0), rate_hz=RATE_HZ)
    assert row.mos == plain.mos
    assert (row.mos_low, row.mos_high, row.flags) == (1, 5, ("non-speech",))


@pytest.mark.parametrize(
    ("probability", "speech_share", "flag"),
    [
        (0.4, 0.5, None),
        (0.6, 0.5, "non-speech"),
        (0.6, 0.89, "non-speech"),
        (0.6, 0.91, "speech-in-doubt"),  # it sounds like speech all along: noise over speech
        (0.89, 1.0, "speech-in-doubt"),
        (0.91, 1.0, "non-speech"),  # believed, whatever it sounds like
    ],
)
def test_what_the_model_itself_takes_for_no_speech_is_flagged(
    fast_scorer, monkeypatch, probability, speech_share, flag
):
    clip = voice(1.0)
    active_s = fast_scorer.hear("", from_array(clip, RATE_HZ), None).clip.measurements.activity
    assert 0.7 < active_s < 0.95  # of the clip's second: the share is of that and not of all
    monkeypatch.setattr("voxpanel.measure.speech_duration", lambda *_: speech_share * active_s)
    network = fast_scorer.network
    listen = network.listen

    def doubt(clips, tests):
        rest = (1 - probability) / 2
        return listen(clips, tests)._replace(synthesizers=torch.tensor([[rest, rest, probability]]))

    monkeypatch.setattr(network, "listen", doubt)
    row = fast_scorer.score(clip, rate_hz=RATE_HZ)
    assert row.synthesizer == "non-speech"
    assert [name for name in row.flags if "speech" in name] == ([flag] if flag else [])
    assert ((row.mos_low, row.mos_high) == (1, 5)) == (flag is not None)


def test_flags_stay_in_their_documented_order_and_single(fast_scorer, monkeypatch):
    listen = fast_scorer.network.listen
    certain = torch.tensor([[0.0, 0.0, 1.0]])
    monkeypatch.setattr(
        fast_scorer.network,
        "listen",
        lambda clips, tests: listen(clips, tests)._replace(synthesizers=certain),
    )
    row = fast_scorer.score(np.tile(voice(0.5), (2, 1)), rate_hz=RATE_HZ)
    assert row.flags == ("non-speech", "short", "multichannel")
    assert list(row.flags) == [name for name in FLAGS if name in row.flags]


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: not there"):
        Scorer.load(tmp_path)


def test_a_device_that_is_not_there_is_refused(small_model):
    with pytest.raises(CheckpointError, match=r"device 'warp': .*; try cpu"):
        Scorer.load(small_model, device="warp")


@pytest.mark.parametrize("budget", [10, 30, 1_000])
def test_batches_hold_every_clip_once_and_keep_within_the_budget(budget):
    lengths = dict(enumerate(np.random.default_rng(0).integers(1, 40, 50).tolist()))
    batches = list(batches_of_like_length(lengths, budget))
    assert sorted(itertools.chain(*batches)) == list(lengths)
    for batch in batches:
        padded = max(lengths[place] for place in batch) * len(batch)
        assert padded <= budget or len(batch) == 1
    longest = [max(lengths[place] for place in batch) for batch in batches]
    shortest = [min(lengths[place] for place in batch) for batch in batches]
    assert all(above >= below for above, below in zip(shortest[1:], longest, strict=False))


def test_no_clips_are_no_batches():
    assert list(batches_of_like_length({}, 10)) == []
