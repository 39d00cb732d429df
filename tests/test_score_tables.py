"""Score tables: what is written can be read again, and is there at once."""

import io
import json
import math
import sys
from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from voxpanel.errors import ConfigError
from voxpanel.records import SCORE_COLUMNS, Score
from voxpanel.rows import read_rows
from voxpanel.tables import (
    DECIMALS,
    MEANINGS,
    ROW_GROUP,
    Tally,
    column_names,
    csv_table,
    json_array,
    open_table,
)

SCORED = Score(
    path='in/comma, "quote"\r\n🎧.wav',
    mos=3.14159,
    mos_low=2.7,
    mos_high=3.6,
    system="S,1",
    sample_rate_hz=22_050,
    duration_s=3.25,
    bandwidth_hz=7_843.75,
    speech_s=2.0,
    synthesizer="flite",
    synthesizer_p=0.98765,
    flags=("short", "clipped"),
    model="base 0.1.0 3f2a9c",
    gates=(0.25, 0.75),
)
FAILED = Score(path="gone.wav", model="base 0.1.0 3f2a9c", error="gone.wav: no such file")
AS_TEXT = {
    "path": 'in/comma, "quote"\r\n🎧.wav',
    "mos": "3.142",
    "mos_low": "2.700",
    "mos_high": "3.600",
    "system": "S,1",
    "sample_rate_hz": "22050",
    "duration_s": "3.250",
    "bandwidth_hz": "7844",
    "speech_s": "2.000",
    "synthesizer": "flite",
    "synthesizer_p": "0.988",
    "flags": "short;clipped",
    "model": "base 0.1.0 3f2a9c",
    "error": "",
}


def write(path, *scores, n_gates=0):
    with open_table(path, n_gates) as add:
        for score in scores:
            add(score)


def read(path):
    return [cells for _, cells in read_rows(path).rows]


def test_the_columns_are_those_promised():
    promised = (
        "path, mos, mos_low, mos_high, system, sample_rate_hz, duration_s, bandwidth_hz, "
        "speech_s, synthesizer, synthesizer_p, flags, model, error"
    )
    assert ", ".join(column_names()) == promised
    assert column_names(2) == (*column_names(), "gate_1", "gate_2")


def test_every_column_has_a_meaning_and_every_fraction_its_decimals():
    floats = {field.name for field in fields(Score) if field.type == float | None}
    assert tuple(MEANINGS) == SCORE_COLUMNS
    assert set(DECIMALS) == floats


def test_csv_holds_the_row_as_worked_by_hand(tmp_path):
    write(tmp_path / "a.csv", SCORED, FAILED)
    scored, failed = read(tmp_path / "a.csv")
    assert scored == AS_TEXT
    assert {name: cell for name, cell in failed.items() if cell} == {
        "path": "gone.wav",
        "model": "base 0.1.0 3f2a9c",
        "error": "gone.wav: no such file",
    }


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_other_kinds_of_table_hold_what_csv_holds(tmp_path, ending):
    for name in ("a.csv", f"a.{ending}"):
        write(tmp_path / name, SCORED, FAILED, n_gates=2)

    def values(path):
        return [{k: number_or_text(cell) for k, cell in row.items()} for row in read(path)]

    assert values(tmp_path / f"a.{ending}") == values(tmp_path / "a.csv")


def number_or_text(cell):
    try:
        return float(cell)
    except ValueError:
        return cell


def test_gates_stand_behind_the_other_columns(tmp_path):
    write(tmp_path / "a.csv", SCORED, FAILED, n_gates=2)
    scored, failed = read(tmp_path / "a.csv")
    assert (scored["gate_1"], scored["gate_2"]) == ("0.2500", "0.7500")
    assert (failed["gate_1"], failed["gate_2"]) == ("", "")


# Half surrogates are what Python reads the bytes of a name as that is no UTF-8.
NAMES = st.text(st.characters(), min_size=1, max_size=12)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@given(names=st.lists(NAMES, min_size=1, max_size=4))
@example(names=["carriage\rreturn.wav", "caf\udce9.wav", "new\nline.wav"])
def test_any_file_name_comes_back(tmp_path_factory, ending, names):
    path = tmp_path_factory.mktemp("names") / f"a.{ending}"
    write(path, *map(Score, names))
    found = [row["path"] for row in read(path)]
    if ending == "jsonl":  # JSON can hold half a surrogate
        assert found == names
    else:
        assert found == [name.encode("utf-8", "backslashreplace").decode() for name in names]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_line_is_on_disk_as_soon_as_its_row_is_written(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    with open_table(path) as add:
        add(SCORED)
        assert len(read(path)) == 1
        add(FAILED)
        assert len(read(path)) == 2


def break_off(table):
    with table as add:
        add(SCORED)
        raise KeyboardInterrupt


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_that_breaks_off_keeps_the_rows_so_far(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    with pytest.raises(KeyboardInterrupt):
        break_off(open_table(path))
    assert len(read(path)) == 1


def test_parquet_is_written_in_groups(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, *[FAILED] * (ROW_GROUP + 1))
    groups = parquet.ParquetFile(path).metadata
    assert [groups.row_group(k).num_rows for k in range(groups.num_row_groups)] == [ROW_GROUP, 1]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_without_rows_has_its_columns(tmp_path, ending):
    write(tmp_path / f"a.{ending}")
    assert read_rows(tmp_path / f"a.{ending}").columns == SCORE_COLUMNS


@pytest.mark.parametrize("scores", [[], [SCORED], [SCORED, FAILED]])
def test_a_json_array_is_one_document_of_whole_rows(scores):
    stream = io.StringIO()
    with json_array(stream) as add:
        for score in scores:
            add(score)
    rows = json.loads(stream.getvalue())
    assert [row["mos"] for row in rows] == [score.mos and 3.142 for score in scores]
    assert all(tuple(row) == SCORE_COLUMNS for row in rows)


def test_a_json_array_that_breaks_off_is_closed():
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        break_off(json_array(stream))
    assert len(json.loads(stream.getvalue())) == 1


def test_csv_lines_end_in_a_bare_newline():
    stream = io.StringIO(newline="")
    with csv_table(stream) as add:
        add(FAILED)
    assert stream.getvalue().count("\n") == 2
    assert "\r" not in stream.getvalue()


def test_folders_on_the_way_are_made(tmp_path):
    write(tmp_path / "new" / "er" / "a.csv", FAILED)
    assert len(read(tmp_path / "new" / "er" / "a.csv")) == 1


def test_another_ending_is_refused_by_those_known(tmp_path):
    message = r"a\.xlsx: ends in '\.xlsx'; a table ends in \.csv, \.jsonl, \.parquet"
    with pytest.raises(ConfigError, match=message):
        write(tmp_path / "a.xlsx")


def test_parquet_without_its_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'voxpanel\[parquet\]'"):
        write(tmp_path / "a.parquet")


def clip(system, mos=None, half=0.5):
    if mos is None:
        return Score("x.wav", system=system, error="silent")
    return Score("x.wav", mos=mos, mos_low=mos - half, mos_high=mos + half, system=system)


def test_system_means_are_those_worked_by_hand():
    tally = Tally()
    rows = [clip("B", 2.0), clip("A", 4.0), clip("A", 3.0, 1.0), clip("A"), clip(None, 1.0)]
    for row in [*rows, clip("C")]:
        tally.add(row)
    b, a, c = tally.system_means()
    assert (tally.n, tally.n_failed) == (6, 2)
    assert (b.system, b.n, b.n_failed, b.mos) == ("B", 1, 0, 2.0)
    assert (a.system, a.n, a.n_failed, a.mos, a.mos_low, a.mos_high) == ("A", 2, 1, 3.5, 2.75, 4.25)
    assert (c.system, c.n, c.n_failed, c.mos) == ("C", 0, 1, None)


def test_a_score_without_an_interval_counts_as_certain():
    tally = Tally()
    tally.add(Score("a.wav", mos=3.0, system="A"))
    (mean,) = tally.system_means()
    assert math.isclose(mean.mos_low, 3.0)
