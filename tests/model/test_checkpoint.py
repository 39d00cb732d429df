"""Model folders: what is saved is loaded to the last bit, and what is not whole is refused."""

import json
import pickle
import shutil
import time
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from hostile import RATE_HZ, voice
from safetensors.torch import load_file, save_file
from small_model import SYNTHESIZERS, TESTS, save_small, small_config, small_network, small_record
from transformers import AutoConfig, AutoModel

from voxpanel.config import BlendSettings
from voxpanel.errors import CheckpointError
from voxpanel.features.melbank import Melbank
from voxpanel.features.transformer import TransformerEncoder
from voxpanel.model import checkpoint
from voxpanel.model.calibration import Calibration
from voxpanel.model.checkpoint import load_model, save_model
from voxpanel.score import Scorer

CLIPS = [voice(1.0, seed=seed) for seed in range(3)]
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder that no test alters."""
    return save_small(tmp_path_factory.mktemp("model") / "saved", encoder="melbank")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of that folder to damage."""
    return shutil.copytree(saved, tmp_path / "copy")


def scores_of(scorer):
    return [scorer.score(clip, rate_hz=RATE_HZ).mos for clip in CLIPS]


def change(folder, **entries):
    """Replace entries of a `config.json`; None takes one out."""
    content = json.loads((folder / CONFIG).read_text("utf-8")) | entries
    gone = {name for name, value in entries.items() if value is None}
    kept = {name: value for name, value in content.items() if name not in gone}
    (folder / CONFIG).write_text(json.dumps(kept), "utf-8")


def change_weights(folder, alter):
    weights = load_file(folder / WEIGHTS)
    alter(weights)
    save_file(weights, folder / WEIGHTS)


def refusal_of(folder):
    with pytest.raises(CheckpointError) as refusal:
        load_model(folder)
    return str(refusal.value)


def test_a_model_comes_back_to_the_last_bit(tmp_path):
    network = small_network(Melbank())
    record = small_record()
    save_model(tmp_path / "model", network, record, "# card\n")
    loaded = load_model(tmp_path / "model", device="cpu")
    assert loaded.record == record
    assert loaded.network.state_dict().keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    assert not loaded.network.training
    assert not any(weight.requires_grad for weight in loaded.network.parameters())
    again = tmp_path / "again"
    save_model(again, loaded.network, loaded.record, "# card\n")
    for name in (WEIGHTS, CONFIG, CARD):
        assert (again / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_scores_survive_saving_to_the_last_bit(scorer, small_model, tmp_path):
    save_model(tmp_path / "again", scorer.network, scorer.record, "")
    again = Scorer.load(tmp_path / "again", device="cpu")
    assert scores_of(again) == scores_of(scorer)
    assert again.model_id == scorer.model_id == load_model(small_model).identity


def test_a_model_without_mixture_classes_and_tests_comes_back(tmp_path):
    config = small_config(mixture=None)
    record = small_record(config=config, synthesizers=(), tests=())
    backbone = Melbank().eval()
    panel = checkpoint.Panel(config, backbone, 1, 0)
    save_model(tmp_path, checkpoint.MosModel(backbone, [panel]), record, "")
    scorer = Scorer.load(tmp_path, device="cpu")
    row = scorer.score(CLIPS[0], rate_hz=RATE_HZ)
    assert (row.synthesizer, row.synthesizer_p, row.gates, scorer.n_gates) == (None, None, (), 0)
    assert scorer.test_names == ()


@pytest.fixture
def blended():
    """A network with an earlier model in it, other in size, and the records of both."""
    config = small_config(blend=BlendSettings(ridge=0.3, prior=0.3))
    record = small_record(config=config, synthesizers=(), tests=())
    earlier = small_network(Melbank())
    panels = [checkpoint.Panel(config, earlier.backbone, 1, 0) for _ in range(3)]
    for panel in panels:
        panel.fusion.load_state_dict(panels[0].fusion.state_dict())
        panel.blend.slope.fill_(0.9)
        torch.nn.init.normal_(panel.blend.weights, std=0.01)
    return checkpoint.MosModel(earlier.backbone, panels, earlier.panels), record, small_record()


def test_a_blended_model_comes_back_with_its_earlier_one_from_its_folder_alone(blended, tmp_path):
    network, record, earlier = blended
    save_model(tmp_path / "model", network, record, "", prior=earlier)
    content = json.loads((tmp_path / "model" / CONFIG).read_text("utf-8"))
    assert content["prior"]["name"] == "small 0.1"
    assert (content["n_members"], content["prior"]["n_members"]) == (3, 2)
    loaded = load_model(tmp_path / "model", device="cpu")
    assert loaded.record == record
    assert loaded.network.state_dict().keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    scorer = Scorer.load(tmp_path / "model", device="cpu")
    save_model(tmp_path / "again", scorer.network, record, "", prior=earlier)
    again = Scorer.load(tmp_path / "again", device="cpu")
    assert scores_of(again) == scores_of(scorer)
    assert again.model_id == scorer.model_id
    assert len(set(scores_of(scorer))) == len(CLIPS)


def test_every_weight_of_an_earlier_model_has_to_be_there(blended, tmp_path):
    network, record, earlier = blended
    save_model(tmp_path, network, record, "", prior=earlier)
    change_weights(tmp_path, without("prior.1.mos_head.bias"))
    assert 'Missing key(s) in state_dict: "prior.1.mos_head.bias"' in refusal_of(tmp_path)


def test_a_transformers_network_comes_back_from_the_folder_alone(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "conv_dim": [32] * 7, "num_conv_pos_embeddings": 16}
    inner = AutoModel.from_config(
        AutoConfig.for_model("wav2vec2", **sizes, num_conv_pos_embedding_groups=2)
    )
    network = small_network(TransformerEncoder(inner, name="gone/elsewhere").eval())
    save_model(tmp_path, network, small_record(), "")
    loaded = load_model(tmp_path, device="cpu")
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name


def test_half_precision_halves_the_file_and_hardly_moves_a_score(scorer, small_model, tmp_path):
    save_model(tmp_path / "half", scorer.network, scorer.record, "", dtype=torch.float16)
    half = Scorer.load(tmp_path / "half", device="cpu")
    size, full_size = ((each / WEIGHTS).stat().st_size for each in (tmp_path / "half", small_model))
    assert size < 0.51 * full_size
    assert {weight.dtype for weight in half.network.parameters()} == {torch.float32}
    # Half precision keeps 11 bits, 5e-4 of a weight; the errors of many weights average out.
    np.testing.assert_allclose(scores_of(half), scores_of(scorer), atol=0.01)
    assert half.model_id != scorer.model_id


def test_everyone_may_read_the_files_of_a_model(saved):
    assert {path.name for path in saved.iterdir()} == {WEIGHTS, CONFIG, CARD}
    for path in saved.iterdir():
        assert path.stat().st_mode & 0o444 == 0o444


def test_the_config_names_all_that_decides_a_score(saved):
    content = json.loads((saved / CONFIG).read_text("utf-8"))
    assert content["format"] == "voxpanel"
    assert (content["rate_hz"], content["resampler"]) == (16_000, "soxr_hq")
    assert content["label_scale"] == [1, 5]
    assert content["synthesizers"] == list(SYNTHESIZERS)
    assert content["tests"] == list(TESTS)
    assert content["calibration"]["half_width"] == 0.5


def test_a_save_that_breaks_off_leaves_no_folder_that_loads(folder, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        save_model(folder, small_network(Melbank(), seed=5), small_record(), "")
    assert "not there; this is no model folder, or not a whole one" in refusal_of(folder)


def test_the_identity_is_name_version_and_a_hash(saved):
    name, version, digits = load_model(saved).identity.split()
    assert (name, version, len(digits)) == ("small", "0.1", 12)
    assert int(digits, 16) > 0
    assert load_model(saved).identity == load_model(str(saved)).identity


@pytest.mark.parametrize(
    "entries",
    [
        {"name": "other"},
        {"version": "0.2"},
        {"synthesizers": ["robot", "natural", "non-speech"]},
        {"tests": ["crowd", "studio"]},
        {"calibration": {"half_width": 0.6, "n": 100, "coverage": 0.94, "basis": "made up"}},
        {"training": {"ratings": "some"}},
        {"config": small_config(seed=7).model_dump(mode="json")},
    ],
    ids=lambda entries: next(iter(entries)),
)
def test_another_setting_is_another_identity(folder, entries):
    before = load_model(folder).identity
    change(folder)
    assert load_model(folder).identity != before  # written otherwise: the hash is of the bytes
    before = load_model(folder).identity
    change(folder, **entries)
    assert load_model(folder).identity != before


def test_another_value_of_any_weight_is_another_identity(saved, folder):
    names = sorted(load_file(saved / WEIGHTS))
    identities = {load_model(saved).identity}
    for name in names:

        def nudge(weights, name=name):
            flat = weights[name].view(-1)
            flat[-1] = torch.nextafter(flat[-1], torch.tensor(9.0))

        change_weights(folder, nudge)
        identities.add(load_model(folder).identity)
    assert len(identities) == 1 + len(names)


def test_the_card_is_no_part_of_the_identity(saved, folder):
    (folder / CARD).write_text("# Another text\n")
    assert load_model(folder).identity == load_model(saved).identity


def test_an_empty_folder_is_no_model(tmp_path):
    assert refusal_of(tmp_path) == (
        f"{tmp_path / CONFIG}: not there; this is no model folder, or not a whole one"
    )


def test_a_file_is_no_model(saved):
    with pytest.raises(CheckpointError, match=r"model\.safetensors: a file; give the model's fold"):
        load_model(saved / WEIGHTS)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"format": "voxpanel", "format', b"\xff\xfe\x00", b"[" * 50],
    ids=["empty", "cut", "cut later", "no UTF-8", "no JSON"],
)
def test_a_config_that_cannot_be_read_is_refused(folder, content):
    (folder / CONFIG).write_bytes(content)
    message = refusal_of(folder)
    assert message.startswith(f"{folder / CONFIG}: cannot be read (")
    assert message.endswith("; fetch the model again")


@pytest.mark.parametrize("content", ["[]", "null", '"voxpanel"', "{}", '{"model_type": "bert"}'])
def test_a_config_that_is_not_ours_is_refused(folder, content):
    (folder / CONFIG).write_text(content)
    assert refusal_of(folder) == (
        f"{folder / CONFIG}: not a voxpanel model; its `format` is not 'voxpanel'"
    )


@pytest.mark.parametrize("version", [2, 99, 0, "1", None])
def test_another_format_version_is_refused_with_what_to_install(folder, version):
    change(folder, format_version=version)
    assert refusal_of(folder) == (
        f"{folder / CONFIG}: format version {version}, this voxpanel reads 1; "
        "install the voxpanel that wrote it, or a newer one"
    )


@pytest.mark.parametrize("version", [0, 2, None])
def test_other_features_are_refused_with_what_to_do(folder, version):
    change(folder, features_version=version)
    message = refusal_of(folder)
    assert message.startswith(f"{folder / CONFIG}: trained on features version {version}, ")
    assert message.endswith("install the voxpanel that wrote it, or train again")


@pytest.mark.parametrize(
    "entries",
    [
        {"name": None},
        {"calibration": None},
        {"calibration": {"half_width": 0.5}},
        {"calibration": 0.5},
        {"backbone": None},
        {"backbone": "distilled"},
        {"backbone": {"name": "whisper"}},
        {"backbone": {"name": "transformer"}},
        {"backbone": {"name": "transformer", "config": {"encoder": {"model_type": "bert"}}}},
        {"config": None},
        {"config": {"stages": []}},
        {"config": {"mixure": {}}},
        {"n_members": "two"},
        {"synthesizers": 3},
        {"prior": None},
        {"prior": {}},
        {"prior": {"config": {"stages": []}, "sizes": [3, 2], "n_members": 2}},
        {"prior": {"config": small_config().model_dump(mode="json"), "sizes": 3, "n_members": 2}},
    ],
    ids=json.dumps,
)
def test_a_missing_or_wrong_entry_is_refused_by_file(folder, entries):
    change(folder, **entries)
    message = refusal_of(folder)
    assert message.startswith(f"{folder / CONFIG}: an entry is missing or wrong (")
    assert message.endswith("; fetch the model again")
    assert len(message) < 600


def without(name):
    return lambda weights: weights.pop(name)


def with_more(weights):
    weights["panels.0.trojan.weight"] = torch.zeros(3)


def with_another_shape(weights):
    weights["panels.0.mos_head.weight"] = torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (without("panels.1.mos_head.bias"), "Missing key.*panels.1.mos_head.bias"),
        (with_more, "Unexpected key.*panels.0.trojan.weight"),
        (with_another_shape, "size mismatch for panels.0.mos_head.weight"),
        (dict.clear, "Missing key"),
    ],
    ids=["missing", "extra", "shape", "none"],
)
def test_weights_of_another_network_are_refused_by_name(folder, alter, says):
    change_weights(folder, alter)
    with pytest.raises(CheckpointError, match=f"damaged or not this model's .*{says}") as refusal:
        load_model(folder)
    assert str(refusal.value).startswith(f"{folder / WEIGHTS}: ")
    assert str(refusal.value).endswith("fetch it again")
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("n_members", [0, 1, 3])
def test_weights_for_another_number_of_members_are_refused(folder, n_members):
    change(folder, n_members=n_members)
    assert "damaged or not this model's" in refusal_of(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_weights_cut_short_are_refused(folder, share):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(share * len(content))])
    message = refusal_of(folder)
    assert message.startswith(f"{folder / WEIGHTS}: damaged or not this model's (")


def test_missing_weights_are_refused(folder):
    (folder / WEIGHTS).unlink()
    assert refusal_of(folder).startswith(f"{folder / WEIGHTS}: damaged or not this model's (")


def test_a_folder_in_place_of_the_weights_is_refused(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    assert refusal_of(folder).startswith(f"{folder / WEIGHTS}: damaged or not this model's (")


class Bomb:
    """Raises an alarm when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_pickle_under_the_name_of_the_weights_is_refused_and_never_run(folder, write):
    if write == "pickle":
        (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"weight": Bomb()}, folder / WEIGHTS)
    assert refusal_of(folder).startswith(f"{folder / WEIGHTS}: damaged or not this model's (")


def test_no_pickle_is_read_or_written(tmp_path, monkeypatch):
    def alarm(*_, **__):
        raise AssertionError("a pickle was touched")

    for module in (pickle, torch.serialization.pickle):
        for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
            monkeypatch.setattr(module, name, alarm, raising=False)
    monkeypatch.setattr(torch, "load", alarm)
    monkeypatch.setattr(torch, "save", alarm)
    scorer = Scorer.load(save_small(tmp_path / "model", encoder="melbank"), device="cpu")
    assert 1 <= scorer.score(CLIPS[0], rate_hz=RATE_HZ).mos <= 5


def test_an_unknown_name_is_answered_at_once_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    start_s = time.perf_counter()
    with pytest.raises(CheckpointError, match="no model 'someone/thing': shipped is 'base'; "):
        load_model("someone/thing")
    assert time.perf_counter() - start_s < 5


@pytest.mark.parametrize("source", ["no/such/folder/anywhere", "./gone", "/gone", "", "a b"])
def test_a_folder_that_is_not_there_is_refused_without_asking_the_hub(monkeypatch, source):
    def alarm(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", alarm)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", alarm)
    with pytest.raises(CheckpointError, match=r"no model|not there"):
        load_model(source)


def test_the_record_holds_what_the_card_tells(tmp_path):
    measured = {"held out": {"utterance": {"n": 3, "mse": {"value": None}}}}
    record = small_record(training={"ratings": "Höreindrücke"}, measured=measured)
    save_model(tmp_path, small_network(Melbank()), record, "")
    assert load_model(tmp_path).record == record
    assert "Höreindrücke" in (tmp_path / CONFIG).read_text("utf-8")


def test_a_model_without_calibration_by_group_comes_back(tmp_path):
    record = replace(small_record(), calibration=Calibration(4.0, 3, None, "too few"))
    save_model(tmp_path, small_network(Melbank()), record, "")
    assert load_model(tmp_path).record.calibration == Calibration(4.0, 3, None, "too few")
