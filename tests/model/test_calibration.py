"""Intervals: they hold as often as they say, and say nothing where there is too little."""

import numpy as np
import pytest
from scipy.stats import expon, norm, t

from voxpanel.errors import DataError
from voxpanel.model.calibration import Calibration, calibrate, conformal_quantile

N_REPETITIONS = 4_000


@pytest.mark.parametrize("n", [19, 40, 100, 500])
@pytest.mark.parametrize(
    "noise", [norm(), t(3), expon()], ids=["normal", "heavy tails", "one-sided"]
)
def test_95_of_100_new_residuals_stay_within_whatever_their_distribution(noise, n):
    random = np.random.default_rng(n)
    drawn = np.abs(noise.rvs((N_REPETITIONS, n), random_state=random))
    widths = np.array([conformal_quantile(residuals) for residuals in drawn])
    within = (noise.cdf(widths) - noise.cdf(-widths)).mean()
    # By theory k / (n + 1) on average, k being the rank taken; its spread over repetitions
    # is at most 0.05 / sqrt(4000) = 0.0008.
    assert within == pytest.approx(np.ceil(0.95 * (n + 1)) / (n + 1), abs=0.003)
    assert 0.95 - 0.003 <= within <= 0.97


def test_simulated_ratings_lie_in_their_intervals():
    random = np.random.default_rng(0)
    inside = []
    for _ in range(300):
        predicted = random.uniform(1.5, 4.5, 400)
        rated = predicted + random.normal(0, 0.4, 400)
        known, new = slice(0, 200), slice(200, 400)
        calibration = calibrate(predicted[known], rated[known], ["one"] * 200, "made up")
        ends = np.array([calibration.interval(score) for score in predicted[new]])
        # Both are cut at the ends of the scale, as a panel's mean is.
        clipped = rated[new].clip(1, 5)
        inside.append(((ends[:, 0] <= clipped) & (clipped <= ends[:, 1])).mean())
    assert 0.945 < np.mean(inside) < 0.96  # 191 / 201 = 0.9502, and its spread 0.001


@pytest.mark.parametrize("n", range(1, 19))
def test_fewer_than_19_residuals_say_nothing(n):
    assert conformal_quantile(np.full(n, 0.1)) == 4.0
    calibration = calibrate(np.full(n, 3.0), np.full(n, 3.1), ["one"] * n, "few")
    assert calibration.interval(2.7) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("n", "rank"), [(19, 19), (20, 20), (38, 38), (39, 38), (59, 57), (99, 95), (1999, 1900)]
)
def test_the_rank_is_the_one_worked_by_hand(n, rank):
    residuals = np.random.default_rng(0).permutation(n) + 1.0  # 1 to n
    assert conformal_quantile(residuals) == rank


def test_an_interval_is_cut_at_the_ends_of_the_scale():
    calibration = Calibration(0.75, 100, None, "")
    assert calibration.interval(3.0) == (2.25, 3.75)
    assert calibration.interval(1.25) == (1.0, 2.0)
    assert calibration.interval(5.0) == (4.25, 5.0)


def test_coverage_leaves_each_group_out_as_worked_by_hand():
    # In 64ths of a MOS: group A is off by 1 to 20, B by 11 to 30.
    off_a, off_b = np.arange(1, 21), np.arange(11, 31)
    predicted = 3 + np.concatenate([off_a, -off_b]) / 64
    groups = ["A"] * 20 + ["B"] * 20
    found = calibrate(predicted, np.full(40, 3.0), groups, "two systems")
    # With 20 residuals the largest counts. A lies whole within B's 30; of B, those from 11 to
    # A's 20: ten. All together, rank ceil(0.95 * 41) = 39 of 40 is 29.
    assert found == Calibration(29 / 64, 40, 30 / 40, "two systems")


def test_coverage_of_groups_that_others_are_too_few_to_judge_is_whole():
    found = calibrate(np.full(20, 3.0), np.full(20, 2.0), ["A"] * 10 + ["B"] * 10, "")
    assert found.coverage == 1.0  # ten residuals say nothing, and the whole scale holds all


def test_one_group_has_no_coverage():
    found = calibrate(np.full(30, 3.0), np.full(30, 2.5), ["A"] * 30, "one system")
    assert found == Calibration(0.5, 30, None, "one system")


def test_groups_are_told_apart_whatever_they_are_named_by():
    off = np.arange(40) / 64
    rated = np.zeros(40)
    by_number = calibrate(off, rated, [1] * 20 + [2] * 20, "")
    by_name = calibrate(off, rated, ["1"] * 20 + ["2"] * 20, "")
    assert by_number == by_name
    assert by_number.coverage is not None


def test_the_order_of_residuals_does_not_matter():
    random = np.random.default_rng(0)
    off = random.exponential(0.3, 60)
    groups = np.repeat(["A", "B", "C"], 20)
    order = random.permutation(60)
    zeros = np.zeros(60)
    assert calibrate(off, zeros, groups, "") == calibrate(off[order], zeros, groups[order], "")


def test_without_a_residual_there_is_no_interval():
    with pytest.raises(DataError, match="no held-out rating to set intervals by; hold out more"):
        calibrate(np.zeros(0), np.zeros(0), [], "nothing")
