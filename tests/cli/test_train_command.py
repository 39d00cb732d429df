"""`voxpanel train`, and the other commands with the model that comes of it."""

import csv
import json
from unittest.mock import Mock

import pytest
from hostile import voice, wav_bytes

from voxpanel import cli
from voxpanel.config import read_config
from voxpanel.evaluate import evaluate
from voxpanel.rows import read_rows
from voxpanel.score import Scorer

N_CLIPS = 12
RECIPE = """
name: small
backbone: {name: melbank}
validation: {folds: 3, members: 2}
stages:
  - {name: classes, clips: named, epochs: 1, learning_rate: 0.001, mos: [0, 0], synthesizer: [1, 1]}
  - {name: ratings, clips: rated, epochs: 9, learning_rate: 0.001, mos: [1, 1], synthesizer: [0, 0]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make rated clips, train a small model on them through the command."""
    folder = tmp_path_factory.mktemp("train")
    rows = [["path", "system", "score", "sentence", "synthesizer"]]
    for place in range(N_CLIPS):
        name = f"clip{place}.wav"
        (folder / name).write_bytes(wav_bytes(voice(1.0, seed=place)))
        rows.append([name, f"S{place % 4}", 1 + place % 4, f"t{place // 2}", "xy"[place % 2]])
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "small.yaml").write_text(RECIPE)
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(train_arguments(folder, "model", "--json"))
    return folder


def train_arguments(folder, out, *more):
    paths = (f"{folder}/ratings.csv", "--out", f"{folder}/{out}", "--cache", f"{folder}/cache")
    recipe = ("--config", f"{folder}/small.yaml", "--set", "stages.1.epochs=2")
    return ["train", *paths, *recipe, *more]


def test_options_become_the_settings_of_the_run(folder):
    settings = read_config(str(folder / "model" / "run" / "config.yaml"))
    assert settings.name == "small"
    assert [stage.epochs for stage in settings.stages] == [1, 2]


def test_the_record_is_printed_as_json_and_talk_goes_to_stderr(folder, voxpanel):
    done = voxpanel(*train_arguments(folder, "again", "--json"))
    record = json.loads(done.out)
    held_out = record["measured"]["held out by sentence"]
    assert done.status == 0
    assert record["name"] == "again"
    written = json.loads((folder / "again" / "config.json").read_text(encoding="utf-8"))
    assert record["trained_on"] == written["training"]
    assert 0 < held_out["utterance"]["n"] <= N_CLIPS
    assert "member 2 of 2: 3 steps" in done.err
    assert "3/3  ratings: utterance LCC" in done.err


def test_a_finished_run_is_not_replaced_but_continued_or_forced(folder, voxpanel):
    refused = voxpanel(*train_arguments(folder, "model"))
    assert refused.status == 2
    assert "continue its run with --resume, or replace it with --force" in refused.err
    weights = (folder / "model" / "model.safetensors").read_bytes()
    for option in ("--resume", "--force"):
        done = voxpanel(*train_arguments(folder, "model", option))
        assert done.status == 0
        assert "measured, held out by sentence:" in done.out
        assert (folder / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "optimizer.batch_sise=8"), "did you mean 'batch_size'?"),
        (("--config", "frosen"), "frosen: no such recipe or file; recipes are "),
        (("--resume", "--force"), "either go on with a run or start over"),
    ],
)
def test_a_request_without_sense_has_status_2(folder, voxpanel, arguments, message):
    done = voxpanel(*train_arguments(folder, "none", *arguments))
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert not (folder / "none").exists()


def test_a_manifest_that_is_wrong_has_status_1(folder, voxpanel):
    done = voxpanel("train", folder / "none.csv", "--out", folder / "none")
    assert (done.status, done.err) == (
        1,
        f"voxpanel: {folder}/none.csv: No such file or directory\n",
    )


def test_ctrl_c_says_how_to_go_on(folder, voxpanel, monkeypatch):
    interrupt = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("voxpanel.train.run.train", interrupt)
    done = voxpanel(*train_arguments(folder, "none"))
    assert (done.status, done.err) == (130, "interrupted; --resume goes on from here\n")


def test_of_several_processes_only_the_first_talks(folder, voxpanel, monkeypatch):
    def run(*args, **options):  # noqa: ARG001  # those of `train`
        watcher = args[3]
        watcher.begin("features", 2)
        watcher.advance("a note")
        watcher.say("something")

    monkeypatch.setattr("voxpanel.train.run.train", run)
    monkeypatch.setenv("RANK", "1")
    assert voxpanel(*train_arguments(folder, "model")) == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    done = voxpanel(*train_arguments(folder, "model"))
    lines = ["features: 2 steps", "  1/2  a note", "something"]
    assert done.err.splitlines()[:3] == lines
    assert done.out.startswith("model 0.1.0\n")


def test_the_model_scores_and_is_evaluated(folder, voxpanel):
    table = folder / "scores.jsonl"
    model = ("--model", folder / "model")
    scored = voxpanel("score", folder / "ratings.csv", *model, "-o", table, "--experts")
    assert scored.status == 0
    rows = [cells for _, cells in read_rows(table).rows]
    assert [row["path"] for row in rows] == [f"{folder}/clip{k}.wav" for k in range(N_CLIPS)]
    assert rows[0]["model"] == Scorer.load(folder / "model").model_id
    for row in rows:
        gates = [float(cell) for name, cell in row.items() if name.startswith("gate_")]
        assert len(gates) == 8  # 2 members of 4 experts
    by_table = voxpanel("evaluate", table, folder / "ratings.csv", "--json")
    by_model = voxpanel("evaluate", folder / "ratings.csv", *model, "--json")
    found = [json.loads(done.out)["utterance"]["mse"]["value"] for done in (by_table, by_model)]
    assert found[0] == pytest.approx(found[1], abs=0.004)  # 3 decimals: 2 * 0.0005 * 4
    assert found[0] == evaluate(table, folder / "ratings.csv").utterance.mse
