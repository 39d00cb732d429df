"""The four metrics against scipy, closed forms and hand-worked cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from voxpanel.errors import DataError
from voxpanel.evaluate.metrics import ktau, lcc, metrics, mse, srcc

# Quarters: ties are common, and sums are exact.
PAIRS = st.lists(
    st.tuples(st.integers(4, 20), st.integers(4, 20)).map(lambda p: (p[0] / 4, p[1] / 4)),
    min_size=2,
    max_size=40,
)


def test_a_hand_worked_case():
    """Six pairs: four in the same order, one against it, one tied in the ratings."""
    result = metrics([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 3.0])
    assert result.n == 4
    assert result.mse == 0.75  # (0 + 1 + 1 + 1) / 4
    assert result.lcc == pytest.approx(2.5 / math.sqrt(5 * 2.75))
    assert result.srcc == pytest.approx(3.0 / math.sqrt(5 * 4.5))  # ranks 1, 3.5, 2, 3.5
    assert result.ktau == pytest.approx((4 - 1) / math.sqrt(6 * 5))
    assert result.undefined is None


@given(PAIRS)
def test_metrics_are_those_of_scipy(pairs):
    x, y = np.array(pairs).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    expected = [stats.pearsonr(x, y)[0], stats.spearmanr(x, y)[0], stats.kendalltau(x, y)[0]]
    assert [lcc(x, y), srcc(x, y), ktau(x, y)] == expected
    assert mse(x, y) == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / len(pairs))


@given(PAIRS)
def test_srcc_and_ktau_see_only_the_order(pairs):
    x, y = np.array(pairs).T
    for metric in (srcc, ktau):
        assert metric(np.exp(x), y**3) == pytest.approx(metric(x, y), nan_ok=True)


@pytest.mark.parametrize(
    ("predicted", "rated", "reason"),
    [
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0], "the predicted scores are all 3, and a constant"),
        ([1.0, 2.0, 3.0], [2.5, 2.5, 2.5], "the rated scores are all 2.5, and a constant"),
        ([0.1 + 0.2, 0.3], [1.0, 2.0], "the predicted scores are all 0.3"),  # rounding only
        ([3.0], [4.0], "one pair has no correlation"),
    ],
)
def test_a_correlation_that_does_not_exist_is_nan_and_says_why(predicted, rated, reason):
    result = metrics(predicted, rated)
    assert all(math.isnan(value) for value in (result.lcc, result.srcc, result.ktau))
    assert reason in result.undefined
    assert result.mse == pytest.approx(np.mean((np.array(predicted) - rated) ** 2))


@pytest.mark.parametrize("metric", [mse, lcc, srcc, ktau, metrics])
@pytest.mark.parametrize(
    ("predicted", "rated", "message"),
    [
        ([1.0, math.nan], [1.0, 2.0], "predicted score 1 is nan; drop the pair first"),
        ([1.0, 2.0], [math.inf, 2.0], "rated score 0 is inf"),
        ([1.0, 2.0], [1.0], "predicted and rated must pair up: got 2 and 1 scores"),
        ([], [], "no pair of a predicted and a rated score"),
        ([[1.0, 2.0]], [1.0, 2.0], r"predicted scores have shape \(1, 2\); give one dimension"),
        (["good"], [1.0], "predicted scores are not numbers"),
    ],
)
def test_what_is_no_pair_of_scores_is_refused(metric, predicted, rated, message):
    with pytest.raises(DataError, match=message):
        metric(predicted, rated)


def test_float32_and_lists_give_the_numbers_of_float64():
    x, y = [1.5, 2.25, 3.0], [1.0, 3.5, 2.0]  # all exact in float32
    assert metrics(np.float32(x), np.float32(y)) == metrics(x, y)
