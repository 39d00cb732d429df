import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from torch.nn import functional

import voxpanel
from voxpanel.errors import ConfigError
from voxpanel.train.parallel import Group, start

FLOAT32_ROUNDING = 1e-6  # sums of a few numbers near 1, in another order


def run_two(script, *arguments):
    source = Path(voxpanel.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    options = ["--nproc-per-node", "2", "--standalone"]
    return subprocess.run(
        [*torchrun, *options, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = run_two(two_processes.__file__, folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def plain_gradients(n_clips):
    """The same loss over a whole batch, written without a Group."""
    network, vectors, targets, labelled = two_processes.make_problem()
    clips = torch.arange(n_clips)
    scores, weights = network(vectors[:n_clips], clips)
    rated = labelled[:n_clips]
    usage = weights.mean(dim=0)
    loss = functional.smooth_l1_loss(scores[rated], targets[:n_clips][rated])
    loss = loss + usage.var(correction=0) / usage.mean() ** 2
    names_and_parameters = list(network.named_parameters())
    gradients = torch.autograd.grad(
        loss, [parameter for _, parameter in names_and_parameters], allow_unused=True
    )
    return [None if gradient is None else gradient.flatten().tolist() for gradient in gradients]


def assert_same_gradients(found, expected):
    assert [gradient is None for gradient in found] == [gradient is None for gradient in expected]
    for one, other in zip(found, expected, strict=True):
        assert one is None or one == pytest.approx(other, abs=FLOAT32_ROUNDING)


def test_two_processes_know_their_places(both):
    assert [found["rank"] for found in both] == [[0, 2, 0, True], [1, 2, 1, False]]


@pytest.mark.parametrize(("key", "n_clips"), [("gradients", 7), ("gradients of one clip", 1)])
def test_two_processes_have_the_gradient_of_one(both, key, n_clips):
    expected = plain_gradients(n_clips)
    assert any(gradient is None for gradient in expected)  # `unused` is there
    for found in both:
        assert_same_gradients(found[key], expected)


def test_both_processes_have_the_same_gradient_to_the_last_bit(both):
    assert both[0]["gradients"] == both[1]["gradients"]


def test_a_share_is_every_second_item_and_join_is_its_inverse(both):
    assert [found["share"] for found in both] == [list("aceg"), list("bdf")]
    assert [found["join"] for found in both] == [list("abcdefg")] * 2


def test_all_processes_gather_the_same(both):
    assert [found["gather"] for found in both] == [[{"rank": 0}, {"rank": 1}]] * 2


def test_the_first_process_decides(both):
    assert [found["agree"] for found in both] == ["decided by 0"] * 2


def test_a_sum_is_over_processes_and_leaves_its_argument(both):
    assert [found["sum"] for found in both] == [[3.0, 30.0]] * 2
    assert [found["own"] for found in both] == [[1.0, 10.0], [2.0, 20.0]]


def test_alone_a_group_has_the_plain_gradient():
    assert_same_gradients(two_processes.shared_gradients(Group()), plain_gradients(7))


def test_alone_a_group_gives_back_what_it_gets():
    group = Group()
    assert (group.share("abc"), group.join("abc")) == ("abc", ["a", "b", "c"])
    assert (group.gather(3), group.agree(3)) == ([3], 3)
    group.barrier()


def test_a_sum_carries_no_gradient_but_that_of_the_own_part_does():
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    assert not Group().sum(tensor).requires_grad
    Group().sum_with_own_gradient(tensor).sum().backward()
    assert tensor.grad.tolist() == [1.0, 1.0]


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with start() as group:
        assert group == Group(rank=0, size=1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set and RANK is '', expected a number"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two', expected a number"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
            "RANK is 2 and WORLD_SIZE is 2; ranks are 0 to WORLD_SIZE - 1",
        ),
    ],
)
def test_half_an_environment_is_refused(monkeypatch, environment, message):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        start()


@pytest.mark.slow
def test_an_error_in_one_process_ends_both(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "from voxpanel.train.parallel import start\n"
        "with start() as group:\n"
        "    if group.rank == 1:\n"
        "        raise ValueError('a reason')\n"
        "    group.barrier()\n"
    )
    done = run_two(script)
    assert done.returncode != 0
    assert "ValueError: a reason" in done.stderr


@pytest.mark.slow
def test_processes_end_well_time_after_time(tmp_path):
    codes = [run_two(two_processes.__file__, tmp_path).returncode for _ in range(8)]
    assert codes == [0] * 8
