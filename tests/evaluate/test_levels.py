"""Utterances to systems: means by hand, and a published challenge's condition means."""

import json
import math
import random

import pytest

from voxpanel.errors import DataError
from voxpanel.evaluate import evaluate
from voxpanel.evaluate.levels import evaluate_levels, system_means
from voxpanel.evaluate.metrics import METRICS

SCORES = [4.0, 2.0, 3.5, 1.0, 5.0, 3.0]
SYSTEMS = ["A", "A", "B", "C", "C", "C"]

# AudioMOS Challenge 2025, track 3: means per condition in train, dev and eval; the
# first value of a row is the condition's sampling rate in kHz.
CONDITIONS = """
16 original   3.943 3.493 3.563
16 nv         3.733 3.390 3.437
16 tts        3.270 2.950 2.983
16 world      2.197 1.917 1.727
24 original   3.863 3.797 4.077
24 originalSR 3.787 3.720 3.963
24 nv         3.853 3.687 3.960
24 nvSR       3.707 3.613 3.837
24 tts        3.203 3.153 3.330
24 ttsSR      3.143 3.170 3.440
24 world      2.170 2.187 2.220
24 worldSR    2.003 2.007 1.867
48 original   3.920 4.020 4.340
48 originalSR 3.600 3.600 4.220
48 nv         3.760 3.840 4.260
48 nvSR       3.820 3.620 4.060
48 tts        3.540 3.360 4.140
48 ttsSR      3.640 3.500 3.800
48 world      2.160 2.100 2.180
48 worldSR    2.160 2.220 2.140
"""
ROWS = [line.split() for line in CONDITIONS.strip().splitlines()]
TRAIN, DEV, EVAL = ([float(row[column]) for row in ROWS] for column in (2, 3, 4))
# Heard beside 24 and 48 kHz, the 16 kHz clips lose 0.35.
LOWERED = [mean - 0.35 * (row[0] == "16") for row, mean in zip(ROWS, TRAIN, strict=True)]


def test_matches_the_means_worked_by_hand():
    assert system_means(SCORES, SYSTEMS) == {"A": 3.0, "B": 3.5, "C": 3.0}


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_utterances_does_not_matter(seed):
    order = random.Random(seed).sample(range(6), 6)
    shuffled = system_means([SCORES[i] for i in order], [SYSTEMS[i] for i in order])
    assert shuffled == system_means(SCORES, SYSTEMS)


def test_systems_come_in_order_of_first_appearance():
    assert list(system_means([1.0, 2.0, 3.0], ["Z", "A", "Z"])) == ["Z", "A"]


def test_a_missing_score_is_refused_by_row_and_system():
    with pytest.raises(DataError, match=r"row 1 \(system 'B'\): score is nan"):
        system_means([3.0, math.nan], ["A", "B"])


def test_systems_of_another_length_are_refused():
    with pytest.raises(DataError, match="must pair up: got 2 and 1"):
        system_means([3.0, 4.0], ["A"])


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (TRAIN, (0.101, 0.945, 0.748, 0.575)),
        (DEV, (0.100, 0.980, 0.904, 0.811)),
        (LOWERED, (0.075, 0.981, 0.881, 0.776)),
    ],
)
def test_the_challenge_s_condition_means_give_the_known_metrics(predicted, expected):
    conditions = [f"{rate}_{method}" for rate, method, *_ in ROWS]
    system = evaluate_levels(predicted, EVAL, conditions).system
    found = (system.mse, system.lcc, system.srcc, system.ktau)
    # The means are given to 3 digits, and so are the expected values.
    assert found == pytest.approx(expected, abs=6e-4)
    assert system.n == 20


def test_the_system_level_compares_the_means_of_both():
    evaluation = evaluate_levels(SCORES, [3.0, 1.0, 2.0, 3.0, 4.0, 5.0], SYSTEMS)
    assert evaluation.utterance.n == 6
    assert evaluation.utterance.mse == pytest.approx((1 + 1 + 2.25 + 4 + 1 + 4) / 6)
    assert evaluation.system.n == 3
    # Means: predicted 3, 3.5, 3; rated 2, 2, 4.
    assert evaluation.system.mse == pytest.approx((1 + 2.25 + 1) / 3)


def test_without_systems_there_is_no_system_level():
    assert evaluate_levels([1.0, 2.0], [1.0, 2.0]).system is None


def test_as_dict_has_the_promised_shape():
    shape = evaluate(SCORES, [3.0, 1.0, 2.0, 3.0, 4.0, 5.0], systems=SYSTEMS).as_dict()
    assert list(shape) == ["utterance", "system"]
    for level, n in (("utterance", 6), ("system", 3)):
        assert list(shape[level]) == ["n", *METRICS]
        assert shape[level]["n"] == n
        assert all(list(shape[level][metric]) == ["value", "low", "high"] for metric in METRICS)


def test_as_dict_is_valid_json_where_a_metric_is_undefined():
    shape = evaluate_levels([3.0, 3.0], [1.0, 2.0]).as_dict()
    assert json.loads(json.dumps(shape, allow_nan=False)) == shape
    assert shape["utterance"]["lcc"] == {"value": None, "low": None, "high": None}
    assert shape["utterance"]["mse"] == {"value": 2.5, "low": None, "high": None}
    assert shape["system"] is None
