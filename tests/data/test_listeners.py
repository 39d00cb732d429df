"""Listeners' biases, on ratings simulated with biases that are known."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from voxpanel.data import listeners as room
from voxpanel.data.listeners import without_bias
from voxpanel.records import Rating

N_CLIPS, N_LISTENERS, N_BY_CLIP = 120, 16, 5
NOISE = 0.3


def rating(clip, listener, score, test=None):
    return Rating(Path(f"clip{clip}.wav"), line=2, score=score, listener=listener, test=test)


def simulate(seed):
    """Return ratings, qualities and biases; early clips mostly get the severe listeners.

    Scores are additive and not rounded: clip + listener + noise.
    """
    random = np.random.default_rng(seed)
    quality = random.normal(3, 0.6, N_CLIPS)
    bias = np.sort(random.normal(0, 0.6, N_LISTENERS))
    ratings = []
    for clip in range(N_CLIPS):
        near = np.exp(-0.5 * ((np.arange(N_LISTENERS) / N_LISTENERS - clip / N_CLIPS) / 0.2) ** 2)
        panel = random.choice(N_LISTENERS, N_BY_CLIP, replace=False, p=near / near.sum())
        for listener in panel:
            score = quality[clip] + bias[listener] + random.normal(0, NOISE)
            ratings.append(rating(clip, str(listener), score))
    return ratings, quality, bias


def clip_means(ratings, scores):
    clips = [int(each.path.stem.removeprefix("clip")) for each in ratings]
    return np.bincount(clips, scores) / np.bincount(clips)


@pytest.mark.parametrize("seed", range(5))
def test_biases_of_an_additive_model_are_recovered(seed):
    ratings, _, bias = simulate(seed)
    found = np.array([each.score for each in ratings]) - without_bias(ratings)
    by_listener = np.full(N_LISTENERS, np.nan)
    for each, value in zip(ratings, found, strict=True):
        by_listener[int(each.listener)] = value
    # Which part is the clips' and which is the listeners' is open up to a constant.
    error = (by_listener - by_listener.mean()) - (bias - bias.mean())
    # Some 37 ratings a listener with noise of 0.3 are worth 0.05; errors of the clips come on top.
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert np.std(bias) > 0.4


@pytest.mark.parametrize("seed", range(5))
def test_clips_are_ranked_better_than_by_raw_means_where_panels_differ(seed):
    ratings, quality, _ = simulate(seed)
    raw = clip_means(ratings, [each.score for each in ratings])
    fair = clip_means(ratings, without_bias(ratings))
    assert spearmanr(fair, quality).statistic > spearmanr(raw, quality).statistic + 0.05


def test_two_listeners_a_point_apart_worked_by_hand(monkeypatch):
    monkeypatch.setattr(room, "SHRINKAGE", 0.0)
    ratings = [
        rating(clip, listener, clip + shift)
        for clip in (1, 2, 3)
        for listener, shift in (("kind", 1.0), ("severe", 0.0))
    ]
    expected = [clip + 0.5 for clip in (1, 2, 3) for _ in range(2)]
    assert without_bias(ratings) == pytest.approx(expected)


def test_shrinkage_is_one_rating_of_no_bias_worked_by_hand():
    # Five listeners agree and one, with a single rating, is 6 higher. At the fixed point
    # of clip = mean(score - bias) and bias = sum(score - clip) / (n + 1) with n = 1:
    # clip = 4 - (5 a + b) / 6, a = (3 - clip) / 2, b = (9 - clip) / 2; sum: 5 a + b = 12 - 3 clip.
    # Hence clip = 4 - 2 + clip / 2 = 4, a = -0.5 and b = 2.5.
    ratings = [rating(1, str(listener), 3.0) for listener in range(5)] + [rating(1, "high", 9.0)]
    found = np.array(without_bias(ratings))
    assert found == pytest.approx([3.5] * 5 + [6.5], abs=1e-4)


def test_a_listener_with_one_rating_is_believed_less_than_one_with_many():
    often = [rating(clip, "often", 4.0) for clip in range(30)]
    others = [rating(clip, name, 3.0) for clip in range(31) for name in ("a", "b", "c")]
    ratings = [*often, *others, rating(30, "once", 4.0)]
    taken_out = np.array([each.score for each in ratings]) - without_bias(ratings)
    assert 0 < taken_out[-1] < 0.6 * taken_out[0]


def test_ratings_without_a_listener_are_untouched_amid_others():
    ratings, _, _ = simulate(0)
    anonymous = [rating(clip, None, 2.0) for clip in range(N_CLIPS)]
    found = without_bias([*ratings, *anonymous])
    assert found[len(ratings) :] == [2.0] * N_CLIPS
    assert found[: len(ratings)] != [each.score for each in ratings]


def test_without_any_listener_nothing_changes():
    assert without_bias([rating(1, None, 2.0), rating(1, None, 4.5)]) == [2.0, 4.5]


def test_without_ratings_there_is_nothing_to_do():
    assert without_bias([]) == []


def test_a_listener_is_another_one_in_another_test():
    kind = [rating(clip, "x", 4.0, "A") for clip in range(9)]
    kind += [rating(clip, "y", 2.0, "A") for clip in range(9)]
    severe = [rating(clip, "x", 2.0, "B") for clip in range(9)]
    severe += [rating(clip, "y", 4.0, "B") for clip in range(9)]
    ratings = [*kind, *severe]
    taken_out = np.array([each.score for each in ratings]) - without_bias(ratings)
    assert (taken_out[:9] > 0.5).all()
    assert (taken_out[18:27] < -0.5).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_ratings_does_not_matter(seed):
    ratings, _, _ = simulate(0)
    order = np.random.default_rng(seed).permutation(len(ratings))
    shuffled = without_bias([ratings[i] for i in order])
    assert shuffled == pytest.approx(np.array(without_bias(ratings))[order], abs=1e-9)
