"""From a manifest to a model folder that scores: frozen, fine-tuned and warm-started."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from corpus import (
    MOS,
    UNRATED,
    Notes,
    read_rows,
    small_config,
    write_corpus,
    write_encoder,
    write_manifest,
)
from hostile import voice, wav_bytes

from voxpanel.config import read_config
from voxpanel.errors import AudioError, ConfigError, DataError
from voxpanel.features import store, transformer
from voxpanel.features.transformer import load_transformer
from voxpanel.model.checkpoint import load_model
from voxpanel.score import Scorer
from voxpanel.train import loop
from voxpanel.train.run import train
from voxpanel.train.validate import predict

STAGES = ["classes", "joint", "ratings"]
UNTRAINED = ("synthesizer_head.", "fusion.test.", "label_mean")  # own names, own mean


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the manifest of a small listening test."""
    return write_corpus(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return the folder of a tiny wav2vec 2.0 with random weights."""
    return write_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="module")
def frozen(data, cache, tmp_path_factory):
    """Return a model of two members over mel filters, trained long enough to rank systems."""
    config = small_config(epochs=15, rate=5e-3, validation={"folds": 2, "members": 2})
    return train([data], tmp_path_factory.mktemp("frozen") / "model", config, Notes(), cache=cache)


def tiny_paper(encoder, **changes):
    """Return the recipe `paper` with the tiny encoder and one epoch a stage."""
    overrides = {
        "backbone.source": encoder,
        "optimizer.batch_size": 4,
        "validation.folds": 2,
        **{f"stages.{stage}.epochs": 1 for stage in range(3)},
        **changes,
    }
    return read_config("paper", [f"{name}={value}" for name, value in overrides.items()])


@pytest.fixture(scope="module")
def fine_tuned(data, encoder, tmp_path_factory):
    """Return the paper's system in miniature."""
    config, out = tiny_paper(encoder), tmp_path_factory.mktemp("fine") / "model"
    return train([data], out, config, Notes(), device="cpu")


def history(out):
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(out):
    return load_model(out, "cpu").network.state_dict()


def clip_paths(manifest):
    return [
        manifest.parent / name for name in dict.fromkeys(r["path"] for r in read_rows(manifest))
    ]


def test_all_stages_run_in_order_for_every_member(frozen):
    seen = [(entry["member"], entry["stage"]) for entry in history(frozen)]
    order = [(member, stage) for member in range(2) for stage in STAGES]
    assert sorted(set(seen), key=seen.index) == order
    assert seen == sorted(seen, key=order.index)
    epochs = [entry["epoch"] for entry in history(frozen) if entry["stage"] == "joint"]
    assert epochs[0] == 0
    assert epochs.count(0) == 2


def test_a_trained_model_tells_good_from_bad(frozen, data):
    scorer = Scorer.load(frozen, device="cpu")
    paths = clip_paths(data)
    rows = list(scorer.score_many(paths, test="quiet"))
    assert [row.error for row in rows] == [None] * len(paths)
    means = {
        system: sum(row.mos for row in rows if Path(row.path).name.startswith(system)) / 4
        for system in MOS
    }
    assert means["clear"] > means["grainy"] > means["rough"]
    assert all(row.mos_low <= row.mos <= row.mos_high for row in rows)
    assert all(math.isclose(sum(row.gates), 1.0, abs_tol=1e-5) for row in rows)


def test_a_model_says_what_it_was_trained_on_and_how_well_it_does(frozen):
    record = load_model(frozen, "cpu").record
    assert record.synthesizers == tuple(sorted([*MOS, UNRATED]))
    assert record.tests == ("quiet",)
    assert record.training["clips"] == 16
    assert record.training["rated clips"] == 12
    assert record.training["ratings"] == 24
    assert record.measured["held out by sentence"]["utterance"]["n"] == 12  # both folds
    assert record.measured["synthesizers told"]["n"] == 16
    assert [report["usage"] for report in record.measured["experts"]]
    assert (record.calibration.n, record.calibration.basis) == (12, "held out by sentence")


def test_the_accuracy_of_the_card_is_that_of_the_last_validations(frozen):
    """With one fold a member, the best key of the last stage is what `judge` finds again."""
    best = {}
    for entry in history(frozen):
        if entry["stage"] == "ratings":
            key = (round(entry["dev_system_srcc"], 9), -entry["dev_system_mse"])
            best[entry["member"]] = max(best.get(entry["member"], (key, entry)), (key, entry),
                                        key=lambda pair: pair[0])  # fmt: skip
    squared = sum(entry["dev_utterance_mse"] * 6 for _, entry in best.values()) / 12
    measured = load_model(frozen, "cpu").record.measured["held out by sentence"]
    assert measured["utterance"]["mse"]["value"] == pytest.approx(squared, rel=1e-6)


def test_unlabelled_clips_take_part_in_the_stages_of_classes_only(frozen):
    n_train = {entry["stage"]: entry["n_train"] for entry in history(frozen)}
    assert n_train == {"classes": 8, "joint": 8, "ratings": 6}  # of 16 clips half is held out


def test_the_second_run_computes_no_features(data, cache, tmp_path, monkeypatch):
    train([data], tmp_path / "first", small_config("joint", epochs=1), Notes(), cache=cache)

    def refuse(*_):
        raise AssertionError("features were computed again")

    monkeypatch.setattr(store, "encode", refuse)
    monkeypatch.setattr(store, "read_clip", refuse)
    train([data], tmp_path / "model", small_config("joint", epochs=1), Notes(), cache=cache)
    with pytest.raises(AssertionError, match="computed again"):
        train([data], tmp_path / "other", small_config(), Notes(), cache=tmp_path / "empty")


def test_the_watcher_hears_of_every_clip_and_epoch(data, cache, tmp_path):
    notes = Notes()
    train([data], tmp_path / "model", small_config(), notes, cache=cache)
    assert notes.tasks == [("features", 16), ("member 1 of 1", 6)]
    assert notes.notes[:16] == [""] * 16
    assert [note.partition(":")[0] for note in notes.notes[16:]] == [
        stage for stage in STAGES for _ in range(2)
    ]
    assert "utterance LCC" in notes.notes[-1]
    assert notes.said == []


def test_one_synthesizer_makes_no_stage_of_classes(data, cache, tmp_path):
    rows = [{**row, "synthesizer": "clear" if row["system"] == "clear" else ""}
            for row in read_rows(data)]  # fmt: skip
    manifest = write_manifest(data.with_name("one.csv"), rows)
    out = train([manifest], tmp_path / "model", small_config(epochs=1), Notes(), cache=cache)
    assert [entry["stage"] for entry in history(out)] == ["joint", "ratings"]
    assert load_model(out, "cpu").record.synthesizers == ("clear",)


def test_without_synthesizers_a_model_names_none(data, cache, tmp_path):
    rows = [{**row, "synthesizer": ""} for row in read_rows(data) if row["score"]]
    manifest = write_manifest(data.with_name("none.csv"), rows)
    out = train([manifest], tmp_path / "model", small_config(epochs=1), Notes(), cache=cache)
    score = Scorer.load(out, device="cpu").score(clip_paths(data)[0])
    assert (score.synthesizer, score.synthesizer_p) == (None, None)


def test_the_split_of_the_manifest_is_kept(data, cache, tmp_path):
    split = {"one": "dev", "two": "test"}
    rows = [{**row, "split": split.get(row["sentence"], "train")} for row in read_rows(data)]
    manifest = write_manifest(data.with_name("split.csv"), rows)
    config = small_config(epochs=1, validation={"folds": 2, "members": 2})
    out = train([manifest], tmp_path / "model", config, Notes(), cache=cache)
    assert [(e["member"], e["stage"], e["n_train"]) for e in history(out)] == [
        (0, "classes", 8),
        (0, "joint", 8),
        (0, "ratings", 6),
    ]
    record = load_model(out, "cpu").record
    assert record.training["clips"] == 12
    assert record.training["ratings"] == 18  # those of the test split are not counted
    assert record.calibration.n == 3


def test_two_manifests_are_one_corpus(data, cache, tmp_path):
    rows = read_rows(data)
    parts = [
        write_manifest(data.with_name(f"part{n}.csv"), [row for row in rows if wanted(row)])
        for n, wanted in enumerate([lambda row: row["score"], lambda row: not row["score"]])
    ]
    config = small_config(epochs=1)
    both = train(parts, tmp_path / "both" / "model", config, Notes(), cache=cache)
    whole = train([data], tmp_path / "whole" / "model", config, Notes(), cache=cache)
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(both).items())


@pytest.fixture
def with_bad_files(data, tmp_path):
    """Return a manifest in which a rated clip is silent and another is text."""
    for path in clip_paths(data):
        shutil.copy(path, tmp_path)
    (tmp_path / "clear_one.wav").write_bytes(wav_bytes(0 * voice()))
    (tmp_path / "rough_two.wav").write_text("This is a transcript, not a recording.\n" * 40)
    return write_manifest(tmp_path / "ratings.csv", read_rows(data))


def assert_bad_files_are_left_out(out, notes):
    silent, text = sorted(notes.said)
    assert silent.startswith("left out: ")
    assert "clear_one.wav: silent" in silent
    assert "rough_two.wav: not audio" in text
    training = load_model(out, "cpu").record.training
    assert (training["clips"], training["rated clips"], training["ratings"]) == (14, 10, 20)


def test_bad_audio_is_left_out_by_name(with_bad_files, cache, tmp_path):
    notes = Notes()
    out = tmp_path / "model"
    train([with_bad_files], out, small_config(epochs=1), notes, cache=cache)
    assert_bad_files_are_left_out(out, notes)


def test_bad_audio_is_left_out_of_fine_tuning_too(with_bad_files, encoder, tmp_path):
    notes = Notes()
    out = tmp_path / "model"
    config = tiny_paper(encoder)
    config = config.model_copy(update={"stages": config.stages[2:]})
    train([with_bad_files], out, config, notes, device="cpu")
    assert_bad_files_are_left_out(out, notes)


def test_audio_that_is_bad_throughout_is_an_error(data, cache, tmp_path):
    for path in clip_paths(data):
        (tmp_path / path.name).write_text("nothing")
    manifest = write_manifest(tmp_path / "ratings.csv", read_rows(data))
    with pytest.raises(AudioError, match=r"none of 16 clips can be trained on; the first: .*not"):
        train([manifest], tmp_path / "model", small_config(), Notes(), cache=cache)


def test_a_fold_that_holds_every_rating_is_refused(data, cache, tmp_path):
    rows = [row for row in read_rows(data) if row["sentence"] == "one" or not row["score"]]
    manifest = write_manifest(data.with_name("narrow.csv"), rows)
    members = {"folds": 2, "members": 2}
    with pytest.raises(DataError, match=r"fold \d holds every rated clip; group by something"):
        train([manifest], tmp_path / "m", small_config(validation=members), Notes(), cache=cache)


def test_fine_tuning_moves_the_encoder_but_not_its_convolutions(fine_tuned, encoder):
    before = load_transformer(str(encoder)).state_dict()
    after = load_model(fine_tuned, "cpu").network.backbone.state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    convolutions = {name for name in before if name.startswith("convolutions.")}
    assert convolutions
    assert not moved & convolutions
    attention = {name for name in before if "attention" in name and name.endswith("weight")}
    assert len(attention) == 2 * 4
    assert attention <= moved


def test_convolutions_move_when_they_are_told_to(data, encoder, tmp_path):
    config = tiny_paper(encoder, **{"backbone.freeze_convolutions": "false"})
    config = config.model_copy(update={"stages": config.stages[2:]})
    out = train([data], tmp_path / "model", config, Notes(), device="cpu")
    before = load_transformer(str(encoder)).state_dict()
    after = load_model(out, "cpu").network.backbone.state_dict()
    name = "convolutions.3.conv.weight"
    assert not torch.equal(before[name], after[name])


def test_a_fine_tuned_model_needs_nothing_but_its_folder(fine_tuned, data, tmp_path, monkeypatch):
    def refuse(source):
        raise AssertionError(f"{source} was looked for")

    path = clip_paths(data)[0]
    score = Scorer.load(fine_tuned, device="cpu").score(path)
    assert 1 <= score.mos <= 5
    moved = shutil.copytree(fine_tuned, tmp_path / "elsewhere")
    monkeypatch.setattr(transformer, "load_transformer", refuse)
    assert Scorer.load(moved, device="cpu").score(path) == score
    assert [entry["stage"] for entry in history(fine_tuned)] == STAGES


def test_gradient_checkpointing_changes_no_weight(fine_tuned, encoder, data, tmp_path):
    config = tiny_paper(encoder, **{"backbone.gradient_checkpointing": "true"})
    out = train([data], tmp_path / "model", config, Notes(), device="cpu")
    expected = weights(fine_tuned)
    for name, tensor in weights(out).items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name  # recomputed, not reordered


def test_the_baseline_recipe_runs(encoder, data, tmp_path):
    overrides = [f"backbone.source={encoder}", "validation.folds=2", "stages.0.epochs=1"]
    out = train([data], tmp_path / "model", read_config("ssl-mos", overrides), Notes())
    assert Scorer.load(out).score(clip_paths(data)[0]).gates == ()


def test_a_frozen_transformer_is_cached_and_left_as_it_was(encoder, data, tmp_path):
    backbone = {"name": "transformer", "source": str(encoder)}
    config = small_config("joint", backbone=backbone, validation={"folds": 2, "members": 2})
    out = train([data], tmp_path / "model", config, Notes(), cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 16
    before = load_transformer(str(encoder)).state_dict()
    after = load_model(out, "cpu").network.backbone.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def first_weights(monkeypatch, manifest, out, config, cache):
    """Return the weights of each member before its first step, and let nothing be trained."""
    found = []

    def look(trainer):
        found.append({name: t.clone() for name, t in trainer.trained.state_dict().items()})

    monkeypatch.setattr(loop.Trainer, "run", look)
    train([manifest], out, config, Notes(), cache=cache, device="cpu")
    return found


def test_a_run_starts_from_the_weights_of_a_model(frozen, data, cache, tmp_path, monkeypatch):
    rows = [{**row, "synthesizer": row["system"].upper(), "test": "other"}
            for row in read_rows(data) if row["system"] != UNRATED]  # fmt: skip
    manifest = write_manifest(data.with_name("other.csv"), rows)
    config = small_config(start=str(frozen), validation={"folds": 2, "members": 2})
    members = first_weights(monkeypatch, manifest, tmp_path / "model", config, cache)
    assert len(members) == 2
    started = load_model(frozen, "cpu").network
    for found, panel in zip(members, started.panels, strict=True):
        for name, tensor in panel.state_dict().items():
            if not name.startswith(UNTRAINED):
                assert torch.equal(found[f"panel.{name}"], tensor), name
        assert found["panel.synthesizer_head.weight"].shape[0] == 3  # classes of the new data
        assert not found["panel.fusion.test.weight"].any()
    assert not torch.equal(members[0]["panel.mos_head.weight"], members[1]["panel.mos_head.weight"])


def test_a_warm_start_is_right_on_average(frozen, data, cache, tmp_path, monkeypatch):
    rows = read_rows(data)
    for row in rows:
        row["score"] = row["score"] and f"{1 + 0.5 * (float(row['score']) - 1):.2f}"
    manifest = write_manifest(data.with_name("lower.csv"), rows)
    found = []

    def look(trainer):
        material = trainer.material
        rated = [row for row in range(16) if material.labelled[row] and material.folds[row]]
        scores, _ = predict(trainer.panel.eval(), trainer.source, material, rated)
        found.append((scores.mean(), material.ratings[rated].mean(), len(rated)))

    monkeypatch.setattr(loop.Trainer, "run", look)
    config = small_config(start=str(frozen))
    train([manifest], tmp_path / "model", config, Notes(), cache=cache, device="cpu")
    ((scored, rated, n_rated),) = found
    assert n_rated == 6  # of the fold that the member may see
    assert scored == pytest.approx(rated, abs=1e-6)
    assert rated < 2.5  # far from what the started model was trained on, 3.2 on average


def scores_of(trainer, rows):
    return predict(trainer.panel.eval(), trainer.source, trainer.material, rows)[0]


def test_a_blended_model_scores_as_it_did_in_training(frozen, data, cache, tmp_path, monkeypatch):
    """Also from its folder alone: the earlier model's panels are in it."""
    blend = {"ridge": 0.3, "prior": 0.3, "model": str(frozen)}
    config = small_config(epochs=1, blend=blend, validation={"folds": 2, "metric": "last"})
    found = {}
    run = loop.Trainer.run

    def look(trainer):
        run(trainer)
        paths = [clip.path for clip in trainer.material.clips]
        found.update(zip(paths, scores_of(trainer, list(range(len(paths)))), strict=True))

    monkeypatch.setattr(loop.Trainer, "run", look)
    out = train([data], tmp_path / "model", config, Notes(), cache=cache, device="cpu")
    frozen.rename(frozen.with_name("away"))
    try:
        scorer = Scorer.load(out, device="cpu")
    finally:
        frozen.with_name("away").rename(frozen)
    for path in clip_paths(data):
        expected = min(5.0, max(1.0, found[path]))
        test = None if path.name.startswith(UNRATED) else "quiet"
        score = scorer.score(path, test=test)
        assert score.mos == pytest.approx(expected, abs=1e-5), path  # float32 in other batches


def test_a_warm_start_fits_its_own_blend(frozen, data, cache, tmp_path, monkeypatch):
    """The started model has none; the mixture below is right on average by itself."""
    found = []

    def look(trainer):
        blend, trainer.panel.blend = trainer.panel.blend, None
        material = trainer.material
        rated = [row for row in range(16) if material.labelled[row] and material.folds[row]]
        error = scores_of(trainer, rated).mean() - material.ratings[rated].mean()
        trainer.panel.blend = blend
        found.append((error, blend.weights.abs().sum(), blend.mean_rating))

    monkeypatch.setattr(loop.Trainer, "run", look)
    config = small_config(start=str(frozen), blend={"ridge": 0.5})
    train([data], tmp_path / "model", config, Notes(), cache=cache, device="cpu")
    ((error, size, mean_rating),) = found
    assert error == pytest.approx(0, abs=1e-6)
    assert size > 0
    assert mean_rating != 3.0


@pytest.fixture(scope="module")
def blended(frozen, data, cache, tmp_path_factory):
    """Return a model that blends `frozen` in."""
    config = small_config("ratings", epochs=1, blend={"prior": 0.3, "model": str(frozen)})
    out = tmp_path_factory.mktemp("blended") / "model"
    return train([data], out, config, Notes(), cache=cache, device="cpu")


def test_a_blended_model_says_which_earlier_model_is_in_it(blended, frozen):
    prior = json.loads((blended / "config.json").read_text("utf-8"))["prior"]
    earlier = json.loads((frozen / "config.json").read_text("utf-8"))
    assert prior["name"] == f"{earlier['name']} {earlier['version']}"
    assert prior["n_members"] == earlier["n_members"] == 2
    assert prior["config"] == earlier["config"]
    assert earlier["prior"] is None
    inside = load_model(blended, "cpu").network.prior.state_dict()
    whole = load_model(frozen, "cpu").network.panels.state_dict()
    assert inside.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in inside.items())


def test_an_earlier_model_that_blends_one_in_itself_is_refused(blended, data, cache, tmp_path):
    config = small_config(blend={"prior": 0.2, "model": str(blended)})
    with pytest.raises(ConfigError, match=r"blend\.model: model .* itself blends an earlier model"):
        train([data], tmp_path / "model", config, Notes(), cache=cache, device="cpu")


def test_an_earlier_model_with_another_encoder_is_refused(fine_tuned, data, cache, tmp_path):
    config = small_config(blend={"prior": 0.2, "model": str(fine_tuned)})
    with pytest.raises(ConfigError, match=r"blend\.model: model .* has another encoder"):
        train([data], tmp_path / "model", config, Notes(), cache=cache, device="cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"mixture": {"n_experts": 2}},
        {"mixture": None},
        {"fusion": {"dim": 8}},
        {"fusion": {"fullband": False}},
    ],
    ids=["experts", "no mixture", "width", "no full band"],
)
def test_a_start_from_another_network_is_refused(changes, frozen, data, cache, tmp_path):
    config = small_config(start=str(frozen), **changes)
    with pytest.raises(ConfigError, match=r"start: model .* has another network \(\S+ differs\)"):
        train([data], tmp_path / "model", config, Notes(), cache=cache, device="cpu")


def test_a_start_brings_its_fine_tuned_encoder(fine_tuned, encoder, data, tmp_path, monkeypatch):
    config = tiny_paper(encoder, start=fine_tuned)
    (found,) = first_weights(monkeypatch, data, tmp_path / "model", config, None)
    trained = load_model(fine_tuned, "cpu").network.backbone.state_dict()
    assert all(torch.equal(found[f"backbone.{name}"], tensor) for name, tensor in trained.items())


def test_a_start_with_another_encoder_is_refused(fine_tuned, frozen, data, tmp_path, encoder):
    other = tmp_path / "other"
    write_encoder(other, num_hidden_layers=3)
    for start, config in (
        (fine_tuned, small_config(start=str(fine_tuned))),
        (fine_tuned, tiny_paper(other, start=fine_tuned)),
        (frozen, tiny_paper(encoder, start=frozen)),
    ):
        with pytest.raises(ConfigError, match=f"start: {start.name} .* has another encoder than"):
            train([data], tmp_path / "model", config, Notes(), device="cpu")


@pytest.mark.slow
def test_an_encoder_of_real_size_is_fine_tuned_and_scores(tmp_path):
    base = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "conv_dim": [512] * 7,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
    }
    encoder = write_encoder(tmp_path / "base", **base)
    rows = []
    for place, seconds in enumerate((1.0, 2.0)):
        path = tmp_path / f"{place}.wav"
        path.write_bytes(wav_bytes(voice(seconds, seed=place)))
        rows.append({"path": path.name, "score": 2 + place, "sentence": place})
    manifest = write_manifest(tmp_path / "ratings.csv", rows)
    config = tiny_paper(encoder)
    config = config.model_copy(update={"stages": config.stages[2:]})
    out = train([manifest], tmp_path / "model", config, Notes(), device="cpu")
    network = load_model(out, "cpu").network
    n_weights = sum(weight.numel() for weight in network.backbone.parameters())
    assert 90e6 < n_weights < 100e6
    before = load_transformer(str(encoder)).state_dict()
    name = "model.encoder.layers.5.attention.q_proj.weight"
    assert not torch.equal(before[name], network.backbone.state_dict()[name])
    assert 1 <= Scorer.load(out, device="cpu").score(tmp_path / "0.wav").mos <= 5
