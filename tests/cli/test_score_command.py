"""`voxpanel score`: where rows go, what is refused, and the exit status."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from voxpanel.records import SCORE_COLUMNS
from voxpanel.rows import read_rows

pytestmark = pytest.mark.usefixtures("clips")


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_rows_go_to_stdout_as_csv_and_talk_to_stderr(voxpanel, fake):
    done = voxpanel("score", "good.wav", "poor.wav")
    rows = rows_of(done.out)
    assert done.status == 0
    assert tuple(rows[0]) == SCORE_COLUMNS
    assert [(row["path"], row["mos"]) for row in rows] == [
        ("good.wav", "4.000"),
        ("poor.wav", "2.000"),
    ]
    assert done.err == "2 files, 2 scored\n"
    assert fake.loaded == [("base", "auto")]


def test_one_scored_file_needs_no_talk(voxpanel, fake):
    done = voxpanel("score", "good.wav", "--model", "mine", "--device", "cpu")
    assert done.err == ""
    assert fake.loaded == [("mine", "cpu")]


@pytest.mark.usefixtures("fake")
def test_json_is_one_array_of_the_same_rows(voxpanel):
    done = voxpanel("score", "good.wav", "none.wav", "--json")
    rows = json.loads(done.out)
    assert [(row["path"], row["mos"], row["error"]) for row in rows] == [
        ("good.wav", 4.0, None),
        ("none.wav", None, "none.wav: no such file"),
    ]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_gets_the_rows_and_stdout_none(voxpanel, clips, ending):
    done = voxpanel("score", "good.wav", "fair.wav", "-o", f"out.{ending}")
    assert (done.status, done.out) == (0, "")
    rows = [cells for _, cells in read_rows(clips / f"out.{ending}").rows]
    assert [(row["path"], float(row["mos"])) for row in rows] == [
        ("good.wav", 4.0),
        ("fair.wav", 3.0),
    ]


@pytest.mark.usefixtures("fake")
def test_a_file_that_fails_keeps_its_row_and_the_status_is_3(voxpanel):
    done = voxpanel("score", "good.wav", "none.wav", "poor.wav")
    assert done.status == 3
    assert [row["mos"] for row in rows_of(done.out)] == ["4.000", "", "2.000"]
    assert done.err.endswith("3 files, 2 scored, 1 not: see column error\n")


@pytest.mark.usefixtures("fake")
def test_a_name_that_is_no_utf8_is_written_as_utf8(voxpanel, clips):
    odd = os.fsdecode(b"caf\xe9.wav")
    (clips / odd).touch()
    for output in ((), ("--json",)):
        assert "caf\\udce9.wav" in voxpanel("score", odd, *output).out


@pytest.mark.usefixtures("fake")
def test_systems_of_a_manifest_get_their_means_and_counts(voxpanel):
    done = voxpanel("score", "ratings.csv")
    assert [row["system"] for row in rows_of(done.out)] == ["A", "A", "B"]
    assert [line.split() for line in done.err.splitlines()[1:4]] == [
        ["system", "n", "MOS", "95", "%", "interval"],
        ["A", "2", "3.500", "3.000", "to", "4.000"],
        ["B", "1", "2.000", "1.500", "to", "2.500"],
    ]


@pytest.mark.usefixtures("fake")
def test_gates_are_added_on_request(voxpanel):
    (row,) = rows_of(voxpanel("score", "good.wav", "--experts").out)
    assert tuple(row) == (*SCORE_COLUMNS, "gate_1", "gate_2")
    assert (row["gate_1"], row["gate_2"]) == ("0.2500", "0.7500")


def test_the_listening_test_is_passed_on(voxpanel, fake):
    assert voxpanel("score", "good.wav", "--test", "crowd").status == 0
    assert fake.asked == [("good.wav", "crowd")]


def test_an_output_that_exists_is_refused_before_a_model_is_loaded(voxpanel, fake, clips):
    (clips / "out.csv").write_text("precious")
    done = voxpanel("score", "good.wav", "-o", "out.csv")
    assert done.status == 2
    assert "out.csv exists; add --force to replace it" in done.err
    assert (clips / "out.csv").read_text() == "precious"
    assert fake.loaded == []


@pytest.mark.usefixtures("fake")
def test_force_replaces_an_output(voxpanel, clips):
    (clips / "out.csv").write_text("old")
    assert voxpanel("score", "good.wav", "-o", "out.csv", "--force").status == 0
    assert len(rows_of((clips / "out.csv").read_text())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.wav",), "none.wav: no such file or folder"),
        (("good.wav", "-o", "out.xlsx"), "ends in '.xlsx'; a table ends in .csv"),
        (("good.wav", "-o", "out.csv", "--json"), "-o FILE.jsonl writes JSON"),
        (("ratings.csv", "-o", "./ratings.csv", "--force"), "ratings.csv is one of the inputs"),
        ((), "Missing argument 'INPUT'"),
    ],
)
def test_a_request_without_sense_does_nothing(voxpanel, fake, arguments, message):
    done = voxpanel("score", *arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert fake.loaded == []


def test_a_test_that_the_model_does_not_know_is_refused(voxpanel, fake, clips):
    done = voxpanel("score", "good.wav", "-o", "out.csv", "--test", "attic")
    assert done.status == 2
    assert "'attic': fake 1.0 abc was trained on the tests studio, crowd" in done.err
    assert fake.asked == []
    assert not (clips / "out.csv").exists()


def test_gates_of_a_model_without_experts_are_refused(voxpanel, fake, monkeypatch):
    monkeypatch.setattr(fake, "n_gates", 0)
    done = voxpanel("score", "good.wav", "--experts")
    assert done.status == 2
    assert "has no mixture of experts" in done.err


@pytest.mark.usefixtures("fake")
def test_an_error_of_ours_is_one_line_and_status_1(voxpanel):
    done = voxpanel("score", "good.wav", "--model", "missing")
    assert (done.status, done.err) == (1, "voxpanel: no model 'missing'\n")


@pytest.mark.usefixtures("fake")
def test_an_output_that_cannot_be_written_is_one_line_and_status_1(voxpanel, clips):
    (clips / "file").touch()
    done = voxpanel("score", "good.wav", "-o", "file/out.csv")
    assert done.status == 1
    assert done.err.startswith("voxpanel: file")


@pytest.mark.usefixtures("fake")
def test_ctrl_c_keeps_the_rows_so_far(voxpanel, clips):
    (clips / "interrupt.wav").touch()
    done = voxpanel("score", "good.wav", "interrupt.wav", "poor.wav", "-o", "out.parquet")
    assert done.status == 130
    assert done.err == "interrupted; the rows so far are kept\n"
    assert [cells["path"] for _, cells in read_rows(clips / "out.parquet").rows] == ["good.wav"]


@pytest.mark.usefixtures("fake")
def test_on_a_terminal_rows_are_aligned_and_harmless(voxpanel, clips, monkeypatch):
    odd = "日本\x1b[2J.wav"
    (clips / odd).touch()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = voxpanel("score", "good.wav", odd)
    assert done.out.splitlines() == [
        "path             MOS    95 % interval   notes",
        "good.wav         4.000  3.500 to 4.500  short",
        "日本\\x1b[2J.wav  -      -               not scored: no such file",
    ]


def test_a_reader_that_leaves_ends_the_command_in_silence(clips):
    (clips / "many.txt").write_text("".join(f"clip{number}.wav\n" for number in range(4000)))
    (clips / "clip0.wav").touch()
    code = """
import sys, types
from voxpanel.records import Score
from voxpanel import cli
class Scorer:
    n_gates, test_names = 0, ()
    load = classmethod(lambda cls, *a, **k: cls())
    def score_many(self, paths, **options):
        return (Score(path, mos=3.0) for path in paths)
sys.modules["voxpanel.score"] = types.SimpleNamespace(Scorer=Scorer)
cli.main(["score", "many.txt"])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert process.stdout.readline().startswith(b"path,mos")
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1
