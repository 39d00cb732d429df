"""Encoders of `transformers`, tiny and with random weights; nothing is downloaded."""

import copy
import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, Wav2Vec2ForPreTraining

from voxpanel.errors import BackboneError
from voxpanel.features import transformer
from voxpanel.features.backbone import LayerFrames
from voxpanel.features.masked_norm import MaskedGroupNorm
from voxpanel.features.transformer import TransformerEncoder, load_transformer, quiet_attention

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
NO_DROPOUT = {"hidden_dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILIES = [
    pytest.param(model_type, options, id=f"{model_type}-{size}")
    for model_type in ("wav2vec2", "hubert", "wavlm", "unispeech-sat")
    for size, options in (("base", {}), ("large", LARGE))
]
FLOAT32 = 1e-5  # relative to the largest value: float32 sums in another order


def make_model(model_type: str = "wav2vec2", **options: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(model_type, **TINY, **options)).eval()


def make_encoder(model_type: str = "wav2vec2", **options: object) -> TransformerEncoder:
    return TransformerEncoder(make_model(model_type, **options), name="tiny").eval()


def noise(n_samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def encode(encoder: TransformerEncoder, *clips: Tensor) -> LayerFrames:
    samples = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return encoder(samples, torch.tensor([len(clip) for clip in clips]))


@torch.no_grad()
def hidden_states(model: PreTrainedModel, samples: Tensor) -> Tensor:
    """Return what `transformers` itself makes of one clip: `[L, F, D]`."""
    with quiet_attention():
        output = model(samples[None], output_hidden_states=True)
    return torch.cat(output.hidden_states)


def normalized(samples: Tensor) -> Tensor:
    return (samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("model_type", "options"), FAMILIES)
def test_one_clip_has_the_hidden_states_of_transformers(model_type, options):
    model, clip = make_model(model_type, **options), noise(5_000)
    encoder = TransformerEncoder(copy.deepcopy(model), name="tiny").eval()
    frames, n_frames = encode(encoder, clip)
    assert relative_error(frames[0], hidden_states(model, normalized(clip))) < FLOAT32
    assert frames.shape == (1, encoder.n_layers, int(n_frames[0]), encoder.dim)


@pytest.mark.parametrize(("model_type", "options"), FAMILIES)
def test_a_clip_gives_the_same_frames_alone_and_in_a_padded_batch(model_type, options):
    encoder = make_encoder(model_type, **options)
    clips = [noise(n, seed=n) for n in (400, 9_000, 5_211)]
    frames, n_frames = encode(encoder, *clips)
    for row, clip in enumerate(clips):
        alone = encode(encoder, clip)
        n_own = int(alone.n_frames[0])
        assert int(n_frames[row]) == n_own
        assert relative_error(frames[row, :, :n_own], alone.frames[0]) < FLOAT32
        assert frames[row, :, n_own:].abs().sum() == 0


def test_the_group_norm_of_transformers_would_let_padding_in():
    model, clip = make_model(), noise(5_000)
    padded = torch.zeros(2, 9_000)
    padded[0, :5_000] = clip
    mask = (torch.arange(9_000) < torch.tensor([[5_000], [9_000]])).long()
    with torch.no_grad():
        beside = model(padded, attention_mask=mask).last_hidden_state[0, :15]
    alone = hidden_states(model, clip)[-1]
    assert relative_error(beside, alone) > 0.1  # what MaskedGroupNorm is there for


def test_a_masked_group_norm_is_torchs_on_each_clip_alone():
    torch.manual_seed(0)
    norm, features = nn.GroupNorm(2, 6), torch.randn(2, 6, 10)
    nn.init.normal_(norm.weight)
    found = MaskedGroupNorm(norm)(features, torch.tensor([10, 4]))
    assert torch.equal(found[0], norm(features[:1])[0])
    assert torch.equal(found[1, :, :4], norm(features[1:, :, :4])[0])
    assert found[1, :, 4:].abs().sum() == 0


@pytest.mark.parametrize("n_samples", [400, 719, 720, 16_000, 480_081, 1_000_000])
def test_frames_are_counted_as_the_convolutions_make_them(n_samples):
    expected = make_model()._get_feat_extract_output_lengths(n_samples)
    assert int(make_encoder().count_frames(torch.tensor(n_samples))) == int(expected)


def test_windows_of_a_long_clip_are_encoded_apart_and_lose_no_frame(monkeypatch):
    monkeypatch.setattr(transformer, "N_WINDOW_FRAMES", 20)
    model, clip = make_model(), noise(16_000)
    encoder = TransformerEncoder(copy.deepcopy(model), name="tiny").eval()
    frames, n_frames = encode(encoder, clip)
    assert n_frames.tolist() == [49]  # in windows of 17, 16 and 16 frames
    whole = normalized(clip)
    edges = [(0, 16 * 320 + 400), (17 * 320, 32 * 320 + 400), (33 * 320, 16_000)]
    expected = [hidden_states(model, whole[start:end]) for start, end in edges]
    assert relative_error(frames[0], torch.cat(expected, dim=1)) < FLOAT32


@pytest.mark.parametrize("model_type", ["wav2vec2", "wavlm"])
def test_long_and_short_clips_give_the_same_frames_alone_and_in_a_batch(monkeypatch, model_type):
    monkeypatch.setattr(transformer, "N_WINDOW_FRAMES", 20)
    encoder = make_encoder(model_type)
    clips = [noise(n, seed=n) for n in (17_123, 3_000, 9_900)]
    frames, _ = encode(encoder, *clips)
    for row, clip in enumerate(clips):
        alone = encode(encoder, clip).frames[0]
        assert relative_error(frames[row, :, : alone.shape[1]], alone) < FLOAT32


def test_no_window_is_longer_than_30_s():
    encoder = make_encoder()
    windows = encoder.cut(torch.zeros(1_000_000), 3124)
    assert [len(window) for window in windows] == [1042 * 320 + 80, 1041 * 320 + 80, 333_440]
    assert max(len(window) for window in windows) <= 30 * 16_000 + 400


@pytest.mark.parametrize(("scale", "offset"), [(0.1, 0.0), (20.0, 0.0), (1.0, 0.05)])
def test_level_and_offset_do_not_matter_to_a_model_of_normalized_clips(scale, offset):
    encoder, clip = make_encoder(**LARGE), noise(5_000)
    changed, usual = encode(encoder, scale * clip + offset), encode(encoder, clip)
    # The variance of the softest clip is 1e-4; 1e-7 is added to it.
    assert relative_error(changed.frames, usual.frames) < 1e-3


def test_a_model_of_clips_as_they_are_gets_them_so():
    model, clip = make_model(**LARGE), noise(5_000)
    encoder = TransformerEncoder(copy.deepcopy(model), name="tiny", normalize=False).eval()
    assert relative_error(encode(encoder, clip).frames[0], hidden_states(model, clip)) < FLOAT32


def test_silence_has_finite_frames():
    assert encode(make_encoder(), torch.zeros(4_000), noise(5_000)).frames.isfinite().all()


def test_an_encoder_comes_back_from_its_config_and_weights():
    encoder, clip = make_encoder("wavlm"), noise(5_000)
    config = json.loads(json.dumps(encoder.config_dict()))
    again = TransformerEncoder.from_config(config)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(encode(again, clip).frames, encode(encoder, clip).frames)
    assert again.config_dict() == encoder.config_dict()


def test_a_config_with_an_unknown_key_is_refused():
    config = make_encoder().config_dict() | {"normalise": True}
    with pytest.raises(BackboneError, match=r"keys must be .* found .*'normalise'"):
        TransformerEncoder.from_config(config)


def train_step(encoder: TransformerEncoder) -> dict[str, Tensor]:
    samples = torch.stack([noise(8_000), noise(8_000, seed=1)])
    samples[1, 5_000:] = 0
    frames, _ = encoder.train()(samples, torch.tensor([8_000, 5_000]))
    frames.square().mean().backward()
    return {
        name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize(("model_type", "options"), FAMILIES)
def test_frozen_convolutions_get_no_gradient_and_every_layer_does(model_type, options):
    encoder = make_encoder(model_type, **options)
    encoder.prepare_training(freeze_convolutions=True)
    trained = train_step(encoder)
    assert not [name for name in trained if name.startswith("convolutions")]
    for layer in (0, 1):
        assert [name for name in trained if f"layers.{layer}.attention" in name]


def test_thawed_convolutions_get_a_gradient():
    encoder = make_encoder()
    encoder.prepare_training(freeze_convolutions=True)
    encoder.prepare_training(freeze_convolutions=False)
    n_convolved = sum(name.startswith("convolutions") for name in train_step(encoder))
    assert n_convolved == len(list(encoder.convolutions.parameters()))


@pytest.mark.parametrize("model_type", ["wav2vec2", "wavlm"])
def test_checkpointing_changes_no_gradient(model_type):
    plain, sparing = (make_encoder(model_type, **NO_DROPOUT) for _ in range(2))
    sparing.prepare_training(freeze_convolutions=False, gradient_checkpointing=True)
    expected = train_step(plain)
    found = train_step(sparing)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_no_layer_is_dropped_and_no_frame_hidden_unless_asked_for():
    encoder = make_encoder(**NO_DROPOUT, layerdrop=1.0, mask_time_prob=0.5, mask_time_length=2)
    clip = noise(8_000)
    usual = encode(encoder, clip).frames
    assert torch.equal(encode(encoder.train(), clip).frames, usual)
    encoder.prepare_training(spec_augment=True)
    assert relative_error(encode(encoder, clip).frames, usual) > 0.01
    assert torch.equal(encode(encoder.eval(), clip).frames, usual)


@pytest.mark.slow
def test_an_encoder_of_base_size_takes_a_training_step():
    config = AutoConfig.for_model("wav2vec2")
    encoder = TransformerEncoder(AutoModel.from_config(config), name="base")
    encoder.prepare_training(gradient_checkpointing=True)
    assert sum(weight.numel() for weight in encoder.parameters()) == pytest.approx(
        94.4e6, rel=0.001
    )
    assert all(gradient.isfinite().all() for gradient in train_step(encoder).values())


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder as `save_pretrained` writes it, from a model with its pre-training head."""
    folder = tmp_path_factory.mktemp("models") / "tiny-wav2vec2"
    torch.manual_seed(0)
    Wav2Vec2ForPreTraining(AutoConfig.for_model("wav2vec2", **TINY)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """No network, and a cache that is empty; returns the cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_in_cache(cache: Path, folder: Path) -> None:
    """Lay a model out as the hub's client does, under the id `someone/tiny`."""
    commit = "0" * 40
    repository = cache / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def test_a_folder_is_loaded_with_its_weights_and_without_a_word(saved, capfd):
    encoder, clip = load_transformer(str(saved)), noise(5_000)
    assert capfd.readouterr() == ("", "")
    model = Wav2Vec2ForPreTraining.from_pretrained(saved).wav2vec2.eval()
    found = encode(encoder, clip).frames[0]
    assert relative_error(found, hidden_states(model, normalized(clip))) < FLOAT32
    assert (encoder.name, encoder.rate_hz, encoder.normalize) == ("tiny-wav2vec2", 16_000, True)
    assert not encoder.training


def test_the_preprocessor_config_says_whether_clips_are_normalized(folder):
    settings = {"do_normalize": False, "sampling_rate": 8_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = load_transformer(str(folder))
    assert (encoder.normalize, encoder.rate_hz) == (False, 8_000)


def test_where_a_model_was_loaded_from_does_not_stay_in_its_config(saved):
    assert str(saved) not in json.dumps(load_transformer(str(saved)).config_dict())


def test_a_cached_model_needs_no_network(saved, offline):
    put_in_cache(offline, saved)
    assert load_transformer("someone/tiny").name == "someone/tiny"


def test_a_model_that_cannot_be_had_says_what_to_do(offline):
    with pytest.raises(BackboneError) as caught:
        load_transformer("someone/tiny")
    for hint in ("someone/tiny: no such folder", str(offline), "HF_HUB_OFFLINE", "HF_HOME", "save"):
        assert hint in str(caught.value)


def test_a_cached_model_with_pickled_weights_alone_is_asked_of_the_hub(folder, offline):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    put_in_cache(offline, folder)
    with pytest.raises(BackboneError, match="with safetensors, and the hub did not give it"):
        load_transformer("someone/tiny")


@pytest.mark.parametrize("source", ["./models/absent", "/models/absent", "~/absent", "a/b/absent"])
def test_an_absent_path_is_not_taken_for_a_name_on_the_hub(source):
    with pytest.raises(BackboneError, match="absent: does not exist; give the folder"):
        load_transformer(source)


def test_a_file_is_not_a_folder(folder):
    with pytest.raises(BackboneError, match=r"config\.json: is a file; give the folder"):
        load_transformer(str(folder / "config.json"))


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"no \.safetensors in .* pickled weights are not read"):
        load_transformer(str(folder))


def test_torn_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000])
    with pytest.raises(BackboneError, match=r"cannot be read .* fetch them again"):
        load_transformer(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 3}, r"16 weights are not in .* the first being encoder\.layers\.2"),
        ({"intermediate_size": 48}, r"weights are not in .* or have another shape"),
        ({"model_type": "bert"}, "model_type is 'bert'; one of wav2vec2, hubert, wavlm"),
        ({"model_type": "hubert", "conv_pos_batch_norm": True}, "lets padding into the frames"),
    ],
)
def test_a_config_that_does_not_suit_is_refused(folder, change, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BackboneError, match=message):
        load_transformer(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_torn_config_is_refused_by_its_path(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(BackboneError, match=r"config\.json: "):
        load_transformer(str(folder))
