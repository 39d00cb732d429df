"""Features to one vector: layers, statistics, standardisers and listening tests."""

import numpy as np
import pytest
import torch

from voxpanel.config import FusionSettings
from voxpanel.features.backbone import LayerFrames
from voxpanel.features.extract import Features
from voxpanel.features.moments import moments
from voxpanel.model.fusion import (
    FURTHEST,
    UNKNOWN_TEST,
    Fusion,
    Standardiser,
    initial_layer_logits,
    statistic,
)

N_CLIPS, N_LAYERS, N_FRAMES, DIM, N_BANDS, N_TESTS = 12, 4, 9, 6, 5, 3
UNKNOWN = torch.full((N_CLIPS,), UNKNOWN_TEST)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def frames():
    return torch.randn(N_CLIPS, N_LAYERS, N_FRAMES, DIM) + torch.randn(N_CLIPS, 1, 1, DIM)


@pytest.fixture
def features(frames):
    pooled = moments(LayerFrames(frames, torch.full((N_CLIPS,), N_FRAMES)))
    return Features(pooled, torch.randn(N_CLIPS, N_BANDS))


def make_fusion(**settings):
    settings = {"dim": 8, "dropout": 0.0} | settings
    return Fusion(FusionSettings(**settings), N_LAYERS, DIM, N_BANDS, N_TESTS).eval()


def test_a_standardiser_gives_its_training_clips_mean_0_and_deviation_1():
    features = 3 * torch.randn(500, DIM) + torch.arange(DIM)
    standardise = Standardiser(DIM)
    standardise.fit(features)
    assert features.sub(features.mean(0)).div(features.std(0)).abs().max() < FURTHEST
    found = standardise(features).double().numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-6)


def test_a_standardiser_changes_nothing_before_it_is_fitted():
    features = torch.randn(5, DIM)
    assert torch.equal(Standardiser(DIM)(features), features)


def test_what_a_standardiser_learned_is_saved_and_not_trained():
    standardise = Standardiser(DIM)
    standardise.fit(torch.randn(50, DIM))
    assert list(standardise.state_dict()) == ["centre", "scale"]
    assert not list(standardise.parameters())


@pytest.mark.parametrize("value", [0.0, 1.0, -7.3])
def test_a_feature_that_never_varied_is_not_blown_up(value):
    standardise = Standardiser(DIM)
    seen = torch.randn(50, DIM)
    seen[:, 2] = value
    standardise.fit(seen)
    later = torch.randn(5, DIM)
    later[:, 2] = value + 1e-3
    found = standardise(later)
    assert found.isfinite().all()
    assert found[:, 2].abs().max() < 1


def test_a_feature_far_from_those_in_training_goes_no_further_than_the_limit():
    standardise = Standardiser(1)
    standardise.fit(torch.tensor([[-1.0], [1.0]]))
    found = standardise(torch.tensor([[-1e6], [2.0], [1e6]]))
    assert found.squeeze(1).tolist() == [-FURTHEST, 2.0, FURTHEST]


def test_pooling_gives_the_statistics_of_the_weighted_sum_of_frames(frames, features):
    fusion = make_fusion()
    torch.nn.init.normal_(fusion.layer_logits)
    weights = torch.softmax(fusion.layer_logits, dim=0)
    mixed = torch.einsum("nlfd,l->nfd", frames, weights)
    change = mixed.diff(dim=1).square().mean(dim=1).sqrt()
    expected = [mixed.mean(dim=1), mixed.std(dim=1, correction=0).log(), change.log()]
    torch.testing.assert_close(
        fusion.pool(features), torch.cat(expected, dim=1), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "statistics", [("mean",), ("change", "mean"), ("deviation",), ("mean", "deviation", "change")]
)
def test_statistics_come_in_the_order_of_their_names(statistics, features):
    every = make_fusion().pool(features).split(DIM, dim=1)
    by_name = dict(zip(("mean", "deviation", "change"), every, strict=True))
    chosen = make_fusion(statistics=statistics).pool(features)
    assert torch.equal(chosen, torch.cat([by_name[name] for name in statistics], dim=1))


def test_an_unknown_statistic_is_refused_with_those_that_are_known(features):
    with pytest.raises(ValueError, match="'median': known are mean, deviation, change"):
        statistic("median", features, torch.ones(N_LAYERS))


def test_last_picks_the_last_layer_and_never_another(frames, features):
    fusion = make_fusion(layers="last", statistics=("mean",))
    torch.testing.assert_close(fusion.pool(features), frames[:, -1].mean(dim=1))
    assert not fusion.layer_logits.requires_grad
    loss = fusion(features, UNKNOWN).square().sum()
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in fusion.project.parameters())


def test_gradients_reach_every_layers_weight(features):
    fusion = make_fusion()
    fusion(features, UNKNOWN).square().sum().backward()
    assert fusion.layer_logits.grad.isfinite().all()
    assert (fusion.layer_logits.grad != 0).all()


@pytest.mark.parametrize(("n_layers", "centre", "first"), [(13, 0.25, 3), (9, 1.0, 8), (1, 0.3, 0)])
def test_layer_weights_start_as_a_bump_over_the_depth(n_layers, centre, first):
    settings = FusionSettings(layer_centre=centre, layer_width=0.1)
    weights = torch.softmax(initial_layer_logits(settings, n_layers), dim=0)
    assert int(weights.argmax()) == first
    depth = torch.linspace(0, 1, n_layers) - centre
    expected = torch.exp(-(depth**2) / (2 * 0.1**2))
    torch.testing.assert_close(weights, expected / expected.sum())


def test_unknown_is_the_zero_embedding_and_stays_so(features):
    fusion = make_fusion(test_dropout=0.0).train()
    optimizer = torch.optim.AdamW(fusion.parameters(), lr=0.1, weight_decay=0.1)
    tests = torch.arange(N_CLIPS) % (N_TESTS + 1)
    for _ in range(3):
        optimizer.zero_grad()
        fusion(features, tests).sum().backward()
        optimizer.step()
    assert fusion.test.weight[UNKNOWN_TEST].abs().max() == 0
    assert fusion.test.weight[1:].abs().min() > 0


def test_a_listening_test_shifts_the_vector_by_its_embedding(features):
    fusion = make_fusion()
    torch.nn.init.normal_(fusion.test.weight[1:])
    shifts = fusion.test.weight.detach()
    unknown = fusion(features, UNKNOWN)
    for test in range(1, N_TESTS + 1):
        shifted = fusion(features, torch.full((N_CLIPS,), test))
        torch.testing.assert_close(shifted - unknown, shifts[test].expand_as(unknown))


def test_all_tests_are_alike_before_training(features):
    fusion = make_fusion()
    assert torch.equal(fusion(features, UNKNOWN), fusion(features, UNKNOWN + N_TESTS))


def test_the_full_band_is_heard_only_where_it_is_asked_for(features):
    other = features._replace(fullband=torch.randn(N_CLIPS, N_BANDS))
    deaf, hearing = make_fusion(fullband=False), make_fusion()
    assert torch.equal(deaf(features, UNKNOWN), deaf(other, UNKNOWN))
    assert not torch.equal(hearing(features, UNKNOWN), hearing(other, UNKNOWN))


def test_fitting_sets_both_standardisers_and_no_weight(features):
    fusion = make_fusion()
    before = {name: weight.clone() for name, weight in fusion.named_parameters()}
    fusion.fit(features)
    pooled = fusion.pool(features)
    torch.testing.assert_close(fusion.standardise.centre, pooled.mean(dim=0))
    torch.testing.assert_close(fusion.fullband[0].centre, features.fullband.mean(dim=0))
    assert all(torch.equal(weight, before[name]) for name, weight in fusion.named_parameters())


def test_the_projected_vector_is_worked_out_by_hand(features):
    fusion = make_fusion()
    fusion.fit(features)
    pooled = fusion.pool(features)
    left = (pooled - pooled.mean(0)) / pooled.std(0, correction=0)
    bands = features.fullband
    right = (bands - bands.mean(0)) / bands.std(0, correction=0)
    _, _, last = fusion.fullband
    expected = left @ fusion.project.weight.T + fusion.project.bias
    expected = expected + right @ last.weight.T + last.bias
    torch.testing.assert_close(fusion(features, UNKNOWN), expected, atol=1e-5, rtol=1e-5)


def test_a_clips_vector_does_not_depend_on_the_batch(features):
    fusion = make_fusion()
    fusion.fit(features)
    together = fusion(features, UNKNOWN)
    for row in range(N_CLIPS):
        alone = fusion(features.select(torch.tensor([row])), UNKNOWN[:1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_evaluation_draws_no_random_numbers(features):
    fusion = make_fusion(dropout=0.5)
    before = torch.get_rng_state()
    fusion(features, UNKNOWN + 1)
    assert torch.equal(torch.get_rng_state(), before)
