"""Manifests: what is read, what is refused, and how ratings become clips."""

import csv
import io
import json
import statistics
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from voxpanel.data.manifest import clips, read_manifest
from voxpanel.errors import ManifestError
from voxpanel.records import Clip, Rating

ODD_NAMES = ['comma, "quote".wav', "new\nline.wav", "ünïcødé 日本語 🎧.wav"]


@pytest.fixture
def manifest(tmp_path):
    """Write rows as a CSV manifest beside the audio files that it may name."""

    def write(*lines, audio=("a.wav", "b.wav"), name="train.csv"):
        for file in audio:
            (tmp_path / file).touch()
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def refusal(path, **options):
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, **options)
    return str(caught.value)


def test_every_column_reaches_the_rating(manifest):
    path = manifest(
        "path,system,score,listener,test,scale,synthesizer,sentence,text,split,listener_age,note",
        "a.wav,015,75,L1,t1,0-100,F5-TTS,s7,Guten Tag,dev,30-39,x",
    )
    read = read_manifest(path)
    assert read.source == path
    assert read.ignored_columns == ("note",)
    assert read.ratings == (
        Rating(
            path=path.parent / "a.wav",
            line=2,
            system="015",
            score=4.0,  # 75 of 100 is three quarters of the way from 1 to 5
            listener="L1",
            test="t1",
            synthesizer="F5-TTS",
            sentence="s7",
            text="Guten Tag",
            split="dev",
            listener_attributes={"age": "30-39"},
        ),
    )


def test_what_is_absent_stays_absent(manifest):
    by_column, by_cell = (
        read_manifest(manifest(*lines)).ratings
        for lines in (["path", "a.wav"], ["path,score,sentence,listener_age", "a.wav,,,"])
    )
    assert by_column == by_cell
    assert by_column == (Rating(path=by_column[0].path, line=2),)


def test_odd_file_names_are_found(manifest):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["path"], *([name] for name in ODD_NAMES)])
    path = manifest(buffer.getvalue().rstrip(), audio=ODD_NAMES)
    assert [rating.path.name for rating in read_manifest(path).ratings] == ODD_NAMES


def test_paths_start_from_the_manifest_and_absolute_ones_stay(manifest, tmp_path, monkeypatch):
    (tmp_path / "wav").mkdir()
    elsewhere = tmp_path / "wav" / "b.wav"
    path = manifest("path", "wav/a.wav", str(elsewhere), audio=["wav/a.wav", "wav/b.wav"])
    monkeypatch.chdir("/")
    assert [r.path for r in read_manifest(path).ratings] == [tmp_path / "wav/a.wav", elsewhere]


def test_the_three_formats_read_alike(manifest, tmp_path):
    rows = [
        {"path": "a.wav", "system": "015", "score": 4.5},
        {"path": "b.wav", "system": "X", "score": 2.0},
    ]
    of_csv = read_manifest(manifest("path,system,score", "a.wav,015,4.5", "b.wav,X,2.0")).ratings
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    for name in ("train.jsonl", "train.parquet"):
        of_other = read_manifest(tmp_path / name).ratings
        assert [(r.path, r.system, r.score) for r in of_other] == [
            (r.path, r.system, r.score) for r in of_csv
        ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["file,score", "a.wav,4"],
            "line 1: column 'path' is missing; the columns are file, score",
        ),
        (
            ["path,sytem", "a.wav,A"],
            "line 1: column 'sytem' is not known here; did you mean 'system'?",
        ),
        (
            ["Path,score", "a.wav,4"],
            "line 1: column 'Path' is not known here; did you mean 'path'?",
        ),
        (
            ["path, score", "a.wav,4"],
            "line 1: column ' score' is not known here; did you mean 'score'?",
        ),
        (["path,mos", "a.wav,4"], "line 1: column 'mos' is not known here; did you mean 'score'?"),
        (
            ["path,listener_id", "a.wav,L1"],
            "line 1: column 'listener_id' is not known here; did you mean 'listener'?",
        ),
        (
            ["path,score", "a.wav,4", "a.wav,7.0"],
            "line 3: column 'score' is 7.0; the scale 1-5 allows 1 to 5 "
            "(give column 'scale' if another was used)",
        ),
        (["path,score", "a.wav,good"], "line 2: column 'score' is 'good', not a number"),
        (["path,score", "a.wav,nan"], "line 2: column 'score' is NaN"),
        (
            ["path,score,scale", "a.wav,4,1-10"],
            "line 2: column 'scale' is '1-10', not a scale known here; use 1-5, 0-100, 1-7",
        ),
        (["path,split", "a.wav,valid"], "line 2: column 'split' is 'valid'; use train, dev, test"),
        (["path,score", ",4"], "line 2: column 'path' is empty; name an audio file"),
        (["path,score", "a.wav,4,5"], "line 2: 3 fields where the header has 2"),
        (["path,score", "a.wav"], "line 2: 1 fields where the header has 2"),
        (["path", "a.wav", "none.wav"], "line 3: column 'path': no file "),
        (
            ["path,listener,score", "a.wav,L1,4", "b.wav,L1,4", "a.wav,L1,5"],
            "line 4: column 'listener' is 'L1', who rated 'a.wav' in this test on line 2 too",
        ),
        (["path,score"], "no rows below the header"),
    ],
)
def test_a_wrong_manifest_is_refused_by_line_and_column(manifest, lines, message):
    assert message in refusal(manifest(*lines))


def test_a_name_like_ours_beside_ours_is_only_ignored(manifest):
    path = manifest("path,score,mos,scores,listener,listener_id", "a.wav,4,3.9,x,L1,17")
    read = read_manifest(path)
    assert read.ignored_columns == ("mos", "scores")
    assert read.ratings[0].listener_attributes == {"id": "17"}


@pytest.mark.parametrize("column", ["sample_rate", "speaker", "language", "group", "rating_time"])
def test_a_column_of_another_name_is_no_slip(manifest, column):
    assert read_manifest(manifest(f"path,{column}", "a.wav,x")).ignored_columns == (column,)


def test_ten_of_many_problems_are_shown_and_all_are_counted(manifest):
    rows = [f"a.wav,{score}" for score in range(6, 18)]
    message = refusal(manifest("path,score", *rows, "none.wav,4", "b.wav"))
    assert "train.csv: 14 problems, the first 10:\n" in message
    assert message.count("\n") == 10


def test_problems_of_different_kinds_are_reported_together(manifest):
    message = refusal(manifest("path,score,split", "a.wav,9,valid", "b.wav", "none.wav,4,dev"))
    assert message.startswith(str(message.split(":")[0]) + ": 4 problems:\n")
    for part in ("line 2: column 'score'", "line 2: column 'split'", "line 3: 1 fields", "line 4"):
        assert part in message


def test_a_missing_file_is_reported_once_and_a_folder_is_no_file(manifest, tmp_path):
    (tmp_path / "folder.wav").mkdir()
    path = manifest("path,score", "none.wav,4", "none.wav,5", "folder.wav,3")
    message = refusal(path)
    assert ": 2 problems" in message
    assert "line 2" in message
    assert "line 4" in message
    assert len(read_manifest(path, check_files=False).ratings) == 3


def test_one_listener_may_rate_a_clip_in_two_tests_and_unnamed_ones_any_number_of_times(manifest):
    path = manifest(
        "path,listener,test,score", "a.wav,L1,x,4", "a.wav,L1,y,4", "b.wav,,x,4", "b.wav,,x,4"
    )
    assert len(read_manifest(path).ratings) == 4


def rating(name, line=2, **facts):
    return Rating(path=Path(name), line=line, **facts)


def test_a_clip_is_the_mean_of_its_ratings_in_one_test():
    ratings = [
        rating("b.wav", score=2.0, test="x", system="B"),
        rating("a.wav", score=4.0, test="x", split="dev"),
        rating("b.wav", score=5.0, test="x"),
        rating("b.wav", score=1.0, test="y"),
        rating("b.wav", test="x"),
        rating("a.wav", test="y"),
    ]
    assert clips(ratings) == [
        Clip(Path("b.wav"), 3.5, 2, statistics.stdev([2, 5]), system="B", test="x"),
        Clip(Path("a.wav"), 4.0, 1, None, test="x", split="dev"),
        Clip(Path("b.wav"), 1.0, 1, None, test="y"),
        Clip(Path("a.wav"), None, 0, None, test="y"),
    ]


@pytest.mark.parametrize("column", ["system", "synthesizer", "sentence", "split"])
def test_two_rows_that_disagree_on_a_clip_are_both_named(column):
    ratings = [
        rating("a.wav", line=2),
        rating("a.wav", line=3, **{column: "one"}),
        rating("a.wav", line=9, **{column: "two"}),
    ]
    with pytest.raises(
        ManifestError, match=f"lines 3 and 9: .*a.wav' has {column} 'one' and 'two'"
    ):
        clips(ratings)
