"""The small encoder inside the shipped model: Distill-MOS's network, any length.

A convolutional front end on a compressed complex spectrogram (20 ms windows
every 10 ms), then seven transformer layers of 200 features, one frame every
20 ms; 4.1 million parameters. Architecture and weights: Stahl and Gamper,
"Distillation and Pruning for Scalable Self-Supervised Representation-Based
Speech Quality Assessment" (2025), MIT licence; written here from that description.

The original pads a short clip to 7.68 s and covers a long one by windows a second
apart. Here padding is masked, and a long clip is cut into the fewest windows of at
most 7.68 s, equally long: each moment is encoded once, and memory stays bounded.

Axes: B clips, C channels, K frequency bins, F frames, N windows, D features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpanel.features.backbone import Backbone, LayerFrames, equal_parts, frame_mask

HOP = 160  # samples, 10 ms
WINDOW = 320  # samples, 20 ms
FRAME = 320  # samples from one frame out to the next, 20 ms
WINDOWS_AT_ONCE = 32  # on a GPU; a CPU is fastest with one
LENGTH_STEP = 7_680  # samples, 0.48 s: windows are padded, and masked, to multiples of it
N_WINDOW_FRAMES = 384  # 7.68 s, the length that the weights were trained on
CHANNELS = (2, 64, 64, 128, 256, 256, 256)
N_BINS_OUT = 4  # what the six convolutions leave of 161 frequency bins
DIM = 200
N_HEADS = 8
N_TRANSFORMER_LAYERS = 7
COMPRESSION = 0.3


class DistilledEncoder(Backbone):
    """The encoder of Distill-MOS; layer 0 is the projected front end."""

    name = "distilled"
    n_layers = N_TRANSFORMER_LAYERS + 1
    dim = DIM
    min_samples = WINDOW
    positions: Tensor  # buffer

    def __init__(self) -> None:
        super().__init__()
        self.front_end = FrontEnd()
        n_features = CHANNELS[-1] * N_BINS_OUT
        self.norm_input = nn.BatchNorm1d(n_features)
        self.norm_projection = nn.BatchNorm1d(n_features)
        self.projection = nn.Linear(n_features, DIM)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(DIM, N_HEADS, 2 * DIM, dropout=0.0, batch_first=True)
            for _ in range(N_TRANSFORMER_LAYERS)
        )
        self.register_buffer("positions", sinusoids(N_WINDOW_FRAMES, DIM), persistent=False)

    def train(self, mode: bool = True) -> "DistilledEncoder":
        """Switch the mode, but keep the batch norms' statistics as they were trained.

        A batch of speech is too small and too alike to re-estimate them.
        """
        super().train(mode)
        self.norm_input.eval()
        self.norm_projection.eval()
        return self

    def forward(self, samples: Tensor, n_samples: Tensor) -> LayerFrames:
        """Encode `[B, T]` samples at 16 kHz; see `Backbone.forward`."""
        peak = samples.abs().amax(dim=1, keepdim=True)
        windows, counts = cut_windows(samples / (peak + 1e-8), n_samples)
        pieces: list[Tensor] = []  # [L, F, D] each
        n_at_once = 1 if samples.device.type == "cpu" else WINDOWS_AT_ONCE
        for start in range(0, len(windows), n_at_once):
            rows = slice(start, start + n_at_once)
            n_window = torch.tensor(counts[rows], device=samples.device)
            frames, n_frames = self.encode(windows[rows], n_window)
            pieces += [piece[:, :n] for piece, n in zip(frames, n_frames.tolist(), strict=True)]
        return join_windows(pieces, n_samples)

    def encode(self, windows: Tensor, n_samples: Tensor) -> LayerFrames:
        """Encode windows of at most 7.68 s, each on its own."""
        # A CPU prepares its convolutions anew for every length, which takes longer than they do.
        length = -(-int(n_samples.max()) // LENGTH_STEP) * LENGTH_STEP
        windows = functional.pad(windows, (0, max(0, length - windows.shape[1])))[:, :length]
        features, n_frames = self.front_end(windows, n_samples)
        features = self.norm_input(features.transpose(1, 2))  # [N, F, K] -> [N, K, F]
        features = self.norm_projection(features).transpose(1, 2)
        padding = ~frame_mask(n_frames, features.shape[1])
        layers = [self.projection(features) + self.positions[: features.shape[1]]]
        for layer in self.layers:
            layers.append(layer(layers[-1], src_key_padding_mask=padding))
        return LayerFrames(torch.stack(layers, dim=1), n_frames)


class FrontEnd(nn.Module):
    """Six convolutions over a compressed complex spectrogram, padding masked."""

    window: Tensor  # buffer

    def __init__(self) -> None:
        super().__init__()
        n_layers = len(CHANNELS) - 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(
                CHANNELS[i],
                CHANNELS[i + 1],
                kernel_size=3,
                stride=(2 if i else 1, 2 if i == n_layers - 1 else 1),
                padding=(0, 1),
            )
            for i in range(n_layers)
        )
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, samples: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Turn `[B, T]` samples into `[B, F, C * K]` features, 20 ms a frame."""
        n_frames = n_samples // HOP
        features = self.spectrogram(samples, n_samples)
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)  # a ModuleList forgets what it holds
            features = functional.leaky_relu(convolution(features), 0.1)
            n_frames = (n_frames - 1) // convolution.stride[1] + 1  # the last one halves the rate
            # A convolution's bias would fill the padding and leak back one frame a layer.
            features = features * frame_mask(n_frames, features.shape[-1])[:, None, None, :]
        return features.flatten(1, 2).transpose(1, 2), n_frames

    def spectrogram(self, samples: Tensor, n_samples: Tensor) -> Tensor:
        """Return real and imaginary part, magnitude to the power 0.3: `[B, 2, K, F]`."""
        edge = (WINDOW - HOP) // 2
        padded = samples.new_zeros(len(samples), samples.shape[1] + 2 * edge)
        for row, n in enumerate(n_samples.tolist()):  # each clip is mirrored at its own end
            clip = functional.pad(samples[row : row + 1, :n], (edge, edge), mode="reflect")
            padded[row, : n + 2 * edge] = clip[0]
        spectrum = torch.stft(
            padded, WINDOW, HOP, WINDOW, self.window, center=False, return_complex=True
        )
        magnitude = spectrum.abs().clamp_min(1e-12)
        compressed = torch.view_as_real(spectrum * magnitude ** (COMPRESSION - 1))
        mask = frame_mask(n_samples // HOP, spectrum.shape[-1])
        return compressed.permute(0, 3, 1, 2) * mask[:, None, None, :]


def sinusoids(n_positions: int, dim: int) -> Tensor:
    """Return the position code `[n_positions, dim]` that the weights were trained with."""
    position = torch.arange(n_positions)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(2 * n_positions) / dim))
    code = torch.zeros(n_positions, dim)
    code[:, 0::2] = torch.sin(position * rate)
    code[:, 1::2] = torch.cos(position * rate)
    return code


def window_lengths(n_frames: int) -> list[int]:
    """Cut a clip into the fewest windows of at most 384 frames, as equal as can be.

    >>> window_lengths(384), window_lengths(385), window_lengths(1000)
    ([384], [193, 192], [334, 333, 333])
    """
    return equal_parts(n_frames, N_WINDOW_FRAMES)


def cut_windows(samples: Tensor, n_samples: Tensor) -> tuple[Tensor, list[int]]:
    """Cut clips `[B, T]` into windows `[N, W]` and tell how many samples each has.

    Windows start on whole frames; a clip's last one has what samples are left.
    """
    pieces = [
        piece
        for clip, n in zip(samples, n_samples.tolist(), strict=True)
        for piece in clip[: n // HOP * HOP].split(window_samples(n))
    ]
    return nn.utils.rnn.pad_sequence(pieces, batch_first=True), [len(piece) for piece in pieces]


def window_samples(n_samples: int) -> list[int]:
    """Return how many samples each window of a clip has; what is short of 10 ms is left out.

    >>> window_samples(123_039), window_samples(123_200)
    ([122880], [61760, 61440])
    """
    lengths = [n * FRAME for n in window_lengths(count_frames(n_samples))]
    lengths[-1] += n_samples // HOP * HOP - sum(lengths)
    return lengths


def count_frames(n_samples: int) -> int:
    """Return how many frames of 20 ms a clip has, the last one perhaps of 10 ms.

    >>> count_frames(319), count_frames(320), count_frames(480)
    (1, 1, 2)
    """
    return (n_samples // HOP + 1) // 2


def join_windows(pieces: list[Tensor], n_samples: Tensor) -> LayerFrames:
    """Put the windows' frames, `[L, F, D]` each, back together as clips `[B, L, F, D]`."""
    remaining = iter(pieces)
    clips = []
    for n in n_samples.tolist():
        windows = [next(remaining) for _ in window_samples(n)]
        clips.append(torch.cat(windows, dim=1).transpose(0, 1))  # [F, L, D]
    n_frames = torch.tensor([len(clip) for clip in clips], device=n_samples.device)
    return LayerFrames(nn.utils.rnn.pad_sequence(clips, batch_first=True).transpose(1, 2), n_frames)
