"""Moments against plain statistics of the weighted sum of frames."""

import pytest
import torch
from torch import Tensor, nn

from voxpanel.features.backbone import LayerFrames
from voxpanel.features.moments import layer_pairs, moments, weighted_deviation

N_LAYERS, DIM = 3, 5
LENGTHS = (2, 7, 40)
FLOAT32 = 1e-5  # of numbers near 1: sums in another order


def make_frames(n_frames: int, seed: int = 0) -> Tensor:
    """Return `[L, F, D]` frames whose layers are related, as those of an encoder are."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(N_LAYERS, n_frames, DIM, generator=generator)
    return own.cumsum(dim=0) + torch.randn(N_LAYERS, 1, DIM, generator=generator)


def batch(*clips: Tensor, padding: float = 0.0) -> LayerFrames:
    by_frame = [clip.transpose(0, 1) for clip in clips]
    padded = nn.utils.rnn.pad_sequence(by_frame, batch_first=True, padding_value=padding)
    return LayerFrames(padded.transpose(1, 2), torch.tensor([len(clip) for clip in by_frame]))


def make_weights(seed: int) -> Tensor:
    """Return weights of layers; they need not be positive nor sum to 1."""
    return torch.randn(N_LAYERS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_frames", LENGTHS)
def test_moments_give_the_statistics_of_the_weighted_sum_of_frames(n_frames, seed):
    clip, weights = make_frames(n_frames, seed), make_weights(seed)
    mixed = torch.einsum("lfd,l->fd", clip, weights)
    mean, covariance, change = moments(batch(clip))
    found = torch.einsum("bld,l->bd", mean, weights)[0]
    torch.testing.assert_close(found, mixed.mean(dim=0), atol=FLOAT32, rtol=FLOAT32)
    deviation = weighted_deviation(covariance, weights)[0]
    # The variance of two frames may be the small difference of large products.
    torch.testing.assert_close(deviation, mixed.std(dim=0, correction=0), atol=1e-4, rtol=1e-4)
    change_size = mixed.diff(dim=0).square().mean(dim=0).sqrt()
    torch.testing.assert_close(
        weighted_deviation(change, weights)[0], change_size, atol=1e-4, rtol=1e-4
    )


def test_the_covariance_of_two_layers_is_torchs():
    clip = make_frames(40)
    first, second = layer_pairs(N_LAYERS)
    _, covariance, _ = moments(batch(clip))
    for d in range(DIM):
        expected = torch.cov(clip[:, :, d], correction=0)
        torch.testing.assert_close(covariance[0, :, d], expected[first, second])


@pytest.mark.parametrize("padding", [0.0, 1e3])
def test_moments_do_not_depend_on_padding(padding):
    clips = [make_frames(n_frames, seed) for seed, n_frames in enumerate(LENGTHS)]
    together = moments(batch(*clips, padding=padding))
    for row, clip in enumerate(clips):
        for found, expected in zip(together, moments(batch(clip)), strict=True):
            torch.testing.assert_close(found[row], expected[0], atol=FLOAT32, rtol=FLOAT32)


def test_a_clip_of_one_frame_has_no_deviation_and_finite_gradients():
    weights = make_weights(0).requires_grad_()
    encoded = batch(make_frames(1), make_frames(9))
    mean, covariance, change = moments(encoded)
    torch.testing.assert_close(mean[0], encoded.frames[0, :, 0])
    assert covariance[0].abs().max() == 0
    assert change[0].abs().max() == 0
    logs = [weighted_deviation(products, weights).log() for products in (covariance, change)]
    assert all(log.isfinite().all() for log in logs)
    torch.stack(logs).sum().backward()
    assert weights.grad.isfinite().all()


def test_gradients_reach_the_frames_and_stay_out_of_the_padding():
    frames, n_frames = batch(make_frames(4), make_frames(9))
    frames.requires_grad_()
    sum(part.square().sum() for part in moments(LayerFrames(frames, n_frames))).backward()
    assert frames.grad[0, :, :4].abs().min() > 0
    assert frames.grad[0, :, 4:].abs().max() == 0


@pytest.mark.parametrize("n_layers", [1, 2, 8])
def test_every_pair_of_layers_comes_once(n_layers):
    first, second = layer_pairs(n_layers)
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == {(i, j) for i in range(n_layers) for j in range(i, n_layers)}
    assert len(first) == n_layers * (n_layers + 1) // 2
