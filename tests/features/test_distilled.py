"""The Distill-MOS encoder with random weights: what holds whatever it has learned."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from voxpanel.features.backbone import LayerFrames
from voxpanel.features.distilled import DistilledEncoder, window_samples

WINDOW_SAMPLES = 122_880  # 7.68 s
FLOAT32 = 1e-5  # relative to the largest value: float32 sums in another order


@pytest.fixture(scope="module")
def encoder() -> DistilledEncoder:
    torch.manual_seed(0)
    made = DistilledEncoder().eval()
    for norm in (made.norm_input, made.norm_projection):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return made


def noise(n_samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def encode(encoder: DistilledEncoder, *clips: Tensor) -> LayerFrames:
    samples = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return encoder(samples, torch.tensor([len(clip) for clip in clips]))


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def original(encoder: DistilledEncoder, samples: Tensor) -> Tensor:
    """Distill-MOS as published, written plainly: one clip of 7.68 s, no mask, torch's layers."""
    samples = samples / (samples.abs().max() + 1e-8)
    padded = functional.pad(samples[None], (80, 80), mode="reflect")
    spectrum = torch.view_as_real(
        torch.stft(padded, 320, 160, 320, torch.hann_window(320), center=False, return_complex=True)
    )
    magnitude = spectrum.square().sum(-1, keepdim=True).sqrt().clip(1e-12)
    features = (magnitude**0.3 * spectrum / magnitude).permute(0, 3, 1, 2)  # [1, 2, K, F]
    strides = [(1, 1), (2, 1), (2, 1), (2, 1), (2, 1), (2, 2)]
    for convolution, stride in zip(encoder.front_end.convolutions, strides, strict=True):
        weight, bias = convolution.weight, convolution.bias
        features = functional.conv2d(features, weight, bias, stride, padding=(0, 1))
        features = functional.leaky_relu(features, 0.1)
    features = features.flatten(1, 2)  # [1, C * K, F]
    for norm in (encoder.norm_input, encoder.norm_projection):
        features = functional.batch_norm(
            features, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
    hidden = encoder.projection(features.transpose(1, 2))
    for i in range(0, 200, 2):
        angle = torch.arange(384) * math.exp(-i * math.log(2 * 384) / 200)
        hidden[0, :, i] += angle.sin()
        hidden[0, :, i + 1] += angle.cos()
    layer = nn.TransformerEncoderLayer(200, 8, 400, batch_first=True)
    stack = nn.TransformerEncoder(layer, 7).eval()
    stack.layers.load_state_dict(encoder.layers.state_dict())
    return stack(hidden)[0]


def test_the_last_layer_is_the_originals_on_a_clip_of_its_own_length(encoder):
    samples = noise(WINDOW_SAMPLES)
    frames, n_frames = encode(encoder, samples)
    assert n_frames.tolist() == [384]
    # The magnitude to the power 0.3 - 1 is taken in another order than the original's.
    assert relative_error(frames[0, -1], original(encoder, samples)) < 1e-4


@pytest.mark.parametrize("n_samples", [320, 321, 4_799, 16_000])
def test_a_clip_gives_the_same_frames_alone_and_beside_a_longer_one(encoder, n_samples):
    clip = noise(n_samples)
    alone = encode(encoder, clip)
    beside = encode(encoder, noise(20_000, seed=1), clip)
    n_frames = int(alone.n_frames[0])
    assert int(beside.n_frames[1]) == n_frames
    assert relative_error(beside.frames[1, :, :n_frames], alone.frames[0]) < FLOAT32


def test_a_clip_of_several_windows_gives_the_same_frames_alone_and_in_a_batch(encoder):
    long, longer = noise(150_000), noise(160_000, seed=1)
    alone = encode(encoder, long)
    beside = encode(encoder, long, longer)
    n_frames = int(alone.n_frames[0])
    assert relative_error(beside.frames[0, :, :n_frames], alone.frames[0]) < FLOAT32


def test_frames_after_a_clips_end_are_zero(encoder):
    frames, n_frames = encode(encoder, noise(8_000), noise(16_000, seed=1))
    assert frames[0, :, int(n_frames[0]) :].abs().max() == 0
    assert frames[0, :, int(n_frames[0]) - 1].abs().max() > 0


@pytest.mark.parametrize(("n_samples", "n_frames"), [(320, 1), (480, 2), (16_000, 50)])
def test_a_frame_stands_for_20_ms(encoder, n_samples, n_frames):
    frames, counted = encode(encoder, noise(n_samples))
    assert frames.shape == (1, encoder.n_layers, n_frames, encoder.dim)
    assert counted.tolist() == [n_frames]


@pytest.mark.parametrize("gain", [1e-3, 0.3, 8.0])
def test_the_level_does_not_matter(encoder, gain):
    clip = noise(16_000)
    loud, usual = encode(encoder, gain * clip), encode(encoder, clip)
    # The peak's guard of 1e-8 is 3e-5 of the softest clip's peak.
    assert relative_error(loud.frames, usual.frames) < 1e-4


def test_the_order_of_a_batch_does_not_matter(encoder):
    clips = [noise(n, seed=n) for n in (9_000, 4_000, 6_000)]
    frames, _ = encode(encoder, *clips)
    turned, _ = encode(encoder, *clips[::-1])
    assert relative_error(turned.flip(0), frames) < FLOAT32


def test_windows_do_not_attend_to_one_another(encoder):
    long = noise(2 * WINDOW_SAMPLES)
    changed = long.clone()
    changed[-1600:] = -changed[-1600:] * 0.5  # the peak stays where it was
    assert changed.abs().max() == long.abs().max()
    before, after = encode(encoder, long).frames[0], encode(encoder, changed).frames[0]
    assert torch.equal(before[:, :384], after[:, :384])
    assert not torch.equal(before[:, 384:], after[:, 384:])


def test_silence_has_finite_frames(encoder):
    assert encode(encoder, torch.zeros(4_000)).frames.isfinite().all()


def test_training_leaves_the_statistics_of_the_batch_norms_alone():
    torch.manual_seed(0)
    encoder = DistilledEncoder().train()
    frames, _ = encoder(noise(8_000)[None], torch.tensor([8_000]))
    frames.square().mean().backward()
    assert encoder.norm_input.running_mean.abs().max() == 0
    assert all(weight.grad is not None for weight in encoder.parameters())


@given(st.integers(320, 1_000_000))
@example(122_881)  # one sample over a window makes no second one
def test_windows_cover_every_sample_and_start_on_whole_frames(n_samples):
    lengths = window_samples(n_samples)
    n_heard = n_samples // 160 * 160  # what is short of 10 ms makes no frame
    assert sum(lengths) == n_heard
    assert max(lengths) <= WINDOW_SAMPLES
    assert all(length % 320 == 0 for length in lengths[:-1])
    assert len(lengths) == math.ceil(n_heard / WINDOW_SAMPLES)
