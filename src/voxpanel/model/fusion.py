"""Layers, frames, full band and listening test become one global vector.

A learned weighted sum of encoder layers; its mean, deviation and change over frames
(`features/moments.py`); beside it the full band with the measured bandwidth, and an
embedding of the listening test, for the same clip is rated otherwise in other
company. Each branch is projected to one width and they are added.

Axes: B clips, L layers, D features, G the global vector.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxpanel.config import FusionSettings
from voxpanel.features.extract import Features
from voxpanel.features.moments import weighted_deviation

UNKNOWN_TEST = 0  # the place of a test that was not in training, and of none
CONSTANT = 1e-3  # a feature that varies less over the training clips says nothing
FURTHEST = 5.0  # deviations; what lies beyond what training had is not extrapolated


class Standardiser(nn.Module):
    """Shifts and scales each feature by what the training clips had; then fixed.

    A feature that was constant in training is 0, and none goes beyond `FURTHEST`: so a
    clip unlike any in training, at another sampling rate say, cannot blow a score up.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, features: Tensor) -> None:
        """Take the mean and deviation of `[N, D]` training features."""
        self.centre.copy_(features.mean(dim=0))
        scale = features.std(dim=0, unbiased=False)
        self.scale.copy_(torch.where(scale < CONSTANT, torch.inf, scale))

    def forward(self, features: Tensor) -> Tensor:
        """Standardise `[B, D]`."""
        return ((features - self.centre) / self.scale).clamp(-FURTHEST, FURTHEST)


class Fusion(nn.Module):
    """Features of a clip to one global vector `[B, G]`.

    n_tests: how many listening tests training had; 0 of the embedding is "unknown".
    """

    def __init__(
        self, settings: FusionSettings, n_layers: int, dim: int, n_bands: int, n_tests: int
    ) -> None:
        super().__init__()
        self.statistics = settings.statistics
        start = initial_layer_logits(settings, n_layers)
        self.layer_logits = nn.Parameter(start, requires_grad=settings.layers == "weighted")
        self.standardise = Standardiser(dim * len(self.statistics))
        self.project = nn.Linear(dim * len(self.statistics), settings.dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.fullband: nn.Sequential | None = None
        if settings.fullband:
            self.fullband = nn.Sequential(
                Standardiser(n_bands),
                nn.Dropout(settings.dropout),
                nn.Linear(n_bands, settings.dim),
            )
        self.test = nn.Embedding(n_tests + 1, settings.dim, padding_idx=UNKNOWN_TEST)
        nn.init.zeros_(self.test.weight)
        self.test_dropout = settings.test_dropout

    def fit(self, features: Features) -> None:
        """Set the standardisers from the training clips, before the first step."""
        with torch.no_grad():
            self.standardise.fit(self.pool(features))
            if self.fullband is not None:
                standardiser = self.fullband[0]
                assert isinstance(standardiser, Standardiser)
                standardiser.fit(features.fullband)

    def pool(self, features: Features) -> Tensor:
        """Pool the weighted sum of layers: `[B, n_statistics * D]`."""
        return pool_layers(self.statistics, features, torch.softmax(self.layer_logits, dim=0))

    def forward(self, features: Features, tests: Tensor) -> Tensor:
        """Return the global vector `[B, G]`.

        Args:
            features: of B clips.
            tests: `[B]` int64, the listening test to answer for; 0 if unknown.
        """
        if self.training and self.test_dropout:
            hidden = torch.rand(len(tests), device=tests.device) < self.test_dropout
            tests = tests.masked_fill(hidden, UNKNOWN_TEST)
        pooled = self.standardise(self.pool(features))
        vector: Tensor = self.project(self.dropout(pooled)) + self.test(tests)
        if self.fullband is not None:
            vector = vector + self.fullband(features.fullband)
        return vector


def pool_layers(statistics: Sequence[str], features: Features, weights: Tensor) -> Tensor:
    """Return statistics of the weighted sum of layers over frames: `[B, n_statistics * D]`.

    Args:
        statistics: names out of `mean`, `deviation` and `change`; of the last two, the log.
        weights: `[L]`.
    """
    return torch.cat([statistic(name, features, weights) for name in statistics], dim=1)


def statistic(name: str, features: Features, weights: Tensor) -> Tensor:
    """Return one statistic of the weighted sum of layers over frames: `[B, D]`."""
    mean, covariance, change = features.moments
    if name == "mean":
        return torch.einsum("bld,l->bd", mean, weights)
    if name == "deviation":
        return weighted_deviation(covariance, weights).log()
    if name == "change":
        return weighted_deviation(change, weights).log()
    raise ValueError(f"statistic {name!r}: known are mean, deviation, change")


def initial_layer_logits(settings: FusionSettings, n_layers: int) -> Tensor:
    """Return where the layer weights start: a bump over the depth, or the last layer.

    The layers that serve quality best lie at 15-45 % of an encoder's depth, and a few
    hundred ratings are too few to find them from equal weights.
    """
    if settings.layers == "last":
        logits = torch.full((n_layers,), -torch.inf)
        logits[-1] = 0.0
        return logits
    depth = torch.linspace(0, 1, n_layers)
    return -0.5 * ((depth - settings.layer_centre) / settings.layer_width).square()
