"""Folds and held-out parts: nothing leaks, everything is dealt out, sizes are fair."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxpanel.data.splits import check_no_leak, folds, group_keys, hold_out
from voxpanel.errors import ConfigError, DataError
from voxpanel.records import Clip

GROUPS = st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh")), min_size=2, max_size=60)


def n_groups(groups):
    return len(set(groups) - {None}) + groups.count(None)


def largest_group(groups):
    return max([1, *Counter(group for group in groups if group is not None).values()])


@given(GROUPS, st.integers(2, 6), st.integers(0, 99))
def test_folds_keep_groups_together_and_none_is_empty(groups, n_folds, seed):
    if n_folds > n_groups(groups):
        with pytest.raises(ConfigError, match=f"{len(groups)} items form {n_groups(groups)};"):
            folds(groups, n_folds, seed)
        return
    numbers = folds(groups, n_folds, seed)
    check_no_leak(groups, numbers.tolist())
    assert sorted(set(numbers.tolist())) == list(range(n_folds))


@given(GROUPS, st.integers(2, 6), st.integers(0, 99))
def test_folds_differ_in_size_by_no_more_than_the_largest_group(groups, n_folds, seed):
    if n_folds <= n_groups(groups):
        sizes = np.bincount(folds(groups, n_folds, seed))
        assert sizes.max() - sizes.min() <= largest_group(groups)


@pytest.mark.parametrize("seed", range(8))
def test_folds_are_those_worked_by_hand(seed):
    groups = ["small"] * 2 + ["big"] * 5 + ["middle"] * 3  # the largest goes first, into fold 0
    assert folds(groups, 2, seed).tolist() == [1] * 2 + [0] * 5 + [1] * 3


def test_a_seed_gives_the_same_folds_again_and_another_gives_others():
    groups = [f"sentence {i // 2}" for i in range(40)]
    first, again, other = (folds(groups, 4, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_items_without_a_group_are_dealt_out_alone():
    assert sorted(folds([None] * 6, 3, seed=0).tolist()) == [0, 0, 1, 1, 2, 2]


def test_one_fold_is_refused():
    with pytest.raises(ConfigError, match="n_folds is 1"):
        folds(["a", "b"], 1, seed=0)


@given(GROUPS, st.floats(0.01, 0.99), st.integers(0, 99))
def test_holding_out_tears_no_group_and_leaves_something_on_both_sides(groups, fraction, seed):
    if n_groups(groups) < 2:
        with pytest.raises(ConfigError, match="holding out needs 2"):
            hold_out(groups, fraction, seed)
        return
    held = hold_out(groups, fraction, seed)
    check_no_leak(groups, held.tolist())
    assert 0 < held.sum() < len(groups)


@pytest.mark.parametrize("seed", range(5))
def test_the_share_held_out_is_the_fraction_when_groups_are_small(seed):
    groups = [f"sentence {i // 4}" for i in range(400)]
    assert hold_out(groups, 0.2, seed).sum() == 80


def test_another_seed_holds_out_other_groups():
    groups = [str(i) for i in range(50)]
    assert (hold_out(groups, 0.2, 1) == hold_out(groups, 0.2, 1)).all()
    assert (hold_out(groups, 0.2, 1) != hold_out(groups, 0.2, 2)).any()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ConfigError, match="has to lie between 0 and 1"):
        hold_out(["a", "b"], fraction, seed=0)


def clip(path, **facts):
    return Clip(path=Path(path), **facts)


def test_clips_are_grouped_by_the_key_that_is_named():
    pair = [
        clip("1", sentence="a", system="X", test="t"),
        clip("2", sentence="a", system="Y", test="u"),
    ]
    assert group_keys(pair, "sentence") == ["a", "a"]
    assert group_keys(pair, "system") == ["X", "Y"]
    assert group_keys(pair, "test") == ["t", "u"]
    assert group_keys(pair, "path") == ["1", "2"]


def test_the_same_audio_in_two_tests_is_one_group():
    rated_twice = [
        clip("1", test="t"),
        clip("2", test="u"),
        clip("1", test="u"),
        clip("3", test="v"),
    ]
    assert group_keys(rated_twice, "test") == ["t", "t", "t", "v"]
    assert group_keys(rated_twice, "sentence") == ["1", "2", "1", "3"]


LABELS = st.one_of(st.none(), st.sampled_from("abcdef"))


@given(st.lists(st.tuples(LABELS, st.sampled_from("123456789")), min_size=1, max_size=12))
def test_clips_are_in_one_group_exactly_if_a_chain_of_shared_keys_or_paths_connects_them(pairs):
    keys = group_keys([clip(path, sentence=sentence) for sentence, path in pairs], "sentence")
    reach = np.array(
        [[p[1] == q[1] or (p[0] is not None and p[0] == q[0]) for q in pairs] for p in pairs]
    )
    for _ in pairs:  # a chain has at most as many links as there are clips
        reach = reach @ reach
    assert [[key == other for other in keys] for key in keys] == reach.tolist()


def test_an_unknown_key_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'speaker'; use sentence, system, path, test"):
        group_keys([clip("1")], "speaker")


def test_a_torn_group_is_named_with_its_parts():
    with pytest.raises(DataError, match="group 'b' is in train and in dev"):
        check_no_leak(["a", "b", None, "b"], ["train", "train", "dev", "dev"])
    with pytest.raises(DataError, match="must pair up: got 2 and 1"):
        check_no_leak(["a", "b"], ["train"])
