"""`voxpanel evaluate`: three ways to name scores and ratings."""

import json

import pytest

from voxpanel.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("clips")

SCORES = "path,mos\ngood.wav,4\nfair.wav,3\npoor.wav,2\n"
# Off by 0.5, 0.5 and 0: the mean square is 0.5 / 3 over clips; over the systems A
# (3.5 against 4) and B (2 against 2) it is 0.25 / 2.
UTTERANCE_MSE, SYSTEM_MSE = 0.5 / 3, 0.125


@pytest.fixture
def scores(clips):
    path = clips / "scores.csv"
    path.write_text(SCORES)
    return path


def test_json_has_both_levels_as_worked_by_hand(voxpanel, scores):
    done = voxpanel("evaluate", scores, "ratings.csv", "--json")
    found = json.loads(done.out)
    assert done.status == 0
    assert list(found) == ["utterance", "system"]
    assert found["utterance"]["n"] == 3
    assert found["utterance"]["mse"]["value"] == pytest.approx(UTTERANCE_MSE)
    assert found["utterance"]["srcc"]["value"] == pytest.approx(1.0)
    assert found["system"]["n"] == 2
    assert found["system"]["mse"]["value"] == pytest.approx(SYSTEM_MSE)
    assert list(found["system"]["lcc"]) == ["value", "low", "high"]


def test_the_table_has_a_line_a_level_with_intervals(voxpanel, scores):
    done = voxpanel("evaluate", scores, "ratings.csv")
    head, utterance, system = done.out.splitlines()
    assert head.split() == ["level", "n", "MSE", "LCC", "SRCC", "KTAU"]
    low, high = evaluate(scores, "ratings.csv").utterance_intervals.mse
    assert utterance.startswith(f"utterance  3  0.167 ({low:.3f} to {high:.3f})")
    assert system.split()[:3] == ["system", "2", "0.125"]


def test_one_table_with_named_columns(voxpanel, clips):
    (clips / "both.csv").write_text("id,ours,theirs\na,4,4.5\nb,3,3.5\nc,2,2\n")
    done = voxpanel("evaluate", "both.csv", "--columns", "score=ours,label=theirs", "--json")
    found = json.loads(done.out)
    assert found["utterance"]["mse"]["value"] == pytest.approx(UTTERANCE_MSE)
    assert found["system"] is None
    assert "no system level" in done.err


def test_a_model_scores_the_rated_clips_itself(voxpanel, fake):
    done = voxpanel("evaluate", "--model", "mine", "ratings.csv", "--device", "cpu", "--json")
    assert json.loads(done.out)["utterance"]["mse"]["value"] == pytest.approx(UTTERANCE_MSE)
    assert fake.loaded == [("mine", "cpu")]
    assert fake.asked == [("good.wav", None), ("fair.wav", None), ("poor.wav", None)]


def test_a_model_scores_only_what_is_compared_and_answers_for_its_test(voxpanel, fake, clips):
    (clips / "other.wav").touch()
    with (clips / "ratings.csv").open("a") as file:
        file.write("other.wav,B,3,crowd,test\nother.wav,B,,studio,test\n")
    done = voxpanel(
        "evaluate", "--model", "m", "ratings.csv", "--test", "studio", "--split", "test"
    )
    assert done.status == 0
    assert fake.asked == [("good.wav", "studio"), ("fair.wav", "studio")]


def test_a_test_unknown_to_the_model_is_said_and_not_answered_for(voxpanel, fake, clips):
    ratings = (clips / "ratings.csv").read_text().replace("studio", "attic")
    (clips / "ratings.csv").write_text(ratings)
    done = voxpanel("evaluate", "--model", "m", "ratings.csv", "--test", "attic")
    assert "does not know the test 'attic'" in done.err
    assert {test for _, test in fake.asked} == {None}


@pytest.mark.usefixtures("fake")
def test_a_clip_that_a_model_cannot_score_is_named_and_the_status_is_3(voxpanel, clips):
    (clips / "odd.wav").touch()
    with (clips / "ratings.csv").open("a") as file:
        file.write("odd.wav,B,3,studio,dev\n")
    done = voxpanel("evaluate", "--model", "m", "ratings.csv")
    assert done.status == 3
    assert "not scored: odd.wav: no such file" in done.err
    assert "1 of 4 rated clips have no score" in done.err


def test_scores_without_a_rating_are_counted(voxpanel, scores):
    scores.write_text(SCORES + "extra.wav,3\n")
    done = voxpanel("evaluate", scores, "ratings.csv")
    assert done.status == 0
    assert "1 scores belong to no rating" in done.err


def test_ratings_without_a_score_are_counted_and_the_status_is_3(voxpanel, scores):
    scores.write_text(SCORES.replace("wav,3", "wav,"))
    done = voxpanel("evaluate", scores, "ratings.csv")
    assert done.status == 3
    assert "1 of 3 rated clips have no score" in done.err
    assert "utterance  2" in done.out


def test_what_is_undefined_says_why(voxpanel, scores):
    scores.write_text(SCORES.replace("wav,4", "wav,3").replace("wav,2", "wav,3"))
    done = voxpanel("evaluate", scores, "ratings.csv")
    assert "undefined" in done.out
    assert "the predicted scores are all 3, and a constant has no correlation" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.csv", "b.csv", "c.csv"), "3 tables; give scores and ratings"),
        (("--model", "m", "a.csv", "b.csv"), "needs one manifest, and no --columns"),
        (("--model", "m", "a.csv", "--columns", "score=x"), "needs one manifest"),
        (("a.csv", "--columns", "mos=x"), "'mos' is not one of path, score, label, system"),
        (("a.csv", "--test", "studio"), "'test' does not go with one table"),
    ],
)
def test_a_request_without_sense_has_status_2(voxpanel, fake, arguments, message):
    done = voxpanel("evaluate", *arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert fake.loaded == []


def test_a_table_that_is_wrong_has_status_1(voxpanel, scores):
    scores.write_text("path,mos\ngood.wav,high\n")
    done = voxpanel("evaluate", scores, "ratings.csv")
    assert done.status == 1
    assert done.err.startswith("voxpanel: ")
    assert "line 2" in done.err
