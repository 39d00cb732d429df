"""The backbone without weights."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxpanel.errors import ConfigError
from voxpanel.features.backbone import LayerFrames
from voxpanel.features.melbank import MOST_MELS, Melbank, hz_to_mel, mel_filters, mel_to_hz

FLOAT32 = 1e-4  # absolute, on logarithms between -18 and 5


def noise(n_samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))


def encode(backbone: Melbank, *clips: Tensor) -> LayerFrames:
    samples = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return backbone(samples, torch.tensor([len(clip) for clip in clips]))


def test_mel_frequencies_are_those_of_librosas_documentation():
    # librosa.mel_frequencies(n_mels=40): 40 equal steps of mel up to 11025 Hz.
    step = hz_to_mel(11_025) / 39
    documented = {1: 85.317, 11: 938.49, 12: 1024.856, 20: 2071.84, 30: 4994.285, 38: 10_096.408}
    for i, hz in documented.items():
        assert mel_to_hz(i * step) == pytest.approx(hz, abs=5e-4)  # it prints three decimals


@pytest.mark.parametrize("hz", [0.0, 440.0, 999.9, 1000.0, 7000.0])
def test_mel_to_hz_inverts_hz_to_mel(hz):
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz)


def test_filters_are_triangles_between_their_neighbours_peaks():
    n_mels = 10
    step = hz_to_mel(8000) / (n_mels + 1)
    corners = [mel_to_hz(i * step) for i in range(n_mels + 2)]
    hz = np.linspace(0, 8000, 201)
    for i in range(n_mels):
        low, peak, high = corners[i : i + 3]
        expected = np.interp(hz, [low, peak, high], [0, 2 / (high - low), 0])
        np.testing.assert_allclose(mel_filters(n_mels)[:, i], expected, atol=1e-7)


@pytest.mark.parametrize("n_mels", [1, 40, 80, MOST_MELS])
def test_every_band_hears_something(n_mels):
    assert (mel_filters(n_mels).sum(dim=0) > 0).all()


@pytest.mark.parametrize("n_mels", [-1, 0, MOST_MELS + 1])
def test_a_useless_number_of_bands_is_refused(n_mels):
    with pytest.raises(ConfigError, match=f"n_mels is {n_mels}; give 1 to 128"):
        Melbank(n_mels)


def test_frames_are_those_of_a_plain_loop_over_windows():
    samples = noise(2_000)
    power = [
        np.abs(np.fft.rfft(samples[at : at + 400].double().numpy() * np.hanning(401)[:-1])) ** 2
        for at in range(0, 1_601, 160)
    ]
    bands = np.stack(power) @ mel_filters(40).double().numpy()
    expected = np.log(bands / bands.mean() + 1e-8)
    frames, n_frames = encode(Melbank(40), samples)
    assert n_frames.tolist() == [11]
    np.testing.assert_allclose(frames[0, 0], expected, atol=FLOAT32)


@pytest.mark.parametrize("hz", [200.0, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_the_band_around_it(hz):
    tone = torch.sin(2 * torch.pi * hz * torch.arange(8_000) / 16_000)
    frames, _ = encode(Melbank(40), tone)
    step = hz_to_mel(8000) / 41
    nearest = round(hz_to_mel(hz) / step) - 1
    assert (frames[0, 0].argmax(dim=1) == nearest).all()


@pytest.mark.parametrize("n_samples", [400, 559, 560, 9_000])
def test_a_clip_gives_the_same_frames_alone_and_beside_a_longer_one(n_samples):
    backbone, clip = Melbank(), noise(n_samples)
    alone = encode(backbone, clip)
    beside = encode(backbone, clip, 3 * noise(12_000, seed=1))
    n_frames = int(alone.n_frames[0])
    assert alone.frames.shape == (1, backbone.n_layers, n_frames, backbone.dim)
    torch.testing.assert_close(
        beside.frames[0, :, :n_frames], alone.frames[0], atol=FLOAT32, rtol=0
    )
    assert beside.frames[0, :, n_frames:].abs().sum() == 0


@pytest.mark.parametrize("gain", [1e-4, 0.3, 50.0])
def test_the_level_does_not_matter(gain):
    backbone, clip = Melbank(), noise(8_000)
    loud, usual = encode(backbone, gain * clip), encode(backbone, clip)
    torch.testing.assert_close(loud.frames, usual.frames, atol=FLOAT32, rtol=0)


def test_silence_has_finite_frames():
    assert encode(Melbank(), torch.zeros(4_000)).frames.isfinite().all()


def test_there_is_nothing_to_store():
    assert not Melbank().state_dict()
    assert not Melbank.trained
