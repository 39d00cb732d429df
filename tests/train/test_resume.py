"""A run that is stopped anywhere ends with the very bits of one that was not.

Stops come from inside, before or after anything a run writes and in the middle of
writing; the last tests kill a process from outside.
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import one_run
import pytest
from corpus import Notes, small_config, write_corpus, write_encoder

import voxpanel
from voxpanel.errors import CheckpointError, ConfigError
from voxpanel.train import loop, run, state
from voxpanel.train.run import train
from voxpanel.train.runlog import RunFolder, hash_file

RESULTS = ("model.safetensors", "config.json", "README.md", "run/metrics.jsonl", "run/curves.svg")
MEMBERS = {"folds": 2, "members": 2}


class Stopped(Exception):  # noqa: N818  # nothing is wrong
    """Stands for whatever ends a process."""


class Interrupter:
    """Stops a run at the moment that a countdown names; every wrapped call has two."""

    def __init__(self) -> None:
        self.n_left = 0

    def tick(self) -> None:
        self.n_left -= 1
        if self.n_left == 0:
            raise Stopped

    def wrap(self, function):
        def wrapped(*args, **kwargs):
            self.tick()
            result = function(*args, **kwargs)
            self.tick()
            return result

        return wrapped


@pytest.fixture
def interrupter(monkeypatch):
    """Save the state after every step, and stop a run where the test says."""
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 0)
    found = Interrupter()
    places = [
        (loop.Trainer, ["step", "finish_epoch"]),
        (loop, ["save_state"]),
        (run, ["save_state", "save_model"]),
        (state, ["save_file"]),  # between a draft and the file that it becomes
        (RunFolder, ["clear", "log", "finish"]),
        (Path, ["write_text", "unlink"]),
    ]
    for owner, names in places:
        for name in names:
            monkeypatch.setattr(owner, name, found.wrap(getattr(owner, name)))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a manifest, an encoder's folder and a cache, for all runs here."""
    folder = tmp_path_factory.mktemp("data")
    manifest, cache = write_corpus(folder), folder / "cache"
    train([manifest], folder / "earlier", small_config("joint", epochs=1), Notes(), cache=cache)
    return manifest, write_encoder(folder / "encoder"), cache


def variant(name, encoder):
    balance = {"balance_tasks": name if name in {"uncertainty", "dynamic"} else "schedule"}
    if name.startswith("fine-tuned"):
        backbone = {"name": "transformer", "source": str(encoder), "fine_tune": True}
        return small_config(epochs=8 if name.endswith("long") else 1, backbone=backbone)
    if name == "blended":
        blend = {"ridge": 0.4, "prior": 0.2, "model": str(encoder.parent / "earlier")}
        return small_config(blend=blend, validation={**MEMBERS, "metric": "last"})
    if name == "long":
        return small_config(epochs=60, validation=MEMBERS)
    epochs = 3 if name == "dynamic" else 2  # its weights need two epochs behind them
    return small_config(epochs=epochs, losses=balance, validation=MEMBERS)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """Return `straight(name)`: the folder of a variant's run that nothing stopped."""
    manifest, encoder, cache = data
    made = {}

    def once(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "model"
            train([manifest], made[name], variant(name, encoder), Notes(), cache=cache)
        return made[name]

    return once


def hashes(out):
    return {name: hash_file(out / name) for name in RESULTS}


VARIANTS = ["frozen", "uncertainty", "dynamic", "blended", "fine-tuned"]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_stopped_many_times_ends_with_the_same_bits(
    name, data, straight, interrupter, tmp_path
):
    manifest, encoder, cache = data
    expected = hashes(straight(name))
    strides, n_stops = random.Random(name), 0
    while True:
        interrupter.n_left = strides.randint(1, 40)
        try:
            config = variant(name, encoder)
            train([manifest], tmp_path / "model", config, Notes(), cache=cache, resume=True)
            break
        except Stopped:
            n_stops += 1
    assert n_stops >= 5
    assert hashes(tmp_path / "model") == expected
    assert not list((tmp_path / "model" / "run").glob("*.draft"))


@pytest.mark.parametrize(
    "stride", [23, pytest.param(5, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_run_may_stop_at_any_of_its_moments(stride, data, straight, interrupter, tmp_path):
    manifest, encoder, cache = data
    expected = hashes(straight("frozen"))
    config = variant("frozen", encoder)
    for moment in itertools.count(1, stride):
        interrupter.n_left, out = moment, tmp_path / str(moment) / "model"
        try:
            train([manifest], out, config, Notes(), cache=cache)
            break
        except Stopped:
            interrupter.n_left = 0
            train([manifest], out, config, Notes(), cache=cache, resume=True)
        assert hashes(out) == expected, moment
    assert moment > 100


def test_a_member_does_not_go_on_from_the_state_of_the_one_before(data, straight, tmp_path):
    manifest, encoder, cache = data
    out, config = tmp_path / "model", variant("frozen", encoder)
    removed = []

    def stop_at_the_state(path, **_):
        if path.name == "state.safetensors":
            removed.append(path)
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", stop_at_the_state)
        with pytest.raises(Stopped):
            train([manifest], out, config, Notes(), cache=cache)
    assert (out / "run" / "member-0.safetensors").exists()
    assert removed[0].exists()
    train([manifest], out, config, Notes(), cache=cache, resume=True)
    assert hashes(out) == hashes(straight("frozen"))


def test_a_replacement_stopped_while_it_clears_is_no_run_to_resume(
    data, straight, interrupter, tmp_path
):
    manifest, encoder, cache = data
    out = tmp_path / "model"
    shutil.copytree(straight("frozen"), out)
    interrupter.n_left = 4  # `clear` began and has removed the first file
    other = variant("dynamic", encoder)
    with pytest.raises(Stopped):
        train([manifest], out, other, Notes(), cache=cache, force=True)
    assert (out / "run" / "member-0.safetensors").exists()
    with pytest.raises(ConfigError, match="not empty"):
        train([manifest], out, other, Notes(), cache=cache, resume=True)
    train([manifest], out, other, Notes(), cache=cache, force=True)
    assert hashes(out) == hashes(straight("dynamic"))


def test_resuming_a_run_that_is_done_changes_nothing(data, straight, tmp_path):
    manifest, encoder, cache = data
    out = tmp_path / "model"
    shutil.copytree(straight("frozen"), out)
    train([manifest], out, variant("frozen", encoder), Notes(), cache=cache, resume=True)
    assert hashes(out) == hashes(straight("frozen"))


def test_resuming_where_there_is_no_run_starts_one(data, straight, tmp_path):
    manifest, encoder, cache = data
    config = variant("frozen", encoder)
    out = train([manifest], tmp_path / "model", config, Notes(), cache=cache, resume=True)
    assert hashes(out) == hashes(straight("frozen"))


@pytest.fixture
def stopped(data, interrupter, tmp_path):
    """Return the folder of a run that was stopped in its first member."""
    manifest, encoder, cache = data
    out = tmp_path / "model"
    interrupter.n_left = 60
    with pytest.raises(Stopped):
        train([manifest], out, variant("frozen", encoder), Notes(), cache=cache)
    interrupter.n_left = 0
    assert (out / "run" / "state.safetensors").exists()
    assert not (out / "config.json").exists()
    return out


def test_a_damaged_state_is_refused_by_name(stopped, data):
    manifest, encoder, cache = data
    file = stopped / "run" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"run/state\.safetensors: not the state of a run"):
        train([manifest], stopped, variant("frozen", encoder), Notes(), cache=cache, resume=True)


def test_other_settings_do_not_continue_a_run(stopped, data):
    manifest, encoder, cache = data
    config = variant("frozen", encoder).model_copy(update={"seed": 1})
    with pytest.raises(ConfigError, match=r"config\.yaml: the run was started with other settings"):
        train([manifest], stopped, config, Notes(), cache=cache, resume=True)


def test_a_changed_manifest_does_not_continue_a_run(stopped, data):
    manifest, encoder, cache = data
    changed = manifest.with_name("changed.csv")
    changed.write_text(manifest.read_text().replace("4.", "3."))
    with pytest.raises(ConfigError, match="started from another manifest, or it was changed since"):
        train([changed], stopped, variant("frozen", encoder), Notes(), cache=cache, resume=True)


def test_a_folder_in_use_is_left_alone_unless_told(stopped, straight, data):
    manifest, encoder, cache = data
    config = variant("frozen", encoder)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="not empty; continue its run with --resume, or replace"):
        train([manifest], stopped, config, Notes(), cache=cache)
    assert before == {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    train([manifest], stopped, config, Notes(), cache=cache, force=True)
    assert hashes(stopped) == hashes(straight("frozen"))


def start_process(folder, data, config, *, resume):
    manifest, _, cache = data
    wanted = {
        "manifest": str(manifest),
        "cache": str(cache),
        "config": config.model_dump(mode="json"),
        "resume": resume,
        "save_every_step": True,
    }
    (folder / "run.json").write_text(json.dumps(wanted))
    paths = [Path(voxpanel.__file__).parents[1], *Path(one_run.__file__).parents[:2]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, one_run.__file__, str(folder)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def kill_in_training(process, folder, after_s):
    """Kill a process some time after it has begun to write states; return its exit status."""
    state_file = folder / "model" / "run" / "state.safetensors"
    before = state_file.stat().st_mtime_ns if state_file.exists() else None
    while process.poll() is None and (
        not state_file.exists() or state_file.stat().st_mtime_ns == before
    ):
        time.sleep(0.01)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize(
    ("name", "n_kills"),
    [
        ("long", 1),
        pytest.param("long", 5, marks=pytest.mark.slow),
        pytest.param("fine-tuned long", 4, marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_is_continued_to_the_same_bits(name, n_kills, data, straight, tmp_path):
    manifest, encoder, cache = data
    config, delays = variant(name, encoder), random.Random(n_kills)
    for _ in range(n_kills):
        process = start_process(tmp_path, data, config, resume=True)
        status = kill_in_training(process, tmp_path, delays.uniform(0, 0.3))
        assert status == -signal.SIGKILL
    assert not (tmp_path / "model" / "config.json").exists()
    out = train([manifest], tmp_path / "model", config, Notes(), cache=cache, resume=True)
    assert hashes(out) == hashes(straight(name))
