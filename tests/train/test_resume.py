"""A run that is stopped anywhere ends with the very bits of one that was not.

Stops come from inside, before or after anything a run writes and in the middle of
writing; the last tests kill a process from outside.
"""

import itertools
import json
import os
import random
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


class StoppedHere(Exception):
    """Stands for whatever ends a process."""


class Interrupter:
    """Stops a run at the moment that a countdown names; every wrapped call has two."""

    def __init__(self) -> None:
        self.n_left = 0

    def tick(self) -> None:
        self.n_left -= 1
        if self.n_left == 0:
            raise StoppedHere

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
    manifest = write_corpus(folder)
    return manifest, write_encoder(folder / "encoder"), folder / "cache"


def variant(name, encoder):
    balance = {"balance_tasks": name if name in {"uncertainty", "dynamic"} else "schedule"}
    if name == "fine-tuned":
        backbone = {"name": "transformer", "source": str(encoder), "fine_tune": True}
        return small_config(epochs=1, backbone=backbone)
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


VARIANTS = ["frozen", "uncertainty", "dynamic", "fine-tuned"]


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
        except StoppedHere:
            n_stops += 1
    assert n_stops >= 5
    assert hashes(tmp_path / "model") == expected
    assert not list((tmp_path / "model" / "run").glob("*.draft"))


def test_a_run_may_stop_at_any_of_its_moments(data, straight, interrupter, tmp_path):
    manifest, encoder, cache = data
    expected = hashes(straight("frozen"))
    config = variant("frozen", encoder)
    for moment in itertools.count(1, 1):
        interrupter.n_left, out = moment, tmp_path / str(moment) / "model"
        try:
            train([manifest], out, config, Notes(), cache=cache)
            break
        except StoppedHere:
            interrupter.n_left = 0
            train([manifest], out, config, Notes(), cache=cache, resume=True)
        assert hashes(out) == expected, moment
    print(moment)
    assert moment > 100
