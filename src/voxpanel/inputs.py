"""What a user names, as a list of audio files: files, folders, globs, lists, manifests.

Nothing is opened but lists and manifests. A path that does not exist stays in the
list, because its row in the score table says so; whether a file is audio is found
out by `audio.py`.
"""

import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxpanel.audio import AUDIO_SUFFIXES
from voxpanel.errors import AudioError, ManifestError
from voxpanel.rows import place, read_rows, read_text

STDIN = "-"
LIST_SUFFIX = ".txt"
TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Input:
    """An audio file to score.

    path: as given, or as found in a folder or list.
    system: what made it, if a manifest says so.
    """

    path: str
    system: str | None = None


def list_inputs(names: Sequence[str]) -> list[Input]:
    """Find the audio files that a user means.

    - a folder: every file in it and below whose ending is one of `AUDIO_SUFFIXES`, in
      whatever case, sorted; hidden ones are left out, links are followed
    - a `.txt` file: one path a line, or NUL between them, relative to the list
    - a `.csv`, `.jsonl` or `.parquet` file: its column `path`, relative to the table,
      and its column `system` if it has one; other columns are ignored
    - `-`: a list on stdin, relative to the working folder
    - a pattern with `*`, `?` or `[`: what it matches, sorted; `**` means all folders below
    - anything else: that file

    Returns:
        Each path once, in order of first appearance.

    Raises:
        AudioError: nothing that was named exists, or a folder holds no audio.
        ManifestError: a list or manifest cannot be read, or gives a clip two systems.
    """
    systems: dict[str, str | None] = {}
    for name in names:
        for found in expand(name):
            known = systems.setdefault(found.path, None)
            if known is None:
                systems[found.path] = found.system
            elif found.system not in (None, known):
                raise ManifestError(
                    f"{name}: {found.path!r} has system {known!r} and {found.system!r}; "
                    "a clip has one"
                )
    if not any(mode_of(path) for path in systems):
        raise AudioError(nothing_there(list(systems)))
    return [Input(path, system) for path, system in systems.items()]


def expand(name: str) -> Iterator[Input]:
    """Yield the audio files behind one name."""
    mode = mode_of(name)
    suffix = Path(name).suffix.lower()
    if name == STDIN:
        yield from list_lines(os.fsdecode(sys.stdin.buffer.read()))
    elif stat.S_ISDIR(mode):
        yield from list_folder(name)
    elif mode and suffix == LIST_SUFFIX:
        yield from list_lines(read_text(Path(name)), Path(name).parent)
    elif mode and suffix in TABLE_SUFFIXES:
        yield from list_table(Path(name))
    elif not mode and glob.has_magic(name):
        yield from list_matches(name)
    else:
        yield Input(name)


def mode_of(path: str) -> int:
    """Return a file's mode; 0 if it is not there or may not be asked about."""
    try:
        return Path(path).stat().st_mode if path else 0
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return 0


def list_folder(top: str) -> Iterator[Input]:
    """Yield the audio files in a folder and below, sorted by path."""
    found = []
    seen = set()
    for folder, below, files in os.walk(top, onerror=refuse_folder, followlinks=True):
        real = Path(folder).resolve()
        below[:] = [] if real in seen else sorted(name for name in below if name[0] != ".")
        if real not in seen:
            found += [str(Path(folder, name)) for name in files if is_audio_name(name)]
        seen.add(real)
    if not found:
        endings = ", ".join(sorted(AUDIO_SUFFIXES))
        raise AudioError(f"{top}: no audio file in this folder or below; looked for {endings}")
    yield from map(Input, sorted(found))


def refuse_folder(error: OSError) -> None:
    """Stop at a folder that cannot be read, since its clips would be left out in silence."""
    raise AudioError(f"{error.filename}: cannot be read ({error.strerror})") from error


def is_audio_name(name: str) -> bool:
    """Tell by its name whether a folder's listing takes a file for audio.

    >>> is_audio_name("TALK.WAV"), is_audio_name("talk.txt"), is_audio_name("._talk.wav")
    (True, False, False)
    """
    return Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".")


def list_lines(text: str, folder: Path | None = None) -> Iterator[Input]:
    """Yield the paths of a list, from the folder it lies in."""
    lines = text.split("\0") if "\0" in text else text.replace("\r\n", "\n").split("\n")
    for line in lines:
        if line:
            yield Input(line if folder is None else str(folder / line))


def list_table(source: Path) -> Iterator[Input]:
    """Yield the paths of a manifest or another table, with their systems."""
    table = read_rows(source)
    if "path" not in table.columns:
        raise ManifestError(f"{source}: no column 'path'; it has {', '.join(table.columns)}")
    for line, cells in table.rows:
        if not cells["path"]:
            where = place(source, line)
            raise ManifestError(f"{where}: column 'path' is empty; name an audio file")
        yield Input(str(source.parent / cells["path"]), cells.get("system") or None)


def list_matches(pattern: str) -> Iterator[Input]:
    """Yield what a pattern matches; the pattern itself if that is nothing."""
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207  # Path.glob has no absolute ones
    for match in sorted(matches):
        yield from expand(match)
    if not matches:
        yield Input(pattern)


def nothing_there(paths: Sequence[str]) -> str:
    """Say that none of the paths exists."""
    if not paths:
        return "the list is empty; name at least one audio file"
    if len(paths) == 1:
        return f"{paths[0]}: no such file or folder"
    return f"none of the {len(paths)} files exists; the first is {paths[0]!r}"
