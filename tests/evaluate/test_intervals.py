"""The clustered bootstrap: each draw against the enlarged data, coverage, edge cases."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from voxpanel.errors import DataError
from voxpanel.evaluate import intervals
from voxpanel.evaluate.intervals import bootstrap_systems, percentiles, weighted_ranks

NAMES = ("mse", "lcc", "srcc", "ktau")


def ratings(n_systems, n_each, seed=0, step=0.25):
    """Predicted and rated scores with system effects and, by rounding, many ties."""
    generator = np.random.default_rng(seed)
    quality = np.repeat(generator.normal(3, 0.7, n_systems), n_each)
    pair = quality + generator.normal(0, 0.4, (2, len(quality)))
    predicted, rated = np.round(pair / step) * step
    return predicted, rated, [f"S{i // n_each}" for i in range(len(quality))]


def written_out(predicted, rated, systems, counts):
    """Compute the metrics of one draw by scipy, on the data with every copy in it."""
    names = list(dict.fromkeys(systems))
    chosen = [
        item
        for system, count in zip(names, counts, strict=True)
        for _ in range(count)
        for item in np.flatnonzero(np.array(systems) == system)
    ]
    x, y = predicted[chosen], rated[chosen]
    correlations = (stats.pearsonr, stats.spearmanr, stats.kendalltau)
    return [np.mean((x - y) ** 2), *(correlate(x, y).statistic for correlate in correlations)]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("n_cells", [150, 4_000_000])  # in blocks, and at once
def test_every_draw_is_that_of_the_data_written_out(monkeypatch, shuffled, n_cells):
    predicted, rated, systems = ratings(n_systems=8, n_each=5)
    if shuffled:
        order = np.random.default_rng(1).permutation(len(systems))
        predicted, rated, systems = predicted[order], rated[order], [systems[i] for i in order]
    draws = []
    monkeypatch.setattr(intervals, "N_CELLS", n_cells)
    monkeypatch.setattr(intervals, "percentiles", lambda d: draws.append(d) or percentiles(d))
    bootstrap_systems(predicted, rated, systems, n_draws=30, seed=3)
    counts = np.random.default_rng(3).multinomial(8, [1 / 8] * 8, size=30)
    expected = [written_out(predicted, rated, systems, row) for row in counts]
    np.testing.assert_allclose(np.array(draws).T, expected, atol=1e-12)


def test_ranks_are_scipy_s_where_everything_occurs_once():
    values, _, _ = ratings(n_systems=10, n_each=5)
    assert weighted_ranks(values, np.ones((1, 50)))[0].tolist() == stats.rankdata(values).tolist()


def test_the_ends_are_percentiles_of_the_draws():
    assert percentiles(np.arange(0.0, 1001.0)) == (25.0, 975.0)


def test_without_systems_each_item_is_drawn_by_itself():
    predicted, rated, _ = ratings(n_systems=30, n_each=1)
    alone = bootstrap_systems(predicted, rated)
    assert alone == bootstrap_systems(predicted, rated, [str(i) for i in range(30)])
    assert alone.n_systems == 30


def test_a_seed_gives_the_same_intervals_again_and_another_gives_others():
    data = ratings(n_systems=12, n_each=4)
    assert bootstrap_systems(*data, seed=1) == bootstrap_systems(*data, seed=1)
    assert bootstrap_systems(*data, seed=1) != bootstrap_systems(*data, seed=2)


def test_drawing_systems_promises_less_than_drawing_utterances():
    predicted, rated, systems = ratings(n_systems=15, n_each=20)
    by_system = bootstrap_systems(predicted, rated, systems)
    by_utterance = bootstrap_systems(predicted, rated)
    for name in ("lcc", "srcc", "ktau"):
        wide, narrow = getattr(by_system, name), getattr(by_utterance, name)
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """LCC of 60 systems: the truth is the ratio of variances, .49 / (.49 + .16)."""
    truth = 0.49 / 0.65
    hits = 0
    for seed in range(200):
        predicted, rated, systems = ratings(60, 1, seed=seed, step=1e-6)
        low, high = bootstrap_systems(predicted, rated, systems, n_draws=200).lcc
        hits += low <= truth <= high
    # 95 % of 200 is 190, standard deviation 3; the percentile bootstrap covers a bit less.
    assert 178 <= hits <= 198


def test_one_system_has_no_intervals():
    one = bootstrap_systems([1.0, 2.0], [1.0, 3.0], ["A", "A"])
    assert all(math.isnan(end) for name in NAMES for end in getattr(one, name))


def test_a_constant_has_an_interval_of_its_error_only():
    result = bootstrap_systems([3.0] * 4, [1.0, 2.0, 3.0, 5.0])
    assert not math.isnan(result.mse.low)
    assert all(math.isnan(getattr(result, name).low) for name in ("lcc", "srcc", "ktau"))


def test_correlations_that_few_draws_define_have_no_interval():
    """Three systems of one clip: every ninth draw holds one clip only."""
    result = bootstrap_systems([0.1, 0.7, 0.9], [0.7, 0.1, 0.5])  # three copies average unevenly
    assert math.isnan(result.lcc.low)
    assert not math.isnan(result.mse.low)


def test_wrong_requests_are_refused():
    with pytest.raises(DataError, match="must pair up: got 2 and 1"):
        bootstrap_systems([1.0, 2.0], [1.0, 2.0], ["A"])
    with pytest.raises(DataError, match="n_draws is 0"):
        bootstrap_systems([1.0, 2.0], [1.0, 2.0], n_draws=0)


def test_a_thousand_utterances_take_seconds_not_minutes():
    data = ratings(n_systems=190, n_each=5, step=0.125)
    start_s = time.process_time()
    bootstrap_systems(*data)
    assert time.process_time() - start_s < 10  # 0.7 s where nothing else runs
