"""The folder of a run: what is in it, and when it may be taken over."""

import json
from importlib import metadata

import pytest
import yaml
from corpus import small_config

from voxpanel.config import build_config
from voxpanel.errors import ConfigError
from voxpanel.train.runlog import RunFolder, hash_file

OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("abc")
    return path


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "out" / "model")


def begin(folder, manifest, *, config=None, resume=False, force=False):
    folder.open(config or small_config(), [manifest], resume=resume, force=force)


def test_a_run_records_its_settings_so_that_they_can_be_read_again(folder, manifest):
    config = small_config("joint", losses={"test_weights": {"quiet": 2.0}})
    begin(folder, manifest, config=config)
    settings = yaml.safe_load((folder.path / "config.yaml").read_text())
    assert build_config(settings, "config.yaml") == config


def test_a_run_records_manifests_and_versions(folder, manifest):
    begin(folder, manifest)
    versions = json.loads((folder.path / "versions.json").read_text())
    assert versions["manifests"] == [OF_ABC]
    assert versions["torch"] == metadata.version("torch")
    assert versions.keys() >= {"python", "machine", "voxpanel", "transformers", "numpy", "soxr"}


def test_a_file_is_known_by_its_sha_256(manifest):
    assert hash_file(manifest) == OF_ABC


def test_the_same_run_may_be_resumed_any_number_of_times(folder, manifest):
    for _ in range(3):
        begin(folder, manifest, resume=True)
        folder.log({"epoch": 0})
    assert len((folder.path / "metrics.jsonl").read_text().splitlines()) == 3


def test_resuming_takes_away_what_was_not_written_to_its_end(folder, manifest):
    begin(folder, manifest)
    folder.member(0).with_suffix(".draft").write_text("half")
    folder.member(1).write_text("whole")
    begin(folder, manifest, resume=True)
    assert not list(folder.path.glob("*.draft"))
    assert folder.member(1).read_text() == "whole"


def test_starting_over_takes_away_the_run_and_what_makes_the_folder_a_model(folder, manifest):
    begin(folder, manifest)
    folder.log({"epoch": 0})
    folder.member(0).write_text("old")
    (folder.out / "config.json").write_text("{}")
    (folder.out / "notes.txt").write_text("mine")
    begin(folder, manifest, config=small_config(seed=1), force=True)
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "versions.json"]
    assert [path.name for path in folder.out.iterdir() if path.is_file()] == ["notes.txt"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_something_else_in_it_is_not_taken(resume, folder, manifest):
    folder.out.mkdir(parents=True)
    (folder.out / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="model: not empty"):
        begin(folder, manifest, resume=resume)
    assert (folder.out / "thesis.tex").exists()


def test_an_empty_folder_is_taken(folder, manifest):
    folder.out.mkdir(parents=True)
    begin(folder, manifest)
    assert (folder.path / "versions.json").exists()


def test_a_run_that_was_stopped_while_it_began_can_be_resumed(folder, manifest):
    folder.path.mkdir(parents=True)
    (folder.path / "config.yaml").write_text("name: half")
    (folder.path / "versions.draft").write_text("{")
    begin(folder, manifest, resume=True)
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "versions.json"]


def test_other_settings_or_manifests_are_refused(folder, manifest):
    begin(folder, manifest)
    with pytest.raises(ConfigError, match=r"config\.yaml: the run was started with other settings"):
        begin(folder, manifest, config=small_config(seed=1), resume=True)
    manifest.write_text("abcd")
    with pytest.raises(ConfigError, match="another manifest, or it was changed since; start over"):
        begin(folder, manifest, resume=True)


def test_a_finished_run_has_each_epoch_once_and_in_order(folder, manifest):
    begin(folder, manifest)
    entries = [{"member": 0, "stage": "joint", "epoch": epoch} for epoch in range(3)]
    for entry in [*entries[:2], *entries]:  # it was stopped once
        folder.log(entry)
    folder.finish(entries)
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == entries
    assert (folder.path / "curves.svg").read_text().startswith("<svg")
