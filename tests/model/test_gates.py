import math

import numpy as np
import pytest
import scipy.stats

from voxpanel.errors import DataError
from voxpanel.model.gates import by_group, gate_report


def test_usage_and_winners_are_worked_by_hand():
    report = gate_report([[0.7, 0.2, 0.1], [0.6, 0.4, 0.0], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    assert report.n_utterances == 4
    assert report.usage == pytest.approx((0.5, 0.3, 0.2))
    assert report.winners == (0.75, 0.0, 0.25)


def test_entropies_are_scipys():
    weights = np.random.default_rng(0).dirichlet(np.ones(5), size=50)
    report = gate_report(weights)
    assert report.mean_entropy == pytest.approx(scipy.stats.entropy(weights, axis=1).mean())
    assert report.n_effective == pytest.approx(math.exp(scipy.stats.entropy(weights.mean(axis=0))))


def test_a_collapsed_gate_has_one_effective_expert_and_names_the_dead():
    report = gate_report(np.tile([0.0, 1.0, 0.0], (4, 1)))
    assert report.n_effective == pytest.approx(1)
    assert report.mean_entropy == 0
    assert report.dead == (1, 3)


def test_experts_used_in_turn_are_all_effective_though_each_gate_is_sharp():
    report = gate_report(np.eye(4))
    assert report.n_effective == pytest.approx(4)
    assert report.mean_entropy == 0
    assert report.dead == ()


@pytest.mark.parametrize(("usage", "dead"), [(0.04, (2,)), (0.06, ())])
def test_an_expert_is_dead_below_a_tenth_of_its_equal_share(usage, dead):
    assert gate_report([[1 - usage, usage]]).dead == dead  # the equal share is 0.5


def test_one_expert_alone_is_well():
    report = gate_report(np.ones((3, 1)))
    assert (report.usage, report.n_effective, report.dead) == ((1.0,), 1.0, ())


def test_the_first_of_equal_gates_wins():
    assert gate_report([[0.5, 0.5]]).winners == (1.0, 0.0)


def test_groups_are_averaged_in_order_of_appearance():
    weights = [[1.0, 0.0], [0.2, 0.8], [0.5, 0.5], [0.4, 0.6]]
    means = by_group(weights, ["tts", "world", "tts", "world"])
    assert list(means) == ["tts", "world"]
    assert means["tts"] == pytest.approx([0.75, 0.25])
    assert means["world"] == pytest.approx([0.3, 0.7])


def test_groups_must_pair_with_weights():
    with pytest.raises(DataError, match="must pair up: got 2 and 1"):
        by_group([[1.0], [1.0]], ["A"])


@pytest.mark.parametrize("row", [[0.5, 0.4], [1.5, -0.5], [math.nan, 1.0]])
def test_a_row_that_is_no_gate_is_refused_by_number(row):
    with pytest.raises(DataError, match=r"weights row 1: .* is no gate"):
        gate_report([[0.5, 0.5], row])


def test_gates_rounded_to_three_decimals_are_accepted():
    assert gate_report([[0.143] * 7]).n_effective == pytest.approx(7, abs=0.05)


@pytest.mark.parametrize("weights", [[], [0.5, 0.5], np.zeros((0, 4))])
def test_no_utterance_and_other_shapes_are_refused(weights):
    with pytest.raises(DataError, match=r"weights must be \[N, E\] with one row or more"):
        gate_report(weights)
