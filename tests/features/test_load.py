"""Backbones by name, with weights and without."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from voxpanel.config import BackboneSettings
from voxpanel.errors import BackboneError
from voxpanel.features.distilled import DistilledEncoder
from voxpanel.features.load import (
    PREFIX,
    describe_backbone,
    load_backbone,
    load_weights,
    rebuild_backbone,
)
from voxpanel.features.melbank import Melbank
from voxpanel.features.transformer import TransformerEncoder

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture(scope="module")
def distilled():
    torch.manual_seed(0)
    return DistilledEncoder().eval()


@pytest.fixture
def weights_file(distilled, tmp_path):
    """Weights as a model folder has them: half precision, beside those of the heads."""
    weights = {PREFIX + name: tensor for name, tensor in distilled.state_dict().items()}
    halves = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
    path = tmp_path / "model.safetensors"
    save_file({**halves, "panels.0.label_mean": torch.tensor(3.0)}, path)
    return path


@pytest.fixture(scope="module")
def transformer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model("wav2vec2", **TINY))
    model.save_pretrained(folder)
    return folder


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_distilled_encoder_gets_the_weights_of_a_model_folder(distilled, weights_file):
    settings = BackboneSettings(name="distilled", source=str(weights_file))
    encoder = load_backbone(settings)
    assert not encoder.training
    expected = {name: value.half().float() for name, value in distilled.state_dict().items()}
    found = {name: value.float() for name, value in encoder.state_dict().items()}
    assert same_weights(found, expected)
    assert all(weight.dtype == torch.float32 for weight in encoder.parameters())


def test_the_mel_filters_need_nothing():
    assert isinstance(load_backbone(BackboneSettings(name="melbank")), Melbank)


def test_a_transformer_comes_from_its_folder_and_is_ready_to_be_fine_tuned(transformer_folder):
    settings = BackboneSettings(name="transformer", source=str(transformer_folder), fine_tune=True)
    encoder = load_backbone(settings)
    assert isinstance(encoder, TransformerEncoder)
    trainable = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert trainable
    assert not any("conv" in name and name.startswith("convolutions") for name in trainable)


def test_an_unknown_name_is_refused_with_those_that_are_known():
    settings = BackboneSettings.model_construct(name="whisper", source=None)
    with pytest.raises(BackboneError, match="'whisper': known are distilled, transformer, melbank"):
        load_backbone(settings)
    with pytest.raises(BackboneError, match="'whisper': known are distilled, transformer, melbank"):
        rebuild_backbone({"name": "whisper"})


def test_missing_weights_are_named_with_what_to_give(tmp_path):
    source = str(tmp_path / "gone.safetensors")
    message = r"gone\.safetensors: no weights of the distilled encoder \(.*\); give the model\.saf"
    with pytest.raises(BackboneError, match=message):
        load_backbone(BackboneSettings(name="distilled", source=source))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"panels.0.label_mean": torch.tensor(3.0)},
        {PREFIX + "projection.weight": torch.zeros(2, 2)},
    ],
    ids=["nothing", "no encoder", "another network"],
)
def test_weights_of_another_network_are_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(content, path)
    with pytest.raises(BackboneError, match="no weights of the distilled encoder") as caught:
        load_weights(DistilledEncoder(), path)
    assert len(str(caught.value)) < 1000  # not a list of every missing weight


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_a_damaged_file_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match="no weights of the distilled encoder"):
        load_weights(DistilledEncoder(), path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="no weights of the distilled encoder"):
        load_weights(DistilledEncoder(), tmp_path)


def test_a_backbone_is_rebuilt_from_its_description(distilled, transformer_folder):
    transformer = load_backbone(
        BackboneSettings(name="transformer", source=str(transformer_folder))
    )
    for backbone in (distilled, Melbank(), transformer):
        record = json.loads(json.dumps(describe_backbone(backbone)))
        rebuilt = rebuild_backbone(record)
        assert type(rebuilt) is type(backbone)
        assert (rebuilt.n_layers, rebuilt.dim) == (backbone.n_layers, backbone.dim)
        rebuilt.load_state_dict(backbone.state_dict())
        clip = torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found, expected = (
                each.eval()(clip, torch.tensor([4_000])) for each in (rebuilt, backbone)
            )
        assert torch.equal(found.frames, expected.frames)
