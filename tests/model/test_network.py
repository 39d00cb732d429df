"""The whole network: heads, ensemble, and a clip from samples to a score."""

import numpy as np
import pytest
import torch

from voxpanel.config import Config, build_config
from voxpanel.errors import VoxpanelError
from voxpanel.features.extract import ClipInput, Features, concatenate, encode
from voxpanel.features.fullband import DIM as N_BANDS
from voxpanel.features.melbank import Melbank
from voxpanel.measure import Measurements
from voxpanel.model.network import HIGHEST, LOWEST, MosModel, Panel

N_MELS, N_CLASSES, N_TESTS, N_EXPERTS = 12, 3, 2, 4
STAGE = {
    "name": "ratings",
    "clips": "rated",
    "epochs": 1,
    "learning_rate": 1e-3,
    "mos": [1, 1],
    "synthesizer": [0, 0],
}
SMALL = {
    "backbone": {"name": "melbank"},
    "fusion": {"dim": 16},
    "mixture": {"n_experts": N_EXPERTS, "hidden": [16, 8], "gate_hidden": 8},
    "stages": [STAGE],
}
SECONDS = (0.3, 1.0, 2.2)


def make_config(**groups) -> Config:
    return build_config({**SMALL, **groups}, "here")


def make_panel(seed: int = 0, **groups) -> Panel:
    torch.manual_seed(seed)
    return Panel(make_config(**groups), Melbank(N_MELS), N_CLASSES, N_TESTS).eval()


def make_model(n_members: int = 1, **groups) -> MosModel:
    panels = [make_panel(seed, **groups) for seed in range(n_members)]
    return MosModel(Melbank(N_MELS), panels).eval()


def make_clip(seconds: float, seed: int = 0) -> ClipInput:
    """Return noise that gets louder, which has a mean, a deviation and a change."""
    random = np.random.default_rng(seed)
    n_samples = round(16_000 * seconds)
    samples = random.normal(0, 0.1, n_samples) * np.linspace(0.1, 1, n_samples)
    bands = random.normal(3, 1, N_BANDS)
    measured = Measurements(seconds, 16_000, 8_000.0, 0.4, 0.0, -20.0, 1.0, seconds, ())
    return ClipInput(samples.astype(np.float32), bands.astype(np.float32), measured)


def make_blended(shares) -> MosModel:
    """Return a model with a ridge that always says 2, and an earlier model of two panels."""
    panel = make_panel(0, blend=shares)
    panel.blend.mean_rating.fill_(2.0)
    panel.blend.slope.fill_(0.5)
    panel.blend.intercept.fill_(1.0)
    earlier = [make_panel(seed) for seed in (5, 6)]
    torch.nn.init.normal_(earlier[0].fusion.test.weight)
    return MosModel(Melbank(N_MELS), [panel], earlier).eval()


@pytest.fixture(scope="module")
def clips():
    return [make_clip(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def features(clips) -> Features:
    with torch.no_grad():
        return encode(Melbank(N_MELS), clips)


@pytest.fixture
def tests():
    return torch.tensor([0, 1, 2])


def test_a_panel_says_one_score_one_class_and_one_gate_a_clip(features, tests):
    output = make_panel()(features, tests)
    assert output.mos.shape == (3,)
    assert output.logits.shape == (3, N_CLASSES)
    assert output.gates.shape == (3, N_EXPERTS)
    assert output.experts.shape == (3, N_EXPERTS, 8)


def test_both_heads_read_the_blend_of_the_experts(features, tests):
    panel = make_panel()
    panel.label_mean.fill_(3.4)
    output = panel(features, tests)
    blended = (output.gates[:, :, None] * output.experts).sum(dim=1)
    mos, synthesizer = panel.mos_head, panel.synthesizer_head
    torch.testing.assert_close(output.mos, 3.4 + blended @ mos.weight[0] + mos.bias)
    expected = blended @ synthesizer.weight.T + synthesizer.bias
    torch.testing.assert_close(output.logits, expected)


def test_with_a_residual_the_heads_read_the_vector_too(features, tests):
    mixture = {"n_experts": N_EXPERTS, "hidden": [8, 16], "residual": True}
    panel = make_panel(mixture=mixture)
    output = panel(features, tests)
    blended = (output.gates[:, :, None] * output.experts).sum(dim=1)
    read = blended + panel.fusion(features, tests)
    expected = panel.label_mean + read @ panel.mos_head.weight[0] + panel.mos_head.bias
    torch.testing.assert_close(output.mos, expected)


def test_without_a_mixture_the_heads_read_the_vector_itself(features, tests):
    panel = make_panel(mixture=None)
    output = panel(features, tests)
    assert output.gates.shape == (3, 0)
    assert output.experts.shape[:2] == (3, 0)
    vector = panel.fusion(features, tests)
    expected = panel.label_mean + vector @ panel.mos_head.weight[0] + panel.mos_head.bias
    torch.testing.assert_close(output.mos, expected)


def test_every_weight_gets_a_gradient(features, tests):
    panel = make_panel().train()
    output = panel(features, tests)
    (output.mos.square().sum() + output.logits.square().sum()).backward()
    without = [name for name, weight in panel.named_parameters() if weight.grad is None]
    assert without == []


def test_a_verdict_is_the_mean_of_its_members(features, tests):
    model = make_model(n_members=3)
    verdict = model(features, tests)
    outputs = [panel(features, tests) for panel in model.panels]
    scores = torch.stack([output.mos for output in outputs]).detach().double().numpy()
    assert np.ptp(scores, axis=0).min() > 1e-3
    np.testing.assert_allclose(verdict.mos.detach(), scores.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(verdict.disagreement.detach(), scores.var(axis=0), rtol=1e-3)
    probabilities = torch.stack([output.logits.softmax(dim=1) for output in outputs])
    torch.testing.assert_close(verdict.synthesizers, probabilities.mean(dim=0))


@pytest.mark.parametrize(
    ("ridge", "prior"), [(0.4, 0.0), (0.0, 0.3), (0.4, 0.2)], ids=["ridge", "prior", "both"]
)
def test_a_blended_score_has_fixed_shares_of_each_opinion(ridge, prior, features, tests):
    model = make_blended({"ridge": ridge, "prior": prior})
    mixture = make_panel(0)(features, tests).mos  # the same weights without a blend
    # Listening tests are the new model's own: the earlier one answers for none.
    nowhere = torch.zeros(3, dtype=torch.int64)
    earlier = sum(panel(features, nowhere).mos for panel in model.prior) / 2
    expected = (1 - ridge - prior) * mixture + ridge * 2.0 + prior * (0.5 * earlier + 1.0)
    torch.testing.assert_close(model(features, tests).mos, expected)
    assert (mixture - expected).abs().max() > 0.01


def test_training_is_of_the_mixture_alone(features, tests):
    mixture = {**SMALL["mixture"], "dropout": 0.0}
    still = {"mixture": mixture, "fusion": {"dim": 16, "dropout": 0.0, "test_dropout": 0.0}}
    panel = make_panel(blend={"ridge": 0.5, "prior": 0.3}, **still).train()
    torch.testing.assert_close(panel(features, tests).mos, make_panel(**still)(features, tests).mos)


@pytest.mark.parametrize("n_members", [1, 3])
def test_gates_of_all_members_together_sum_to_1(n_members, features, tests):
    gates = make_model(n_members)(features, tests).gates
    assert gates.shape == (3, n_members * N_EXPERTS)
    assert gates.min() >= 0
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(3))
    by_member = gates.reshape(3, n_members, N_EXPERTS).sum(dim=2)
    torch.testing.assert_close(by_member, torch.full((3, n_members), 1 / n_members))


def test_class_probabilities_sum_to_1(features, tests):
    probabilities = make_model(2)(features, tests).synthesizers
    assert probabilities.min() >= 0
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize(("label_mean", "end"), [(-7.0, LOWEST), (40.0, HIGHEST)])
def test_a_score_stays_on_the_scale(label_mean, end, features, tests):
    model = make_model()
    model.panels[0].label_mean.fill_(label_mean)
    assert model(features, tests).mos.tolist() == [end] * 3
    assert model.panels[0](features, tests).mos.sub(label_mean).abs().max() < 5


def test_one_member_does_not_disagree(features, tests):
    assert make_model()(features, tests).disagreement.tolist() == [0.0] * 3


@pytest.mark.parametrize("mixture", [SMALL["mixture"], None], ids=["mixture", "no mixture"])
def test_a_clip_gets_the_same_verdict_alone_and_in_a_batch(mixture, clips, tests):
    model = make_model(2, mixture=mixture)
    together = model.listen(clips, tests)
    assert together.mos.unique().numel() == len(clips)
    for row, clip in enumerate(clips):
        alone = model.listen([clip], tests[row : row + 1])
        for found, expected in zip(alone, together, strict=True):
            # float32 sums in another order, through logarithms of small deviations
            torch.testing.assert_close(found[0], expected[row], atol=1e-5, rtol=1e-5)


def test_the_order_of_clips_does_not_matter(clips, tests):
    model = make_model(2)
    together, turned = model.listen(clips, tests), model.listen(clips[::-1], tests.flip(0))
    for one, other in zip(together, turned, strict=True):
        torch.testing.assert_close(one.flip(0), other, atol=1e-5, rtol=1e-5)


def test_listening_draws_no_random_numbers_and_keeps_no_graph(clips, tests):
    model = make_model(mixture={**SMALL["mixture"], "noise": True, "top_k": 2})
    before = torch.get_rng_state()
    verdict = model.listen(clips, tests)
    assert torch.equal(torch.get_rng_state(), before)
    assert not verdict.mos.requires_grad


def test_another_listening_test_gives_another_score(clips):
    model = make_model()
    torch.nn.init.normal_(model.panels[0].fusion.test.weight[1:])
    scores = [model.listen(clips, torch.full((3,), test)).mos for test in range(N_TESTS + 1)]
    assert len({tuple(score.tolist()) for score in scores}) == N_TESTS + 1


def test_a_model_is_whole_in_its_weights(clips, tests):
    model, other = make_model(2), make_model(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
        model.panels[1].fusion.fit(encode(model.backbone, clips))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.listen(clips, tests).mos, model.listen(clips, tests).mos)


def test_features_are_made_where_the_encoder_is(clips):
    encoder = Melbank(N_MELS).to("meta")
    features = encode(encoder, clips)
    assert {part.device.type for part in (*features.moments, features.fullband)} == {"meta"}


def test_features_can_be_joined_and_picked(clips, features):
    alone = [encode(Melbank(N_MELS), [clip]) for clip in clips]
    joined = concatenate(alone)
    for found, expected in zip(joined.moments, features.moments, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    picked = features.select(torch.tensor([2, 0]))
    assert torch.equal(picked.fullband, features.fullband[[2, 0]])
    assert torch.equal(picked.moments.mean, features.moments.mean[[2, 0]])


def test_a_mixture_that_cannot_be_is_refused():
    with pytest.raises(VoxpanelError, match="top_k"):
        make_panel(mixture={"n_experts": 2, "top_k": 3})
