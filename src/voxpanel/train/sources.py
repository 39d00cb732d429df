"""Where the features of a batch come from: the cache, or the encoder being trained.

Both are made from a list of files, of which some may be unreadable: those are left
out and named, and the run goes on without them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from voxpanel.errors import AudioError
from voxpanel.features.backbone import Backbone
from voxpanel.features.extract import Features, concatenate, encode, read_clip
from voxpanel.features.store import FeatureStore


class Readable(NamedTuple):
    """Which of N files can be trained on.

    kept: `[N]` bool.
    reasons: why not, one a file that is left out.
    """

    kept: NDArray[np.bool_]
    reasons: list[str]


class FrozenSource:
    """Features that were computed once, held in memory."""

    def __init__(self, features: Features, device: torch.device) -> None:
        self.all = features.to(device)

    def __call__(self, rows: Sequence[int]) -> Features:
        """Return the features of the clips at these places."""
        return self.all.select(torch.tensor(rows, dtype=torch.long))


class LiveSource:
    """Features through the encoder as it is now, so that gradients reach it."""

    def __init__(self, backbone: Backbone, paths: Sequence[Path]) -> None:
        self.backbone = backbone
        self.paths = paths

    def __call__(self, rows: Sequence[int]) -> Features:
        """Decode and encode the clips at these places."""
        if not rows:  # the share of a process may be empty; the encoder needs a clip
            return self([0]).select(torch.empty(0, dtype=torch.long))
        return encode(self.backbone, [read_clip(self.paths[row], self.backbone) for row in rows])


def frozen_source(
    store: FeatureStore, paths: Sequence[Path], device: torch.device, on_clip: Callable[[], None]
) -> tuple[FrozenSource, Readable]:
    """Compute or find the features of all files that can be read."""
    parts: list[Features] = []
    readable = sift(paths, lambda path: parts.append(store.one(path)), on_clip)
    return FrozenSource(concatenate(parts), device), readable


def live_source(
    backbone: Backbone, paths: Sequence[Path], on_clip: Callable[[], None]
) -> tuple[LiveSource, Readable]:
    """Check that files can be read, before an encoder is trained on them."""
    readable = sift(paths, lambda path: read_clip(path, backbone), on_clip)
    kept = [path for path, good in zip(paths, readable.kept, strict=True) if good]
    return LiveSource(backbone, kept), readable


def sift(
    paths: Sequence[Path], read: Callable[[Path], object], on_clip: Callable[[], None]
) -> Readable:
    """Read every file, and note which cannot be.

    Raises:
        AudioError: none can.
    """
    kept, reasons = [], []
    for path in paths:
        try:
            read(path)
            kept.append(True)
        except AudioError as error:
            reasons.append(str(error))
            kept.append(False)
        on_clip()
    if not any(kept):
        raise AudioError(f"none of {len(paths)} clips can be trained on; the first: {reasons[0]}")
    return Readable(np.array(kept), reasons)
