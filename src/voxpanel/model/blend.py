"""A member's opinion beside two simpler ones: a ridge regression, and an earlier model.

A mixture trained on a few hundred ratings knows its systems and strays on others. What
is linear in the pooled features strays less, and a model trained on other ratings less
still. Each member's score is a mean of the three in fixed shares (`blend` of the config);
with shares of zero it is the mixture's alone, as in the paper. `bench/results/` has what
each share is worth.

Axes: B or N clips, L layers, D pooled features.
"""

import torch
from torch import Tensor, nn

from voxpanel.config import BlendSettings
from voxpanel.features.extract import Features
from voxpanel.model.fusion import Standardiser, pool_layers

STATISTICS = ("mean", "change")  # the deviation adds nothing to these in a ridge


class Blend(nn.Module):
    """Mixes a mixture's score with a ridge's and an earlier model's.

    layer_weights: `[L]`, of the weighted sum that the ridge reads; fixed.
    slope, intercept: of the line from the earlier model's scores to the ratings.
    """

    layer_weights: Tensor
    weights: Tensor
    mean_rating: Tensor
    slope: Tensor
    intercept: Tensor

    def __init__(self, settings: BlendSettings, layer_weights: Tensor, dim: int) -> None:
        super().__init__()
        n_features = dim * len(STATISTICS)
        self.settings = settings
        self.standardise = Standardiser(n_features)
        self.register_buffer("layer_weights", layer_weights.detach().clone())
        self.register_buffer("weights", torch.zeros(n_features))
        self.register_buffer("mean_rating", torch.tensor(3.0))
        self.register_buffer("slope", torch.tensor(0.0))
        self.register_buffer("intercept", torch.tensor(3.0))

    def fit(self, features: Features, ratings: Tensor, prior: Tensor) -> None:
        """Fit the ridge and the line in closed form.

        Args:
            features: of N clips.
            ratings: `[N]`, plain means.
            prior: `[N]`, the earlier model's scores; NaN if there is none.
        """
        ratings = ratings.double()
        pooled = self.pool(features)
        self.standardise.fit(pooled)
        x = self.standardise(pooled).double()
        centred = ratings - ratings.mean()
        penalty = self.settings.penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        self.weights.copy_(torch.linalg.solve(x.T @ x + penalty, x.T @ centred))
        self.mean_rating.copy_(ratings.mean())
        if self.settings.prior > 0:
            offset = prior.double() - prior.double().mean()
            slope = (offset @ centred / (offset @ offset).clamp_min(1e-9)).clamp_min(0.0)
            self.slope.copy_(slope)
            self.intercept.copy_(ratings.mean() - slope * prior.double().mean())

    def forward(self, mixture: Tensor, features: Features, prior: Tensor | None) -> Tensor:
        """Return the blended scores `[B]`.

        Args:
            mixture, prior: `[B]` scores; `prior` may be None where its share is 0.
        """
        shares = self.settings
        ridge = self.standardise(self.pool(features)) @ self.weights + self.mean_rating
        blended: Tensor = (1 - shares.ridge - shares.prior) * mixture + shares.ridge * ridge
        if shares.prior > 0:
            assert prior is not None
            blended = blended + shares.prior * (self.slope * prior + self.intercept)
        return blended

    def pool(self, features: Features) -> Tensor:
        """Return what the ridge reads: `[B, D]`."""
        return pool_layers(STATISTICS, features, self.layer_weights)
