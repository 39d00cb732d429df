"""What a run trains on: clips with their targets, classes, tests and folds.

Built once from a manifest, before any network. Rows of the split `test` are left
out here, so that nothing later can see them.

Axes: N clips.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxpanel.config import Config, Stage
from voxpanel.data.listeners import without_bias
from voxpanel.data.manifest import clips
from voxpanel.data.splits import check_no_leak, folds, group_keys
from voxpanel.errors import ManifestError
from voxpanel.model.losses import UNKNOWN_CLASS
from voxpanel.records import Clip, Rating

TRAIN_FOLD = -1  # of clips that are never held out


@dataclass(frozen=True, eq=False)
class Material:
    """N clips and what is wanted of each.

    targets: `[N]`, what the MOS head learns; NaN where unrated.
    ratings: `[N]`, plain mean ratings, which validation compares with.
    labelled: `[N]` bool.
    weights: `[N]`, how much each rating counts in the MOS loss.
    prior: `[N]`, what an earlier model says of each clip; NaN before it was asked.
    classes: `[N]` int64, place in `synthesizers`, or `UNKNOWN_CLASS`.
    tests: `[N]` int64, 1 + place in `test_names`, or 0.
    folds: `[N]`, which fold a clip is in; `TRAIN_FOLD` if it is never held out.
    """

    clips: tuple[Clip, ...]
    targets: Tensor
    ratings: NDArray[np.float64]
    labelled: Tensor
    weights: Tensor
    prior: Tensor
    classes: Tensor
    tests: Tensor
    folds: NDArray[np.int64]
    synthesizers: tuple[str, ...]
    test_names: tuple[str, ...]

    def rows(self, stage: Stage, member: int) -> tuple[list[int], list[int]]:
        """Return the places of the clips that a stage trains on, and those held out from it."""
        if stage.clips == "named":
            wanted = self.classes.numpy() != UNKNOWN_CLASS
        elif stage.clips == "rated":
            wanted = self.labelled.numpy()
        else:
            wanted = np.ones(len(self.clips), dtype=bool)
        held = self.folds == member
        return np.flatnonzero(wanted & ~held).tolist(), np.flatnonzero(wanted & held).tolist()

    def held_out_ratings(self, member: int) -> list[int]:
        """Return the places of the rated clips that a member never saw."""
        return np.flatnonzero((self.folds == member) & self.labelled.numpy()).tolist()


def gather(ratings: Sequence[Rating], config: Config) -> Material:
    """Turn a manifest's rows into training material.

    Raises:
        ManifestError: no row has a score.
        DataError: a group is in `train` and in `dev`.
    """
    kept = [rating for rating in ratings if rating.split != "test"]
    listened = clips(kept)
    if not any(clip.score is not None for clip in listened):
        raise ManifestError("no row to train on has a score; rate some clips or check `split`")
    synthesizers = sorted({clip.synthesizer for clip in listened if clip.synthesizer})
    tests = sorted({clip.test for clip in listened if clip.test})
    targets = unbiased_means(kept) if config.losses.listener_bias else {}
    missing = float("nan")
    rated = [missing if clip.score is None else clip.score for clip in listened]
    wanted = [
        targets.get((clip.path, clip.test), r) for clip, r in zip(listened, rated, strict=True)
    ]
    return Material(
        clips=tuple(listened),
        targets=torch.tensor(wanted, dtype=torch.float32),
        ratings=np.array(rated),
        labelled=torch.tensor([clip.score is not None for clip in listened]),
        weights=torch.tensor([test_weight(clip.test, config) for clip in listened]),
        prior=torch.full((len(listened),), torch.nan),
        classes=torch.tensor(
            [
                synthesizers.index(clip.synthesizer) if clip.synthesizer else UNKNOWN_CLASS
                for clip in listened
            ]
        ),
        tests=torch.tensor([tests.index(clip.test) + 1 if clip.test else 0 for clip in listened]),
        folds=assign_folds(listened, config),
        synthesizers=tuple(synthesizers),
        test_names=tuple(tests),
    )


def test_weight(test: str | None, config: Config) -> float:
    """Return how much a clip of a listening test counts."""
    return 1.0 if test is None else config.losses.test_weights.get(test, 1.0)


def unbiased_means(ratings: Sequence[Rating]) -> dict[tuple[object, str | None], float]:
    """Return the mean of each clip's ratings in each test, listeners' biases taken out."""
    scored = [rating for rating in ratings if rating.score is not None]
    groups: dict[tuple[object, str | None], list[float]] = defaultdict(list)
    for rating, score in zip(scored, without_bias(scored), strict=True):
        groups[rating.path, rating.test].append(score)
    return {key: float(np.mean(scores)) for key, scores in groups.items()}


def assign_folds(listened: Sequence[Clip], config: Config) -> NDArray[np.int64]:
    """Give each clip its fold: by group, or the manifest's own `dev` as the only one."""
    keys = group_keys(listened, config.validation.by)
    if any(clip.split == "dev" for clip in listened):
        check_no_leak(keys, ["dev" if clip.split == "dev" else "train" for clip in listened])
        return np.array([0 if clip.split == "dev" else TRAIN_FOLD for clip in listened])
    return folds(keys, config.validation.folds, config.seed)


def n_members(material: Material, config: Config) -> int:
    """Return how many members a run trains: one, if the manifest names its own `dev`."""
    return 1 if (material.folds == TRAIN_FOLD).any() else config.validation.members


def with_fewer(material: Material, keep: NDArray[np.bool_]) -> Material:
    """Return the material without some clips, such as those that could not be read."""
    places = torch.from_numpy(np.flatnonzero(keep))
    return replace(
        material,
        clips=tuple(clip for clip, kept in zip(material.clips, keep, strict=True) if kept),
        targets=material.targets[places],
        ratings=material.ratings[keep],
        labelled=material.labelled[places],
        weights=material.weights[places],
        prior=material.prior[places],
        classes=material.classes[places],
        tests=material.tests[places],
        folds=material.folds[keep],
    )
