"""Training material: who is in it, what is wanted of it, and who never sees whom."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from voxpanel.config import Config, build_config
from voxpanel.data.listeners import without_bias
from voxpanel.errors import DataError, ManifestError
from voxpanel.model.losses import UNKNOWN_CLASS
from voxpanel.records import Rating
from voxpanel.train.material import TRAIN_FOLD, gather, n_members, with_fewer

STAGES = [
    {
        "name": clips,
        "clips": clips,
        "epochs": 1,
        "learning_rate": 1e-3,
        "mos": [1, 1],
        "synthesizer": [0, 0],
    }
    for clips in ("named", "all", "rated")
]
N_FOLDS = 3


def make_config(**groups) -> Config:
    validation = {"folds": N_FOLDS, "members": N_FOLDS}
    return build_config({"validation": validation, "stages": STAGES, **groups}, "here")


def rating(name, score=None, **facts) -> Rating:
    return Rating(Path(f"{name}.wav"), line=2, score=score, **facts)


def corpus(n_sentences=12):
    """Two systems say each sentence, three listeners rate one of them, the other has a name."""
    rows = []
    for number in range(n_sentences):
        sentence = f"s{number}"
        for listener, score in (("x", 4.0), ("y", 3.0), ("z", 2.0)):
            rows.append(
                rating(f"a{number}", score, listener=listener, system="a", sentence=sentence)
            )
        rows.append(rating(f"b{number}", system="b", synthesizer="tts", sentence=sentence))
    return rows


def names(material, rows=None):
    rows = range(len(material.clips)) if rows is None else rows
    return [material.clips[row].path.stem for row in rows]


def test_clips_of_the_test_split_are_left_out():
    rows = [
        rating("a", 3.0, split="train", synthesizer="one"),
        rating("b", 4.0, sentence="s"),
        rating("c", 4.0, sentence="t"),
        rating("t", 5.0, split="test", test="secret", synthesizer="other"),
    ]
    material = gather(rows, make_config())
    assert names(material) == ["a", "b", "c"]
    assert material.test_names == ()
    assert material.synthesizers == ("one",)
    assert material.ratings.tolist() == [3.0, 4.0, 4.0]


def test_without_any_score_there_is_nothing_to_train_on():
    with pytest.raises(ManifestError, match="no row to train on has a score; rate some clips"):
        gather([rating("a"), rating("b", 3.0, split="test")], make_config())


def test_ratings_are_averaged_and_unrated_clips_have_none():
    material = gather(corpus(), make_config())
    assert names(material)[:2] == ["a0", "b0"]
    assert material.ratings[0] == 3.0
    assert math.isnan(material.ratings[1])
    assert math.isnan(material.targets[1])
    assert material.labelled[:2].tolist() == [True, False]
    assert material.targets.dtype == torch.float32


def test_classes_and_tests_are_numbered_in_the_order_of_their_names():
    rows = [
        rating("a", 3.0, synthesizer="world", test="mixed"),
        rating("b", 3.0, synthesizer="griffin", test="16k"),
        rating("c", 3.0),
        rating("d", 3.0, synthesizer="world", test="16k"),
    ]
    material = gather(rows, make_config())
    assert material.synthesizers == ("griffin", "world")
    assert material.classes.tolist() == [1, 0, UNKNOWN_CLASS, 1]
    assert material.test_names == ("16k", "mixed")
    assert material.tests.tolist() == [2, 1, 0, 1]


def test_a_clip_counts_as_much_as_its_listening_test():
    rows = [
        rating("a", 3.0, test="mixed"),
        rating("b", 3.0, test="16k"),
        rating("c", 3.0),
        rating("a", 4.0, test="16k"),
    ]
    weighted = gather(rows, make_config(losses={"test_weights": {"16k": 4.0, "other": 9.0}}))
    assert list(zip(names(weighted), weighted.weights.tolist(), strict=True)) == [
        ("a", 1.0),
        ("b", 4.0),
        ("c", 1.0),
        ("a", 4.0),
    ]
    assert gather(rows, make_config()).weights.tolist() == [1.0] * 4


def test_no_earlier_model_has_said_anything_yet():
    material = gather(corpus(), make_config())
    assert material.prior.shape == material.targets.shape
    assert material.prior.isnan().all()


@pytest.mark.parametrize("seed", range(3))
def test_no_sentence_is_on_both_sides_of_a_fold(seed):
    material = gather(corpus(), make_config(seed=seed))
    assert sorted(set(material.folds.tolist())) == list(range(N_FOLDS))
    sentences = np.array([clip.sentence for clip in material.clips])
    for member in range(N_FOLDS):
        held = material.folds == member
        assert set(sentences[held]).isdisjoint(sentences[~held])
        assert held.sum() == len(material.clips) // N_FOLDS


def test_one_file_in_two_tests_is_never_on_both_sides():
    rows = [rating(f"a{i}", 3.0, test=test) for i in range(9) for test in ("16k", "mixed")]
    material = gather(rows, make_config())
    assert len(material.clips) == 18
    assert (material.folds[0::2] == material.folds[1::2]).all()


def test_a_dev_split_is_the_only_fold():
    rows = [
        rating("a", 3.0, split="train", sentence="s1"),
        rating("b", 3.5, split="dev", sentence="s2"),
        rating("c", 4.0, sentence="s3"),
    ]
    material, config = gather(rows, make_config()), make_config()
    assert material.folds.tolist() == [TRAIN_FOLD, 0, TRAIN_FOLD]
    assert n_members(material, config) == 1
    trained, held = material.rows(config.stages[2], 0)
    assert (names(material, trained), names(material, held)) == (["a", "c"], ["b"])


def test_without_a_dev_split_there_are_as_many_members_as_asked_for():
    config = make_config()
    assert n_members(gather(corpus(), config), config) == N_FOLDS


def test_a_sentence_in_train_and_in_dev_is_refused():
    rows = [
        rating("a", 3.0, split="train", sentence="s1"),
        rating("b", 3.5, split="dev", sentence="s1"),
    ]
    with pytest.raises(DataError, match="group 's1' is in train and in dev; put it in one"):
        gather(rows, make_config())


def test_each_stage_trains_on_its_own_clips_and_never_on_those_held_out():
    config = make_config()
    material = gather(corpus(), config)
    named, every, rated = config.stages
    wanted = {named.name: {"b"}, every.name: {"a", "b"}, rated.name: {"a"}}
    for stage in config.stages:
        seen = []
        for member in range(N_FOLDS):
            trained, held = material.rows(stage, member)
            systems = {material.clips[row].system for row in trained + held}
            assert systems == wanted[stage.name]
            assert (material.folds[trained] != member).all()
            assert (material.folds[held] == member).all()
            seen += held
        # Over all members, every clip of the stage is held out once.
        assert sorted(seen) == sorted(trained + held)


def test_only_rated_clips_are_scored_for_the_calibration():
    material = gather(corpus(), make_config())
    held = material.held_out_ratings(1)
    assert held
    assert all(name.startswith("a") for name in names(material, held))
    assert (material.folds[held] == 1).all()


def uneven():
    """Every clip is rated by a kind or a severe listener, and some by both."""
    rows = []
    for number in range(12):
        if number % 3 != 0:
            rows.append(rating(f"a{number}", 5.0, listener="kind"))
        if number % 3 != 1:
            rows.append(rating(f"a{number}", 3.0, listener="severe"))
    return rows


def test_targets_are_the_plain_means_unless_biases_are_asked_for():
    material = gather(uneven(), make_config())
    np.testing.assert_allclose(material.targets, material.ratings)


def test_biases_are_taken_out_of_the_targets_and_not_of_what_validation_sees():
    rows = uneven()
    material = gather(rows, make_config(losses={"listener_bias": True}))
    plain = gather(rows, make_config())
    np.testing.assert_array_equal(material.ratings, plain.ratings)
    assert np.ptp(plain.ratings) == 2.0
    # All clips are alike, so that only shrinkage keeps their targets apart.
    assert np.ptp(material.targets.numpy()) < 0.8
    corrected = np.array(without_bias(rows))
    first = [row for row, each in enumerate(rows) if each.path.stem == "a2"]
    assert material.targets[2] == pytest.approx(corrected[first].mean())


def test_biases_are_estimated_without_the_test_split():
    rows = uneven()
    secret = [rating(f"t{i}", 1.0, listener="kind", split="test") for i in range(50)]
    secret += [rating(f"t{i}", 5.0, listener="severe", split="test") for i in range(50)]
    config = make_config(losses={"listener_bias": True})
    found, expected = gather([*rows, *secret], config), gather(rows, config)
    assert torch.equal(found.targets, expected.targets)


def test_leaving_clips_out_keeps_every_column_in_step():
    material = gather(corpus(), make_config())
    numbers = torch.arange(len(material.clips), dtype=torch.float32)
    material = replace(material, prior=1 + numbers / 10, weights=numbers)
    keep = np.arange(len(material.clips)) % 5 != 1
    fewer = with_fewer(material, keep)
    places = np.flatnonzero(keep)
    assert names(fewer) == names(material, places)
    np.testing.assert_array_equal(fewer.ratings, material.ratings[places])
    np.testing.assert_array_equal(fewer.targets, material.targets[places])
    np.testing.assert_array_equal(fewer.prior, material.prior[places])
    for column in ("labelled", "weights", "classes", "tests", "folds"):
        assert getattr(fewer, column).tolist() == getattr(material, column)[places].tolist()
    assert fewer.synthesizers == material.synthesizers
