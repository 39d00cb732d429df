"""Which score meets which rating, and what is refused rather than guessed."""

from pathlib import Path

import pytest

from voxpanel.errors import DataError
from voxpanel.evaluate.pairing import Item, match, pair


def items(*paths, score=3.0, **facts):
    return [Item(path, score, **facts) for path in paths]


@pytest.mark.parametrize(
    ("rated", "scored"),
    [
        ("wav/a.wav", "wav/a.wav"),  # as given
        ("wav/a.wav", "/corpus/other/../wav/a.wav"),  # where it leads
        ("wav/a.wav", "/elsewhere/a.wav"),  # by name
        ("a", "/elsewhere/a.WAV"),  # by name without the audio ending
        ("sys1.v2", "out/sys1.v2.flac"),
        ("a.wav", "enhanced/a.flac"),
    ],
)
def test_a_clip_is_found_under_each_of_its_names(rated, scored):
    labels = items(rated, "other.wav", folder=Path("/corpus"))
    assert match(labels, items("z.wav", scored, "other.wav")) == [1, 2]


def test_a_path_as_given_wins_over_a_file_name():
    assert match(items("x/a.wav", "y/a.wav"), items("y/a.wav", "x/a.wav")) == [1, 0]


def test_paths_that_lead_to_the_same_place_win_over_a_file_name():
    labels = items("x/a.wav", "y/a.wav", folder=Path("/corpus"))
    assert match(labels, items("/corpus/y/a.wav", "/corpus/z/../x/a.wav")) == [1, 0]


def test_a_score_is_given_away_once(tmp_path):
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    labels = items("link.wav", "elsewhere/real.wav", folder=tmp_path)
    assert match(labels, items(str(tmp_path / "real.wav"))) == [0, None]


@pytest.mark.parametrize(
    ("rated", "scored"),
    [
        (["x/a.wav"], ["y/a.wav", "z/a.wav"]),  # two scores of that name
        (["x/a.wav", "y/a.wav"], ["z/a.wav"]),  # two ratings of that name
        (["x/a.wav", "y/a.wav"], ["x/a.wav", "z/a.wav"]),  # the other one is taken
        (["x/a.v1"], ["y/a.v2"]),  # no audio endings
    ],
)
def test_a_name_that_could_be_another_s_is_not_guessed(rated, scored):
    with pytest.raises(DataError, match="rated clips have no score"):
        pair(items(*scored), items(*rated))


def test_what_did_not_match_is_listed_up_to_ten_and_counted():
    rated = items(*(f"r{i}.wav" for i in range(15)), "both.wav")
    scored = items(*(f"s{i}.wav" for i in range(12)), "both.wav")
    with pytest.raises(DataError) as caught:
        pair(scored, rated)
    message = str(caught.value)
    assert "15 of 16 rated clips have no score: 'r0.wav'" in message
    assert "'r9.wav' and 5 more" in message
    assert "12 scores belong to no rating: 's0.wav'" in message
    assert "'s9.wav' and 2 more" in message


def test_pairs_keep_the_order_of_the_ratings():
    rated = [Item("b", 1.0, "B"), Item("a", 2.0, "A"), Item("b", 2.0, "B")]
    pairs = pair([Item("a", 4.0), Item("b", 5.0)], rated)
    assert pairs.predicted.tolist() == [5.0, 4.0]
    assert pairs.rated.tolist() == [1.5, 2.0]
    assert pairs.systems == ("B", "A")


def test_missing_and_unrated_scores_are_counted():
    rated = [Item("a", 2.0), Item("b", 3.0), Item("no rating", None)]
    pairs = pair([Item("a", None), Item("b", 3.0), Item("c", 1.0), Item("d", None)], rated)
    assert (pairs.n_rated, pairs.n_missing, pairs.n_unrated) == (2, 1, 1)
    assert pairs.predicted.tolist() == [3.0]


@pytest.mark.parametrize(
    ("scored", "rated", "message"),
    [
        (items("a", "a"), items("a"), "several scores for one path; keep one of each: 'a'"),
        (items("a", score=None), items("a"), "of 1 rows 1 have a rating, and none of these has"),
        (items("a"), items("a", score=None), "nothing to compare"),
        (
            items("a"),
            [Item("a", 3.0, "X"), Item("a", 3.0, "Y")],
            "'a' has ratings with system X, Y; a clip has one",
        ),
        (
            items("a", "b"),
            [Item("a", 3.0, "X"), Item("b", 3.0)],
            "column 'system' is empty for 1 of 2 utterances",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(scored, rated, message):
    with pytest.raises(DataError, match=message):
        pair(scored, rated)
