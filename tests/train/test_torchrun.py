"""Two processes under torchrun train the model that one process trains.

One launch does all the runs: starting torchrun costs more than they do.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import one_run
import pytest
import torch
from corpus import Notes, small_config, write_corpus, write_encoder
from safetensors.torch import load_file

import voxpanel
from voxpanel.train.run import train

pytestmark = pytest.mark.slow

# Adam divides each gradient by its own size, so where float32 sums in another order
# leave little of a gradient, steps of the rate (0.001) differ by some hundredths.
TOLERANCE = 3e-5
NO_DROPOUT = {
    "fusion": {"dropout": 0.0, "test_dropout": 0.0},
    "mixture": {"dropout": 0.0},
}
PARTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
NO_ENCODER_DROPOUT = dict.fromkeys(PARTS, 0.0)
NAMES = ["frozen", "uncertainty", "fine-tuned"]


def variant(name, encoder):
    # Batches of 3 leave shares of two clips and of one, and the last batch one and none.
    changes = {**NO_DROPOUT, "optimizer": {"batch_size": 3}}
    if name == "fine-tuned":
        backbone = {"name": "transformer", "source": str(encoder), "fine_tune": True}
        sizes = {"optimizer": {"batch_size": 7}}  # of 8 clips one is left, of 6 all
        return small_config(epochs=1, **{**changes, **sizes}, backbone=backbone)
    balance = {"balance_tasks": "uncertainty" if name == "uncertainty" else "schedule"}
    return small_config(**changes, losses=balance)


@pytest.fixture(scope="module")
def outs(tmp_path_factory):
    """Return `{name: (the folder of one process, the folder of two)}`."""
    folder = tmp_path_factory.mktemp("runs")
    manifest, cache = write_corpus(folder), folder / "cache"
    encoder = write_encoder(folder / "encoder", **NO_ENCODER_DROPOUT)
    found = {}
    for name in NAMES:
        config, two = variant(name, encoder), folder / name / "two"
        two.mkdir(parents=True)
        wanted = {
            "manifest": str(manifest),
            "cache": str(cache),
            "config": config.model_dump(mode="json"),
            "resume": False,
            "save_every_step": True,
        }
        (two / "run.json").write_text(json.dumps(wanted))
        one = folder / name / "one" / "model"
        train([manifest], one, config, Notes(), cache=cache, device="cpu")
        found[name] = one, two / "model"
    launch([two.parent for _, two in found.values()])
    return found


def launch(folders):
    """Run `one_run.py` in two processes, to its end."""
    paths = [Path(voxpanel.__file__).parents[1], *Path(one_run.__file__).parents[:2]]
    search = os.pathsep.join(map(str, paths))
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         one_run.__file__, *map(str, folders)],
        env=os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.terminate()  # a kill would leave the two processes behind
        _, said = process.communicate()
    assert process.returncode == 0, said


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_the_model_of_one(name, outs):
    one, two = (load_file(out / "model.safetensors") for out in outs[name])
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        assert torch.allclose(two[key], tensor, rtol=1e-4, atol=TOLERANCE), key


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_log_what_one_logs(name, outs):
    one, two = (
        [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
        for out in outs[name]
    )
    assert len(one) == len(two) > 0
    for mine, other in zip(one, two, strict=True):
        assert mine.keys() == other.keys()
        for key in ("member", "stage", "epoch", "n_train", "dev_utterance_n", "dev_accuracy"):
            assert mine[key] == other[key]
        for key in [key for key in mine if key.startswith("train_")]:
            assert mine[key] == pytest.approx(other[key], abs=1e-4), key


@pytest.mark.parametrize("name", NAMES)
def test_both_folders_hold_the_same_files(name, outs):
    one, two = (
        {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        for out in outs[name]
    )
    assert one == two
