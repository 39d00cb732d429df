"""Rows of text, and the line that each is found on."""

import datetime
import json
import sys

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from voxpanel.errors import ManifestError
from voxpanel.rows import Problems, read_rows


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path):
    return list(read_rows(path).rows)


def test_ids_stay_text(tmp_path):
    path = write(tmp_path, "a.csv", "path,system\na.wav,015\n")
    assert rows_of(path) == [(2, {"path": "a.wav", "system": "015"})]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_neither_a_byte_order_mark_nor_the_line_ends_matter(tmp_path, mark, newline):
    path = write(tmp_path, "a.csv", mark + newline.join(["path,mos", "a.wav,4", ""]).encode())
    assert read_rows(path).columns == ("path", "mos")
    assert rows_of(path) == [(2, {"path": "a.wav", "mos": "4"})]


def test_a_row_is_found_on_the_line_that_it_begins_on(tmp_path):
    path = write(tmp_path, "a.csv", 'path,text\na.wav,"one\ntwo"\n\nb.wav,three\n')
    assert [line for line, _ in rows_of(path)] == [2, 5]


# Half a surrogate pair is no text that a file could hold.
CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_any_text_comes_back_from_csv_as_the_csv_writer_wrote_it(tmp_path_factory, cells):
    lines = [
        "a,b",
        *(",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in cells),
    ]
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", "\r\n".join(lines))
    assert [tuple(row.values()) for _, row in rows_of(path)] == cells


def test_jsonl_gives_the_rows_that_csv_gives(tmp_path):
    rows = [
        {"path": 'a, "b" 🎧.wav', "mos": 4.5, "n": 3, "on": True},
        {"path": "c.wav", "mos": None},
    ]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    table = read_rows(write(tmp_path, "a.jsonl", lines))
    assert table.columns == ("path", "mos", "n", "on")
    assert list(table.rows) == [
        (1, {"path": 'a, "b" 🎧.wav', "mos": "4.5", "n": "3", "on": "true"}),
        (3, {"path": "c.wav", "mos": "", "n": "", "on": ""}),
    ]


def test_parquet_gives_the_rows_that_csv_gives(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"path": ["a.wav", "b.wav"], "system": ["015", None], "mos": [4.5, None]}
    parquet.write_table(pyarrow.table(columns), path)
    assert rows_of(path) == [
        (1, {"path": "a.wav", "system": "015", "mos": "4.5"}),
        (2, {"path": "b.wav", "system": "", "mos": ""}),
    ]


def test_a_parquet_cell_that_is_no_text_is_refused_by_row_and_column(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"path": [datetime.date(2025, 1, 1)]}), path)
    with pytest.raises(ManifestError, match=r"a\.parquet row 1: column 'path' holds a date"):
        rows_of(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ManifestError, match=r"pip install 'voxpanel\[parquet\]'"):
        read_rows(write(tmp_path, "a.parquet", "PAR1"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv: empty; the first line names the columns"),
        ("a.csv", "path;mos\na.wav;4\n", "separated by semicolons; save it with commas"),
        ("a.csv", "path\tmos\na.wav\t4\n", "separated by tabs"),
        ("a.csv", "path,mos,mos\na.wav,4,4\n", "column 'mos' occurs twice"),
        ("a.csv", b"path\na.wav\nh\xe4.wav\n", r"a\.csv line 3: not UTF-8 text"),
        (
            "a.csv",
            'path\na.wav\n"b.wav\nc.wav\n',
            r"a\.csv line 3: not CSV: unexpected end of data",
        ),
        ("a.jsonl", "\n", "empty; each line is a JSON object"),
        (
            "a.jsonl",
            '{"path": "a.wav"}\n{"path": }\n',
            r"a\.jsonl line 2: not JSON: .* at column 10",
        ),
        ("a.jsonl", '["a.wav"]\n', r"line 1: not a JSON object"),
        ("a.jsonl", '{"path": ["a.wav"]}\n', r"line 1: column 'path' holds a list"),
        ("a.parquet", "path\na.wav\n", "not a Parquet file"),
        ("a.xlsx", "", r"ends in '\.xlsx'; a table is a \.csv, \.jsonl or \.parquet file"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_way_out(tmp_path, name, content, message):
    with pytest.raises(ManifestError, match=message):
        rows_of(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl", "none.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(ManifestError, match=f"{name}: No such file"):
        read_rows(tmp_path / name)


def test_a_row_of_another_length_is_refused_or_noted(tmp_path):
    path = write(tmp_path, "a.csv", "path,mos\na.wav,4\nb, c.wav,4\nd.wav\ne.wav,3\n")
    with pytest.raises(ManifestError, match=r"line 3: 3 fields where the header has 2; a comma"):
        rows_of(path)
    problems = Problems(path)
    assert [line for line, _ in read_rows(path, problems).rows] == [2, 5]
    with pytest.raises(
        ManifestError, match=r"2 problems:\n.*line 3: 3 fields.*\n.*line 4: 1 fields"
    ):
        problems.raise_if_any()


def test_ten_problems_are_shown_and_all_are_counted(tmp_path):
    problems = Problems(tmp_path / "a.csv")
    problems.raise_if_any()
    for line in range(12):
        problems.add(line, "wrong")
    with pytest.raises(ManifestError, match="12 problems, the first 10:") as caught:
        problems.raise_if_any()
    assert str(caught.value).count("wrong") == 10
