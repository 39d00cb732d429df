"""wav2vec 2.0, HuBERT, WavLM and XLS-R through `transformers`, padding-proof.

Axes: B clips, T samples, N windows, C channels, F frames, L layers, D features.

Three things differ from calling the model. The first group norm of base-size
models leaves the padding out (`masked_norm.py`). Attention, whose cost grows
with the square of the length, stays within windows of at most 30 s, equal in
length and cut by the clip alone; they overlap by the 5 ms that two frames share,
so no frame is lost, and a batch of B clips is encoded B windows at a time: memory
for the network does not grow with length, only the frames returned do. And
levels are normalised over the whole clip, before it is cut.

Where the weights come from is settled in `pretrained.py`.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from voxpanel.errors import BackboneError
from voxpanel.features.backbone import Backbone, LayerFrames, equal_parts, frame_mask
from voxpanel.features.masked_norm import MaskedConvolution, standardize
from voxpanel.features.pretrained import find_folder, read_json, read_weights

MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "unispeech-sat")
N_WINDOW_FRAMES = 1500  # 30 s at 20 ms a frame
CONFIG_KEYS = frozenset({"name", "rate_hz", "normalize", "encoder"})


class TransformerEncoder(Backbone):
    """A `transformers` speech encoder; the layers are its `hidden_states`.

    With `do_stable_layer_norm` (large models) the layers are what the residual
    path carries: the closing layer norm belongs to the model's output, not to a layer.
    """

    def __init__(
        self, model: PreTrainedModel, *, name: str, rate_hz: int = 16_000, normalize: bool = True
    ) -> None:
        """Take over a model; it is altered and should not be used elsewhere.

        Args:
            model: one of `MODEL_TYPES`, without a head.
            normalize: whether it was trained on clips of zero mean and unit variance.
        """
        super().__init__()
        config = model.config
        refuse_unsupported(config.to_dict(), name)
        config.layerdrop = 0.0  # a dropped layer would be missing from the stack
        config.apply_spec_augment = False
        config.name_or_path = name  # not a folder of this machine, which `config_dict` would keep
        self.name, self.rate_hz, self.normalize = name, rate_hz, normalize
        self.n_layers, self.dim = config.num_hidden_layers + 1, config.hidden_size
        self.min_samples, self.hop = receptive_field(config.conv_kernel, config.conv_stride)
        extractor: Any = model.feature_extractor  # its attributes carry no types
        layers = list(extractor.conv_layers)
        if config.feat_extract_norm == "group":
            layers[0] = MaskedConvolution(
                layers[0].conv, layers[0].layer_norm, layers[0].activation
            )
        self.convolutions = nn.ModuleList(layers)
        model.feature_extractor = nn.Identity()  # `encode` hands the model convolved features
        self.model = model

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TransformerEncoder":
        """Build an encoder with random weights from what `config_dict` returned.

        Raises:
            BackboneError: a key is missing, unknown, or the model is of another type.
        """
        if config.keys() != CONFIG_KEYS:
            raise BackboneError(
                f"backbone config: keys must be {sorted(CONFIG_KEYS)}, found {sorted(config)}"
            )
        refuse_unsupported(config["encoder"], config["name"])
        model_config = AutoConfig.for_model(**config["encoder"])
        model = AutoModel.from_config(model_config)
        settings = {key: config[key] for key in ("name", "rate_hz", "normalize")}
        return cls(model, **settings).eval()

    def config_dict(self) -> dict[str, Any]:
        """Return what `from_config` needs; JSON can hold it."""
        return {
            "name": self.name,
            "rate_hz": self.rate_hz,
            "normalize": self.normalize,
            "encoder": self.model.config.to_dict(),
        }

    def prepare_training(
        self,
        *,
        freeze_convolutions: bool = True,
        gradient_checkpointing: bool = False,
        spec_augment: bool = False,
    ) -> None:
        """Choose how the encoder is fine-tuned; the weights stay as they are.

        Args:
            freeze_convolutions: leave the seven convolutions as they were trained.
            gradient_checkpointing: recompute the transformer layers in the backward
                pass: less memory, a third more time.
            spec_augment: hide spans of frames as the model's own config says.
        """
        self.convolutions.requires_grad_(not freeze_convolutions)
        self.model.config.apply_spec_augment = spec_augment
        if gradient_checkpointing:
            self.model.activation_checkpointing_enable(
                {"use_reentrant": False, "context_fn": checkpoint_contexts}
            )
        else:
            self.model.activation_checkpointing_disable()

    def forward(self, samples: Tensor, n_samples: Tensor) -> LayerFrames:
        """Encode `[B, T]` samples at `rate_hz`; see `Backbone.forward`."""
        if self.normalize:
            samples = standardize(samples, n_samples)
        n_frames = self.count_frames(n_samples)
        windows = [
            window
            for clip, n, n_own in zip(samples, n_samples.tolist(), n_frames.tolist(), strict=True)
            for window in self.cut(clip[:n], n_own)
        ]
        n_rows = len(samples)
        rounds = [self.encode(windows[i : i + n_rows]) for i in range(0, len(windows), n_rows)]
        clips = torch.cat(rounds).split(n_frames.tolist())
        frames = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)  # [B, F, L, D]
        return LayerFrames(frames.transpose(1, 2), n_frames)

    def count_frames(self, n_samples: Tensor) -> Tensor:
        """Return how many frames the convolutions make of `n_samples`."""
        return (n_samples - self.min_samples) // self.hop + 1

    def cut(self, clip: Tensor, n_frames: int) -> list[Tensor]:
        """Cut a clip `[T]` into windows that make its `n_frames` frames between them."""
        edges = [0, *accumulate(equal_parts(n_frames, N_WINDOW_FRAMES))]
        overlap = self.min_samples - self.hop
        windows = [clip[a * self.hop : b * self.hop + overlap] for a, b in pairwise(edges)]
        windows[-1] = clip[edges[-2] * self.hop :]  # with the samples short of another frame
        return windows

    def encode(self, windows: Sequence[Tensor]) -> Tensor:
        """Encode windows and return their frames one after another: `[sum of F, L, D]`."""
        samples = nn.utils.rnn.pad_sequence(list(windows), batch_first=True)
        n_samples = torch.tensor([len(window) for window in windows], device=samples.device)
        with quiet_attention():
            output = self.model(
                self.convolve(samples, n_samples),
                attention_mask=frame_mask(n_samples, samples.shape[1]).long(),
                output_hidden_states=True,
            )
        hidden = torch.stack(output.hidden_states, dim=2)  # [N, F, L, D]
        return hidden[frame_mask(self.count_frames(n_samples), hidden.shape[1])]

    def convolve(self, samples: Tensor, n_samples: Tensor) -> Tensor:
        """Turn `[N, T]` samples into `[N, C, F]` features."""
        features = samples[:, None]
        for layer in self.convolutions:
            if isinstance(layer, MaskedConvolution):
                features = layer(features, n_samples)
            else:
                features = layer(features)
        return features


def load_transformer(source: str) -> TransformerEncoder:
    """Load an encoder with its trained weights, ready for inference.

    Args:
        source: a folder that `save_pretrained` wrote, or a model's id on the hub.

    Raises:
        BackboneError: it cannot be found, has no safetensors, is of another type,
            or its weights do not fill the network.
    """
    folder = find_folder(source)
    config = read_json(folder / "config.json")
    refuse_unsupported(config, source)
    # Without the file, what transformers itself assumes: 16 kHz, normalised.
    preprocessing = read_json(folder / "preprocessor_config.json", needed=False)
    return TransformerEncoder(
        read_weights(folder, source),
        name=folder.name if Path(source).expanduser().is_dir() else source,
        rate_hz=preprocessing.get("sampling_rate", 16_000),
        normalize=preprocessing.get("do_normalize", True),
    ).eval()


def refuse_unsupported(config: Mapping[str, Any], name: str) -> None:
    """Refuse a model that is of another type, or in which padding would reach a frame."""
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise BackboneError(
            f"{name}: model_type is {model_type!r}; one of {', '.join(MODEL_TYPES)} is needed"
        )
    if config.get("conv_pos_batch_norm"):
        raise BackboneError(
            f"{name}: the batch norm in its positional convolution lets padding into the frames; "
            "choose a model without conv_pos_batch_norm"
        )


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Return how many samples a frame sees, and how many lie between two frames.

    >>> receptive_field((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    (400, 320)
    """
    n_seen, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        n_seen += (kernel - 1) * hop
        hop *= stride
    return n_seen, hop


@contextmanager
def quiet_attention() -> Iterator[None]:
    """Keep torch from warning that WavLM's two masks are of different types."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)
        yield


def checkpoint_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what surrounds a layer's first pass, and its second in the backward pass."""
    return nullcontext(), quiet_attention()
