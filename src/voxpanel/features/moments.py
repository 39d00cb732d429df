"""What pooling needs to know of a clip's frames, whatever its length.

The fusion takes a learned weighted sum of encoder layers, `s = sum_l w_l x_l`, and
pools its mean, its deviation and the deviation of its change from frame to frame.
All three follow from the layers' means and covariances, for any weights w:

    mean(s) = sum_l w_l mean(x_l)        var(s) = sum_lk w_l w_k cov(x_l, x_k)

So a clip of any length is some tens of kilobytes that can be cached, and a head over a
frozen encoder trains on them exactly as it would on the frames.

Axes: B clips, L layers, F frames, D features, P pairs of layers (l <= k).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from voxpanel.features.backbone import LayerFrames, frame_mask


class Moments(NamedTuple):
    """Statistics of a clip's frames, feature by feature.

    mean: `[B, L, D]`.
    covariance: `[B, P, D]`, between layers, over frames (divided by F).
    change: `[B, P, D]`, the same products of frame-to-frame differences.
    """

    mean: Tensor
    covariance: Tensor
    change: Tensor


def layer_pairs(n_layers: int) -> tuple[Tensor, Tensor]:
    """Return the two layers of each pair: P indices each, P = L (L + 1) / 2.

    >>> [side.tolist() for side in layer_pairs(2)]
    [[0, 0, 1], [0, 1, 1]]
    """
    first, second = torch.triu_indices(n_layers, n_layers)
    return first, second


def moments(encoded: LayerFrames) -> Moments:
    """Pool frames into moments; frames that are not the clip's do not count."""
    frames, n_frames = encoded
    mask = frame_mask(n_frames, frames.shape[2])[:, None, :, None]
    count = n_frames[:, None, None].to(frames)
    mean = (frames * mask).sum(dim=2) / count
    centred = (frames - mean[:, :, None]) * mask
    differences = (frames[:, :, 1:] - frames[:, :, :-1]) * mask[:, :, 1:]
    first, second = layer_pairs(frames.shape[1])
    return Moments(
        mean,
        pair_products(centred, first, second) / count,
        pair_products(differences, first, second) / (count - 1).clamp_min(1),
    )


def pair_products(frames: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Sum over frames the product of two layers, for each pair: `[B, P, D]`.

    A pair at a time, for P x F x D numbers at once would not fit for long clips.
    """
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return torch.stack([(frames[:, i] * frames[:, j]).sum(dim=1) for i, j in pairs], dim=1)


def weighted_deviation(products: Tensor, weights: Tensor) -> Tensor:
    """Return the deviation of the weighted sum of layers.

    Args:
        products: `[B, P, D]`, a `covariance` or `change`.
        weights: `[L]`.

    Returns:
        `[B, D]`.

    >>> products = torch.tensor([[[1.0], [2.0], [4.0]]])  # x_2 = 2 x_1, var(x_1) = 1
    >>> weighted_deviation(products, torch.tensor([0.5, 0.5])).item()
    1.5
    """
    first, second = layer_pairs(len(weights))
    twice = torch.where(first == second, 1.0, 2.0).to(weights)
    variance = torch.einsum("bpd,p->bd", products, twice * weights[first] * weights[second])
    return variance.clamp_min(1e-10).sqrt()
