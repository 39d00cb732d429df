"""The Backbone protocol: 16 kHz speech in, the frames of every encoder layer out.

Axes: B clips, T samples, L layers, F frames, D features of a frame.
A backbone never lets padding reach a valid frame: a clip gives the same frames
alone and in a batch (within float32 rounding). Levels are normalised inside,
over the valid samples, so callers hand over what they decoded.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class LayerFrames(NamedTuple):
    """What a backbone returns.

    frames: `[B, L, F, D]`, layer 0 being what enters the first transformer layer;
        zero where a clip has no frame.
    n_frames: `[B]`, how many of the F frames are the clip's own.
    """

    frames: Tensor
    n_frames: Tensor


class Backbone(nn.Module):
    """A speech encoder that exposes its layers.

    Subclasses set the attributes below and return `LayerFrames` from `forward`.
    """

    name: str
    rate_hz: int = 16_000
    n_layers: int
    dim: int
    min_samples: int
    trained: bool = True  # False: no weights worth storing (mel filters)

    def forward(self, samples: Tensor, n_samples: Tensor) -> LayerFrames:
        """Encode a batch.

        Args:
            samples: `[B, T]` float32 at `rate_hz`, zero after each clip's end.
            n_samples: `[B]` int64, each at least `min_samples`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")


def frame_mask(n_frames: Tensor, n_most: int) -> Tensor:
    """Mark the frames that belong to a clip.

    Returns:
        `[B, F]` bool.

    >>> frame_mask(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(n_most, device=n_frames.device)[None, :] < n_frames[:, None]


def equal_parts(n: int, n_most: int) -> list[int]:
    """Split n into the fewest parts of at most `n_most`, as equal as can be.

    >>> equal_parts(1500, 1500), equal_parts(1501, 1500)
    ([1500], [751, 750])
    """
    n_parts = -(-n // n_most)
    short, n_long = divmod(n, n_parts)
    return [short + 1] * n_long + [short] * (n_parts - n_long)
