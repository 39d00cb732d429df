"""Normalisation over a clip's own samples or frames, whatever pads it.

Axes: B clips, T samples, C channels, F frames.
`nn.GroupNorm` takes its statistics over the padding as well, which moves every
frame of a clip by more than the frame itself; an attention mask comes too late
to help. All wav2vec 2.0, HuBERT and WavLM models of base size have one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpanel.features.backbone import frame_mask

VARIANCE_FLOOR = 1e-7  # as in transformers' Wav2Vec2FeatureExtractor; silence stays silence


def standardize(samples: Tensor, n_samples: Tensor) -> Tensor:
    """Give every clip zero mean and unit variance over its own samples.

    Args:
        samples: `[B, T]`, zero after each clip's end.
        n_samples: `[B]`, at least 1.

    Returns:
        `[B, T]`, zero after each clip's end.

    Source: transformers, `Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm`.

    >>> standardize(torch.tensor([[-1.0, -3.0, 0.0]]), torch.tensor([2])).round(decimals=4).tolist()
    [[1.0, -1.0, 0.0]]
    """
    own = frame_mask(n_samples, samples.shape[1])
    mean = samples.sum(dim=1, keepdim=True) / n_samples[:, None]
    centred = (samples - mean) * own
    variance = centred.square().sum(dim=1, keepdim=True) / n_samples[:, None]
    return centred / torch.sqrt(variance + VARIANCE_FLOOR)


class MaskedGroupNorm(nn.Module):
    """A group norm whose statistics leave the padding out; `norm` keeps the weights.

    Each clip goes through `norm` alone, cut to its length: the very numbers of a
    batch of one, and four times faster on a CPU than masked sums.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor, n_frames: Tensor) -> Tensor:
        """Normalise `[B, C, F]`, of which a clip owns the first `n_frames`; zero after those."""
        n_most = features.shape[-1]
        clips = [
            functional.pad(self.norm(clip[None, :, :n]), (0, n_most - n))
            for clip, n in zip(features, n_frames.tolist(), strict=True)
        ]
        return torch.cat(clips)


class MaskedConvolution(nn.Module):
    """The first convolution of a base-size encoder, with its norm over valid frames only."""

    def __init__(self, conv: nn.Conv1d, norm: nn.GroupNorm, activation: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = MaskedGroupNorm(norm)
        self.activation = activation

    def forward(self, samples: Tensor, n_samples: Tensor) -> Tensor:
        """Turn `[B, 1, T]` samples into `[B, C, F]` features."""
        n_frames = (n_samples - self.conv.kernel_size[0]) // self.conv.stride[0] + 1
        activated: Tensor = self.activation(self.norm(self.conv(samples), n_frames))
        return activated
