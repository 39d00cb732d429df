"""What a user names, and the files that are meant."""

import io
import os
import sys

import pyarrow
import pytest
from pyarrow import parquet

from voxpanel.errors import AudioError, ManifestError
from voxpanel.inputs import Input, list_inputs

ODD_NAMES = [
    'comma, "quote".wav',
    "new\nline.wav",
    "ünïcødé 日本語 🎧.wav",
    " blank .wav",
    "-o.wav",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, so that relative paths are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def paths(*names):
    return [item.path for item in list_inputs(names)]


def test_a_file_keeps_its_path_as_given(folder):
    touch(folder, "a/talk.wav")
    assert paths("./a//talk.wav") == ["./a//talk.wav"]


def test_a_folder_is_listed_with_all_below_in_order(folder):
    touch(folder, "in/b.flac", "in/A.WAV", "in/deep/er/c.Mp3", "in/notes.txt", "in/clip.wav.bak")
    assert paths("in") == ["in/A.WAV", "in/b.flac", "in/deep/er/c.Mp3"]


def test_hidden_files_and_folders_are_left_out(folder):
    touch(folder, "in/a.wav", "in/._a.wav", "in/.cache/b.wav")
    assert paths("in") == ["in/a.wav"]


def test_links_are_followed_and_a_loop_ends(folder):
    touch(folder, "in/a.wav", "elsewhere/b.wav")
    (folder / "in" / "more").symlink_to(folder / "elsewhere")
    (folder / "in" / "round").symlink_to(folder / "in")
    assert paths("in") == ["in/a.wav", "in/more/b.wav"]


def test_a_folder_named_like_a_clip_is_a_folder(folder):
    touch(folder, "in/odd.wav/a.wav")
    assert paths("in") == ["in/odd.wav/a.wav"]


def test_a_folder_without_audio_is_refused_by_the_endings_looked_for(folder):
    touch(folder, "in/readme.txt", "a.wav")
    with pytest.raises(AudioError, match=r"in: no audio file .* looked for .*\.flac.*\.wav"):
        list_inputs(["a.wav", "in"])


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(folder, monkeypatch):
    touch(folder, "in/a.wav", "in/locked/b.wav")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AudioError, match=r"in/locked: cannot be read \(Permission denied\)"):
        list_inputs(["in"])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["a.wav", "b.wav"]),
        ("[ab].*", ["a.txt", "a.wav", "b.wav"]),
        ("**/c.wav", ["in/c.wav"]),
        ("i?", ["in/c.wav"]),
    ],
)
def test_a_pattern_is_what_it_matches_sorted(folder, pattern, expected):
    touch(folder, "b.wav", "a.wav", "in/c.wav")
    (folder / "a.txt").write_text("a.txt")  # a list that names itself
    assert sorted(paths(pattern)) == expected


def test_a_file_whose_name_is_a_pattern_is_that_file(folder):
    touch(folder, "take[1].wav", "take1.wav")
    assert paths("take[1].wav") == ["take[1].wav"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\0"])
def test_a_list_is_relative_to_itself_and_keeps_any_name(folder, line_end):
    names = [name for name in ODD_NAMES if line_end == "\0" or "\n" not in name]
    touch(folder, *(f"in/{name}" for name in names))
    content = line_end.join([*names, ""])
    (folder / "in" / "clips.TXT").write_bytes(content.encode())
    assert paths("in/clips.TXT") == [f"in/{name}" for name in names]


def test_a_list_on_stdin_is_relative_to_the_working_folder(folder, monkeypatch):
    touch(folder, "a.wav")
    listed = b"a.wav\n./in/caf\xe9.wav\n"  # the second name is no UTF-8
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert paths("-") == ["a.wav", os.fsdecode(b"./in/caf\xe9.wav")]


def test_a_list_in_another_encoding_is_refused_by_line(folder):
    (folder / "clips.txt").write_bytes(b"a.wav\nh\xe4.wav\n")
    with pytest.raises(ManifestError, match=r"clips\.txt line 2: not UTF-8"):
        list_inputs(["clips.txt"])


def test_manifests_give_each_clip_once_with_its_system(folder):
    touch(folder, "in/a.wav", "in/b.wav")
    rows = "path,system,score,listener\na.wav,X,4,p\nb.wav,,3,p\na.wav,,5,q\nb.wav,Y,2,q\n"
    (folder / "in" / "m.csv").write_text(rows)
    assert list_inputs(["in/m.csv"]) == [Input("in/a.wav", "X"), Input("in/b.wav", "Y")]


def test_all_kinds_of_manifest_say_the_same(folder):
    touch(folder, *ODD_NAMES)
    quoted = "".join('"{}",S\n'.format(name.replace('"', '""')) for name in ODD_NAMES)
    (folder / "m.csv").write_text(f"path,system\n{quoted}", encoding="utf-8")
    table = pyarrow.table({"path": ODD_NAMES, "system": ["S"] * len(ODD_NAMES)})
    parquet.write_table(table, folder / "m.parquet")
    expected = [Input(name, "S") for name in ODD_NAMES]
    assert list_inputs(["m.csv"]) == list_inputs(["m.parquet"]) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file\na.wav\n", r"m\.csv: no column 'path'; it has file"),
        ("path,system\na.wav,X\n,X\n", r"m\.csv line 3: column 'path' is empty"),
        ("path,system\na.wav,X\na.wav,Y\n", r"m\.csv: 'a\.wav' has system 'X' and 'Y'"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(folder, rows, message):
    touch(folder, "a.wav")
    (folder / "m.csv").write_text(rows)
    with pytest.raises(ManifestError, match=message):
        list_inputs(["m.csv"])


def test_what_is_named_twice_is_listed_once_where_it_came_first(folder):
    touch(folder, "in/b.wav", "in/a.wav")
    assert paths("in/b.wav", "in") == ["in/b.wav", "in/a.wav"]


@pytest.mark.parametrize("missing", ["none.wav", "none.csv", "none.txt", "none*.wav", "x" * 300])
def test_a_missing_path_is_kept_beside_one_that_exists(folder, missing):
    touch(folder, "a.wav")
    assert paths(missing, "a.wav") == [missing, "a.wav"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.wav"], r"none\.wav: no such file or folder"),
        (["", "nul\0.wav"], r"none of the 2 files exists; the first is ''"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_if_nothing_exists_the_request_is_refused(names, message):
    with pytest.raises(AudioError, match=message):
        list_inputs(names)


def test_an_empty_list_is_refused(folder):
    touch(folder, "clips.txt")
    with pytest.raises(AudioError, match="the list is empty"):
        list_inputs(["clips.txt"])
