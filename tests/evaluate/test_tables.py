"""Score tables and ratings out of files, and `evaluate` from end to end."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import voxpanel.evaluate
from voxpanel.errors import ConfigError, DataError, ManifestError
from voxpanel.evaluate import evaluate
from voxpanel.evaluate.pairing import Item
from voxpanel.evaluate.tables import parse_columns, read_pairs, read_ratings, read_scores
from voxpanel.records import Clip, Rating, Score


@pytest.fixture
def table(tmp_path):
    def write(name, *lines):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def scores(table):
    return table(
        "scores.csv",
        "path,mos,system,error",
        "a.wav,2.0,A,",
        "b.wav,3.0,A,",
        "c.wav,4.5,B,",
        "d.wav,,B,no samples after the header",
        "e.wav,1.0,B,",
    )


@pytest.fixture
def ratings(table):
    """Listener by listener; the means of a, b, c and d are 2, 3.5, 4 and 5."""
    return table(
        "ratings.csv",
        "path,system,listener,score,scale",
        "a.wav,A,L1,1,",
        "a.wav,A,L2,3,1-5",
        "b.wav,A,L1,3.5,",
        "c.wav,B,L1,75,0-100",
        "d.wav,B,L1,5,",
    )


def test_files_are_evaluated_from_end_to_end(scores, ratings):
    evaluation = evaluate(scores, ratings)
    assert evaluation.utterance.n == 3
    assert evaluation.utterance.mse == pytest.approx((0 + 0.25 + 0.25) / 3)
    assert evaluation.system.n == 2
    assert evaluation.system.mse == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert evaluation.utterance_intervals.n_systems == 2


def test_nothing_is_left_out_without_being_counted(scores, ratings):
    evaluation = evaluate(scores, ratings)
    assert (evaluation.n_rated, evaluation.n_scored, evaluation.n_missing) == (4, 3, 1)
    assert evaluation.n_unrated == 1


def test_records_give_what_files_give(scores, ratings):
    values = {"a.wav": 2.0, "b.wav": 3.0, "c.wav": 4.5, "d.wav": None, "e.wav": 1.0}
    generated = (Score(path=path, mos=mos) for path, mos in values.items())
    one_a_rating = [
        Rating(Path(path), line, system=system, score=score)
        for line, (path, system, score) in enumerate(
            [
                ("a.wav", "A", 1),
                ("a.wav", "A", 3),
                ("b.wav", "A", 3.5),
                ("c.wav", "B", 4.0),
                ("d.wav", "B", 5),
            ]
        )
    ]
    one_a_clip = [
        Clip(Path(path), score=score, system=system)
        for path, system, score in [
            ("a.wav", "A", 2),
            ("b.wav", "A", 3.5),
            ("c.wav", "B", 4.0),
            ("d.wav", "B", 5),
        ]
    ]
    expected = evaluate(scores, ratings)
    assert evaluate(generated, one_a_rating) == expected
    assert evaluate(scores, one_a_clip) == expected


def test_numbers_are_compared_in_their_order():
    evaluation = evaluate(np.array([2.0, 3.0, 4.5]), [2.0, 3.5, 4.0], systems=["A", "A", "B"])
    assert evaluation.utterance.mse == pytest.approx(0.5 / 3)
    assert evaluation.system.n == 2
    assert evaluation.n_rated == 3


def test_one_table_may_hold_both(table):
    path = table("t.csv", "utt,pred,true,sys", "1,20,10,A", "2,40,50,B", "3,,30,B", "4,50,,C")
    evaluation = evaluate(path, columns={"score": "pred", "label": "true", "system": "sys"})
    assert evaluation.utterance.mse == 100.0  # on the table's own scale
    assert evaluation.system.n == 2
    assert (evaluation.n_rated, evaluation.n_missing, evaluation.n_unrated) == (3, 1, 1)
    assert evaluate(path, columns={"score": "pred", "label": "true"}).system is None


def test_two_tables_may_name_their_columns(table):
    first = table("s.csv", "wav,pred", "a,2", "b,3", "c,4")
    second = table("r.csv", "wav,mean", "a,2", "b,3", "c,5")
    columns = {"path": "wav", "score": "pred", "label": "mean"}
    assert evaluate(first, second, columns=columns).utterance.mse == pytest.approx(1 / 3)


def test_the_scores_systems_stand_in_where_the_ratings_have_none(scores, table):
    rated = table("r.csv", "path,score", "a.wav,2", "b.wav,3", "c.wav,4")
    assert evaluate(scores, rated).system.n == 2


def test_a_test_or_a_split_can_be_chosen(scores, table):
    rated = table(
        "r.csv",
        "path,score,test,split",
        "a.wav,2,single,train",
        "b.wav,3,single,train",
        "c.wav,4,single,dev",
        "a.wav,1,mixed,dev",
        "b.wav,2,mixed,dev",
    )
    assert evaluate(scores, rated, test="mixed").utterance.mse == 1.0
    assert evaluate(scores, rated, split="train").utterance.mse == 0.0
    with pytest.raises(DataError, match=r"no rating has test 'x'; there is single, mixed"):
        evaluate(scores, rated, test="x")
    with pytest.raises(DataError, match=r"'a.wav' has ratings with test mixed, single; choose one"):
        evaluate(scores, rated)


def test_no_draws_give_no_intervals(scores, ratings):
    evaluation = evaluate(scores, ratings, n_draws=0)
    assert evaluation.utterance_intervals is None
    assert evaluation.as_dict()["utterance"]["mse"]["low"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"scores": [1.0, 2.0], "ratings": [1.0, 2.0], "test": "x"},
            "'test' does not go with numbers",
        ),
        ({"scores": [1.0, 2.0], "ratings": [Clip(Path("a"))]}, "scores: a float has no path"),
        ({"scores": [Score("a")], "ratings": [1.0]}, "ratings: a float has no path"),
        (
            {"scores": [Score("a")], "ratings": [Clip(Path("a"))], "systems": ["A"]},
            "'systems' does not go",
        ),
        ({"scores": [1.0, 2.0]}, "a table is named by its path, not by a list"),
        ({"scores": "t.csv", "split": "dev"}, "'split' does not go with one table"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(**arguments)


def test_ratings_are_read_with_their_folder_and_on_1_to_5(table):
    path = table("r.csv", "path,score,scale,test,split", "a.wav,7,1-7,t,dev", "b.wav,,,,")
    assert read_ratings(path) == [
        Item("a.wav", 5.0, test="t", split="dev", folder=path.parent),
        Item("b.wav", None, folder=path.parent),
    ]


def test_wrong_cells_are_refused_by_line_and_column_all_at_once(table):
    rated = table("r.csv", "path,score,scale", "a.wav,9,", "b.wav,4,x", "c.wav,4,")
    with pytest.raises(ManifestError) as caught:
        read_ratings(rated)
    message = str(caught.value)
    assert "r.csv: 2 problems" in message
    assert "line 2: column 'score' is 9; the scale 1-5 allows 1 to 5" in message
    assert "line 3: column 'scale' is 'x'" in message
    for cell in ("nan", "inf", "good"):
        with pytest.raises(ManifestError, match=f"line 2: column 'mos' is '{cell}', not a finite"):
            read_scores(table("s.csv", "path,mos", f"a.wav,{cell}"))


def test_a_missing_column_is_named_with_those_there_and_the_option(table):
    path = table("s.csv", "path,prediction", "a.wav,3")
    with pytest.raises(
        ManifestError, match=r"no column 'mos'; it has path, prediction .*score=\.\.\."
    ):
        read_scores(path)
    with pytest.raises(ManifestError, match=r"no column 'score'; .*label="):
        read_ratings(path)
    with pytest.raises(ManifestError, match="no column 'sys'"):
        read_pairs(path, {"score": "prediction", "label": "prediction", "system": "sys"})


def test_columns_are_parsed_and_unknown_roles_refused():
    assert parse_columns("score=a, label=b=c") == {"score": "a", "label": "b=c"}
    with pytest.raises(ConfigError, match="'scor' is not one of path, score, label, system"):
        parse_columns("scor=a")
    for text in ("score", "score=", "score=a,"):
        with pytest.raises(ConfigError, match="is not NAME=COLUMN"):
            parse_columns(text)


def test_the_package_answers_calls_under_its_own_name():
    assert voxpanel.evaluate([1.0, 2.0], [1.0, 2.0]).utterance.mse == 0.0


def test_importing_the_package_loads_neither_torch_nor_scipy():
    code = "import sys, voxpanel.evaluate; sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
