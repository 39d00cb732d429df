"""A member's three opinions: the mixture, a ridge, an earlier model."""

import numpy as np
import pytest
import torch

from voxpanel.config import BlendSettings, read_config
from voxpanel.errors import ConfigError
from voxpanel.features.extract import Features
from voxpanel.features.moments import Moments
from voxpanel.model.blend import Blend
from voxpanel.model.fusion import pool_layers

N, LAYERS, DIM = 40, 3, 5
PAIRS = LAYERS * (LAYERS + 1) // 2
LAYER_WEIGHTS = torch.tensor([0.2, 0.5, 0.3])


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return Features(
        Moments(
            torch.randn(N, LAYERS, DIM, generator=generator),
            torch.rand(N, PAIRS, DIM, generator=generator) + 0.1,
            torch.rand(N, PAIRS, DIM, generator=generator) + 0.1,
        ),
        torch.zeros(N, 1),
    )


@pytest.fixture
def ratings():
    return 3 + torch.randn(N, generator=torch.Generator().manual_seed(1)).double() / 2


def fitted(features, ratings, earlier=None, **shares):
    blend = Blend(BlendSettings(**shares), LAYER_WEIGHTS, DIM)
    blend.fit(features, ratings, torch.full((N,), torch.nan) if earlier is None else earlier)
    return blend


def test_the_ridge_solves_its_normal_equations(features, ratings):
    blend = fitted(features, ratings, ridge=0.5, penalty=7.0)
    x = pool_layers(("mean", "change"), features, LAYER_WEIGHTS).numpy().astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = ratings.numpy()
    # The dual form, which solves for clips and not for features.
    dual = np.linalg.solve(x @ x.T + 7.0 * np.eye(N), y - y.mean())
    expected = x @ (x.T @ dual) + y.mean()
    found = blend(torch.zeros(N), features, None)
    np.testing.assert_allclose(2 * found.numpy(), expected, atol=1e-4)  # float32 at inference


def test_the_earlier_model_is_put_on_the_line_of_least_squares(features, ratings):
    prior = 1.5 + 0.4 * ratings + 0.1 * torch.randn(N, generator=torch.Generator().manual_seed(2))
    blend = fitted(features, ratings, prior, prior=0.25)
    slope, intercept = np.polyfit(prior.numpy(), ratings.numpy(), 1)
    assert float(blend.slope) == pytest.approx(slope, abs=1e-5)
    assert float(blend.intercept) == pytest.approx(intercept, abs=1e-5)


def test_an_earlier_model_that_ranks_backwards_is_not_followed(features, ratings):
    blend = fitted(features, ratings, 6 - ratings, prior=0.5)
    found = blend(torch.zeros(N), features, 6 - ratings)
    torch.testing.assert_close(found, torch.full((N,), float(ratings.mean()) / 2).double())


def test_the_shares_add_up(features, ratings):
    prior = ratings.float() + 0.5
    blend = fitted(features, ratings, prior, ridge=0.3, prior=0.2, penalty=1e12)
    # A ridge so heavily penalised says the mean rating of every clip.
    mixture = torch.linspace(1, 5, N)
    expected = 0.5 * mixture + 0.3 * ratings.mean().float() + 0.2 * (prior - 0.5)
    found = blend(mixture, features, prior)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # float32


def test_shares_that_leave_nothing_to_the_mixture_are_refused():
    with pytest.raises(ConfigError, match="must leave something to the mixture"):
        read_config("frozen", ["blend.ridge=0.6", "blend.prior=0.4"])


def test_a_blend_needs_a_frozen_encoder():
    with pytest.raises(ConfigError, match="needs a frozen encoder"):
        read_config("paper", ["blend.ridge=0.5"])
