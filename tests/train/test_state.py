"""The state of a run: everything comes back to the bit, or is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from voxpanel.errors import CheckpointError
from voxpanel.train import state as room
from voxpanel.train.state import (
    load_state,
    optimizer_tensors,
    pack,
    restore_optimizer,
    save_state,
    seed_step,
    unpack,
)

RECORD = {"stage": 1, "stop": [0.1, None], "history": [{"lcc": 1 / 3, "note": "joint"}], "é": "ü"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.safetensors"


def make_tensors():
    torch.manual_seed(0)
    return {
        "weights/a": torch.randn(3, 4),
        "weights/b": torch.tensor([math.inf, -math.inf, -0.0, 1e-45]),
        "scalar": torch.tensor(7.5),
        "whole": torch.arange(5),
        "fine": torch.randn(3, dtype=torch.float64),
        "turned": torch.randn(4, 3).T,
        "empty": torch.zeros(0, 3),
    }


def same_bits(one, other):
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8)
    )


def test_tensors_come_back_to_the_bit(path):
    tensors = make_tensors()
    save_state(path, tensors, RECORD)
    found, _ = load_state(path)
    assert found.keys() == tensors.keys()
    assert all(found[name].shape == tensor.shape for name, tensor in tensors.items())
    assert all(same_bits(found[name], tensor) for name, tensor in tensors.items())


def test_the_record_comes_back_the_same(path):
    save_state(path, make_tensors(), RECORD)
    assert load_state(path)[1] == RECORD


def test_two_names_of_one_tensor_are_both_saved(path):
    tensor = torch.randn(3)
    save_state(path, {"a": tensor, "b": tensor}, {})
    found, _ = load_state(path)
    assert torch.equal(found["a"], tensor)
    assert torch.equal(found["b"], tensor)


def test_saving_again_replaces_and_leaves_nothing_beside(path):
    save_state(path, {"a": torch.zeros(2)}, {"n": 1})
    save_state(path, {"b": torch.ones(2)}, {"n": 2})
    found, record = load_state(path)
    assert (list(found), record) == (["b"], {"n": 2})
    assert list(path.parent.iterdir()) == [path]


def test_a_run_that_dies_while_saving_keeps_the_state_before(path, monkeypatch):
    save_state(path, {"a": torch.zeros(2)}, {"n": 1})

    def die(tensors, file, metadata):
        file.write_text(f"{len(tensors)} of {metadata}")
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "save_file", die)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"a": torch.ones(2)}, {"n": 2})
    found, record = load_state(path)
    assert (found["a"].tolist(), record) == ([0.0, 0.0], {"n": 1})


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[:-1], lambda whole: whole[:9], lambda _: b"", lambda _: b"pickle" * 99],
    ids=["cut", "cut in its header", "empty", "something else"],
)
def test_a_damaged_state_is_refused(path, damage):
    save_state(path, make_tensors(), RECORD)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"state\.safetensors: not the state of a run"):
        load_state(path)


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"record": "{"}, {"record": "[1]"}])
def test_a_file_without_a_record_is_refused(path, metadata):
    room.save_file({"a": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="not the state of a run"):
        load_state(path)


def test_a_missing_state_is_refused(path):
    with pytest.raises(CheckpointError, match="not the state of a run"):
        load_state(path)


def test_groups_are_packed_and_unpacked():
    tensors = {"a.weight": torch.zeros(1), "best/a": torch.ones(1)}
    packed = {**pack("weights", tensors), **pack("best", {"a.weight": torch.full((1,), 2.0)})}
    assert unpack("weights", packed) == tensors
    assert list(unpack("best", packed)) == ["a.weight"]
    assert unpack("best", packed)["a.weight"].item() == 2.0
    assert unpack("optimizer", packed) == {}


def make_run():
    """Return a network, some of it frozen, and AdamW with two groups."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    network[0].bias.requires_grad_(False)
    groups = [
        {"params": list(network[0].parameters()), "peak": 1e-2},
        {"params": list(network[2].parameters()), "peak": 1e-3, "weight_decay": 0.0},
    ]
    return network, torch.optim.AdamW(groups, lr=1e-2)


def train(network, optimizer, steps):
    for step in steps:
        torch.manual_seed(seed_step(0, step))
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("n_before", [0, 1, 5])
def test_training_goes_on_to_the_same_bits(path, n_before):
    straight, optimizer = make_run()
    train(straight, optimizer, range(10))

    first, optimizer = make_run()
    train(first, optimizer, range(n_before))
    save_state(
        path,
        {**pack("weights", first.state_dict()), **pack("opt", optimizer_tensors(optimizer))},
        {},
    )
    second, optimizer = make_run()
    tensors, _ = load_state(path)
    second.load_state_dict(unpack("weights", tensors))
    restore_optimizer(optimizer, unpack("opt", tensors))
    train(second, optimizer, range(n_before, 10))
    pairs = zip(straight.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(same_bits(one, other) for one, other in pairs)


def test_restoring_leaves_the_groups_settings_alone():
    network, optimizer = make_run()
    train(network, optimizer, range(2))
    other_network, other = make_run()
    other.param_groups[0]["lr"] = 0.5
    restore_optimizer(other, copy.deepcopy(optimizer_tensors(optimizer)))
    assert other.param_groups[0]["lr"] == 0.5
    assert other.param_groups[0]["peak"] == 1e-2
    assert other.param_groups[1]["params"][0] is other_network[2].weight
    assert optimizer_tensors(other).keys() == optimizer_tensors(optimizer).keys()


def test_seeds_differ_between_steps_and_fit_every_generator():
    places = [(seed, epoch, batch) for seed in range(9) for epoch in range(9) for batch in range(9)]
    seeds = {seed_step(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_step(1, 11) != seed_step(11, 1)
    assert seed_step(0) != seed_step(0, 0)
