"""The command as a whole: help, version, unknown commands, names and layers."""

import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import voxpanel as package

ROOT = Path(__file__).parent.parent.parent
HEAVY = {"torch", "transformers", "scipy", "numpy", "soundfile", "pyarrow"}
COMMANDS = ("score", "train", "evaluate", "models")


def test_the_version_is_that_of_the_project(voxpanel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert package.__version__ == project["version"]
    assert voxpanel("--version").out == f"voxpanel {project['version']}\n"


def test_the_installed_command_is_this_one():
    (entry,) = metadata.entry_points(group="console_scripts", name="voxpanel")
    assert entry.value == "voxpanel.cli:main"


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_help_names_the_options_and_does_nothing(voxpanel, command):
    done = voxpanel(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out == voxpanel(*command, "-h").out
    assert done.out.startswith("Usage: voxpanel")


def test_help_of_a_command_loads_nothing_heavy_and_takes_under_a_second():
    code = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", *sorted({HEAVY!r} & set(sys.modules))))
from voxpanel.cli import main
main(["score", "--help"])
"""
    times_s = []
    for _ in range(3):  # the best of three, for a machine that is busy with other things
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        times_s.append(time.perf_counter() - start)
    assert done.stdout.splitlines()[-1].split() == [b"loaded:"]
    assert min(times_s) < 1.0


def test_a_slip_in_a_command_is_answered_with_the_one_meant(voxpanel):
    done = voxpanel("scroe", "talk.wav")
    assert done.status == 2
    assert "Did you mean 'score'?" in done.err


def test_without_a_command_the_help_is_shown(voxpanel):
    assert "Usage: voxpanel" in "".join(voxpanel()[1:])


@pytest.mark.parametrize("option", ["--resume", "--shard", "--workers", "--listener"])
def test_an_option_that_does_not_exist_is_refused(voxpanel, option):
    done = voxpanel("score", "talk.wav", option)
    assert done.status == 2
    assert option in done.err
