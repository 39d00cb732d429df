"""Imports point down: cli at the top, errors at the bottom, nothing up or sideways.

A room is a package or a module directly under `voxpanel`; inside a room anything
may import anything. Imports in functions count as much as those at the top.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "voxpanel"

LAYERS = (
    ("__main__",),
    ("cli",),
    ("serve", "batch", "conformance"),
    ("report", "score", "train"),
    ("engines", "model", "augment"),
    ("data", "features", "inputs", "tables"),
    ("audio", "measure", "evaluate", "config", "rows"),
    ("records", "scales"),
    ("errors",),
)
HEIGHT = {room: -depth for depth, layer in enumerate(LAYERS) for room in layer}
SIDEWAYS = {
    ("measure", "audio"): "what is measured is samples, and audio alone makes samples",
    ("evaluate", "rows"): "both levels are computed on rows read from tables",
}
FACE = "the package's face"  # `voxpanel` itself, which imports everything lazily
HEAVY = {"torch", "transformers", "scipy"}
LIGHT_ROOMS = (
    "config",
    "errors",
    "evaluate",
    "inputs",
    "records",
    "rows",
    "tables",
)  # for use without torch
ROOM_FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(source):
    """Return every absolute module name that a source imports, wherever it does."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the absolute name"
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules


def imported_rooms(source):
    """Return the rooms a source imports; anyone may ask `voxpanel` for its version."""
    rooms = set()
    for module in imported_modules(source):
        package, *names = module.split(".")
        if package == "voxpanel" and names != ["__version__"]:
            rooms.add(names[0] if names and is_room(names[0]) else FACE)
    return rooms


def is_room(name):
    return name in HEIGHT or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def refusal(room, imported):
    """Say why `room` may not import `imported`; None if it may."""
    if room == imported or (room, imported) in SIDEWAYS:
        return None
    if imported == FACE:
        return f"{room} imports from `voxpanel` itself; import from the room that has the name"
    for name in (room, imported):
        if name not in HEIGHT:
            return f"{name} is a new room: add the room to LAYERS"
    if HEIGHT[room] > HEIGHT[imported]:
        return None
    return f"{room} imports {imported}, which does not lie below it"


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    rooms = imported_rooms(path.read_text(encoding="utf-8"))
    refusals = [refusal(room_of(path), room) for room in sorted(rooms)]
    assert [reason for reason in refusals if reason] == []


def test_the_face_imports_our_rooms_only_in_functions():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in statements if "voxpanel" in ast.unparse(node)] == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("score", "from voxpanel.audio import read"),
        ("cli", "def run():\n    from voxpanel.score import Scorer"),
        ("evaluate", "from voxpanel.evaluate.metrics import lcc"),  # inside the room
        ("measure", "from voxpanel.audio import Audio"),  # sideways, for a stated reason
        ("cli", "from voxpanel import __version__"),
        ("audio", "import numpy as np"),
    ],
)
def test_an_import_from_below_or_within_is_allowed(room, source):
    assert [refusal(room, imported) for imported in imported_rooms(source)] in ([], [None])


@pytest.mark.parametrize(
    ("room", "source", "reason"),
    [
        ("audio", "from voxpanel.score import Scorer", "score, which does not lie below"),
        ("train", "def run():\n    import voxpanel.score", "score, which does not lie below"),
        ("audio", "from voxpanel import measure", "measure, which does not lie below"),
        ("train", "from voxpanel import load", "import from the room that has the name"),
        ("attic", "from voxpanel.errors import DataError", "attic is a new room: add the room"),
    ],
)
def test_an_import_from_above_or_beside_is_refused_with_its_reason(room, source, reason):
    (imported,) = imported_rooms(source)
    assert reason in refusal(room, imported)


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_rows_and_metrics_need_no_torch(room):
    files = [path for path in ROOM_FILES if room_of(path) == room]
    assert files, f"{room} is gone: take it out of LIGHT_ROOMS"
    modules = {name for path in files for name in imported_modules(path.read_text("utf-8"))}
    assert {name.split(".")[0] for name in modules} & {"torch", "transformers"} == set()


@pytest.mark.parametrize(
    "statement",
    [
        "import voxpanel",
        "import runpy; sys.argv[1:] = ['--help']; runpy.run_module('voxpanel', alter_sys=True)",
    ],
    ids=["import voxpanel", "python -m voxpanel --help"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement):
    code = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", *sorted({HEAVY!r} & set(sys.modules))))
{statement}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]
