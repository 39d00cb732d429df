"""What decides which epoch is kept, against numbers worked by hand or by scipy."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import small_config
from scipy import stats

from voxpanel.model.network import PanelOutput
from voxpanel.records import Rating
from voxpanel.train.material import gather
from voxpanel.train.validate import predict, validate

# Two systems of three clips and one clip without a system; the last two are not rated.
RATED = [4.0, 4.5, 3.5, 2.0, 2.5, 1.0, None, None]
SCORED = [4.2, 4.0, 3.9, 2.5, 1.5, 2.0, 3.0, 3.0]
SYSTEMS = ["a", "a", "a", "b", "b", "b", "b", None]
NAMES = ["x", "x", "y", "y", None, "x", "y", None]
TOLD = ["x", "y", "y", "x", "x", "x", "y", "x"]  # 4 of the 6 whose name is known
ALL = list(range(len(RATED)))


class Oracle:
    """A panel that says what the test wants; a clip's features are its place."""

    label_mean = torch.tensor(3.0)

    def __init__(self, scores=SCORED, told=TOLD):
        self.scores, self.told = torch.tensor(scores), told
        self.asked = []

    def __call__(self, rows, tests, prior):
        assert len(tests) == len(prior) == len(rows)
        self.asked.append(len(rows))
        logits = torch.tensor([[1.0, 0.0] if self.told[row] == "x" else [0.0, 1.0] for row in rows])
        nothing = torch.empty(len(rows), 0)
        return PanelOutput(self.scores[rows], logits, nothing, nothing)


def make_material(rated=RATED, systems=SYSTEMS, names=NAMES):
    rows = [
        Rating(Path(f"{place}.wav"), place, system=system, score=score, synthesizer=name)
        for place, (score, system, name) in enumerate(zip(rated, systems, names, strict=True))
    ]
    return gather(rows, small_config())


def judge(stage="joint", held=ALL, metric="system_srcc", panel=None, epoch=0, **changes):
    config = small_config(stage, validation={"metric": metric})
    material = make_material(**changes)
    return validate(panel or Oracle(), list, material, held, config.stages[0], config, epoch)


def test_utterances_are_compared_with_their_mean_ratings():
    found = judge().utterance
    x, y = np.array(SCORED[:6]), np.array(RATED[:6])
    assert found.n == 6
    assert found.mse == pytest.approx(((x - y) ** 2).mean())
    assert found.lcc == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.srcc == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.ktau == pytest.approx(stats.kendalltau(x, y).statistic)


def test_systems_are_compared_by_their_means():
    found = judge().system
    assert found.n == 2
    # a: 12.1 / 3 scored and 12 / 3 rated; b: 6 / 3 and 5.5 / 3.
    assert found.mse == pytest.approx(((0.1 / 3) ** 2 + (0.5 / 3) ** 2) / 2)
    assert found.srcc == pytest.approx(1.0)


def test_accuracy_is_over_the_clips_whose_synthesizer_is_known():
    found = judge()
    assert (found.n_named, found.accuracy) == (6, pytest.approx(4 / 6))


def test_only_held_out_clips_are_judged():
    found = judge(held=[0, 1, 3])
    assert found.utterance.mse == pytest.approx((0.2**2 + 0.5**2 + 0.5**2) / 3)
    assert (found.n_named, found.accuracy) == (3, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("system_srcc", lambda found: (1.0, -found.system.mse, found.utterance.lcc)),
        ("utterance_lcc", lambda found: (found.utterance.lcc, -found.utterance.mse)),
        ("utterance_mse", lambda found: (-found.utterance.mse,)),
    ],
)
def test_the_key_is_what_the_setting_names(metric, expected):
    found = judge(metric=metric)
    assert found.key == pytest.approx(expected(found))


def test_equal_rank_correlations_tie_to_the_last_bit():
    orders = [[1.0, 2.0, 3.0], [1.0, 3.0, 9.0], [0.1, 0.2, 0.7]]
    three = {"rated": [1.0, 2.0, 3.0], "systems": list("abc"), "names": list("xyx")}
    keys = [judge(panel=Oracle(scores), held=[0, 1, 2], **three).key for scores in orders]
    assert [key[0] for key in keys] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("metric", ["system_srcc", "utterance_lcc", "utterance_mse"])
def test_nearer_scores_have_a_larger_key(metric):
    near = [score and score + 0.01 * place for place, score in enumerate(RATED)]
    perfect = Oracle([3.0 if score is None else score for score in near])
    assert judge(metric=metric, panel=perfect).key > judge(metric=metric).key


def test_the_last_epoch_is_the_best_where_that_is_asked_for():
    perfect = Oracle([3.0 if score is None else score for score in RATED])
    early = judge(metric="last", panel=perfect, epoch=3)
    late = judge(metric="last", epoch=4)
    assert late.key > early.key
    assert early.utterance.mse < late.utterance.mse  # which is told all the same
    assert judge("classes", metric="last", held=[], epoch=5).key > late.key


def test_a_stage_that_learns_classes_only_is_judged_by_them():
    assert judge("classes").key == (pytest.approx(4 / 6),)


def test_without_two_ratings_classes_decide():
    found = judge(held=[0, 6, 7])
    assert found.utterance is found.system is None
    assert found.key == (1.0,)


def test_clips_without_a_system_count_as_one():
    found = judge(systems=[None] * 8)
    assert found.system.n == 1
    assert math.isnan(found.key[0])
    assert found.key[1] == pytest.approx(-(((18.1 - 17.5) / 6) ** 2))


def test_the_log_has_plain_numbers_and_none_for_what_is_undefined():
    entry = judge(systems=[None] * 8).entry()
    assert entry["dev_utterance_n"] == 6
    assert entry["dev_system_n"] == 1
    assert entry["dev_system_srcc"] is None
    assert entry["dev_accuracy"] == pytest.approx(4 / 6)
    measures = [f"{level}_{name}" for level in ("utterance", "system") for name in
                ("n", "mse", "lcc", "srcc", "ktau")]  # fmt: skip
    assert entry.keys() == {f"dev_{name}" for name in ["accuracy", "n_named", *measures]}


def test_the_log_of_clips_without_ratings_is_about_classes():
    assert judge("classes", held=[6, 7]).entry() == {"dev_accuracy": 1.0, "dev_n_named": 1}


def test_nothing_held_out_judges_nothing():
    found = judge(held=[])
    assert (found.utterance, found.n_named) == (None, 0)
    assert math.isnan(found.key[0])
    assert found.entry() == {"dev_accuracy": None, "dev_n_named": 0}


def test_many_clips_are_asked_about_in_parts():
    panel = Oracle([1.0 + 0.01 * place for place in range(150)], ["x"] * 150)
    material = make_material([3.0] * 150, ["a"] * 150, ["x", "y"] * 75)
    scores, logits = predict(panel, list, material, list(range(149, -1, -1)))
    assert panel.asked == [64, 64, 22]
    assert scores == pytest.approx(np.arange(249, 99, -1) / 100)
    assert logits.shape == (150, 2)
