import pytest
import torch
from torch import nn

from voxpanel.errors import ConfigError, DataError
from voxpanel.model.mixture import (
    Experts,
    Gate,
    Mixture,
    StackedLinear,
    blend,
    keep_largest,
    mixture_moments,
)

DIM = 6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def vectors():
    return torch.randn(5, DIM)


def make_mixture(n_experts, dropout=0.0):
    gate = Gate(DIM, n_experts, dim_hidden=8)
    return Mixture(gate, Experts(DIM, n_experts, hidden=(7, 4), dropout=dropout))


def test_blend_is_the_sum_worked_by_hand():
    outputs = torch.tensor([[[1.0, 10.0], [3.0, 20.0]], [[5.0, 0.0], [7.0, 8.0]]])
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert blend(outputs, weights).tolist() == [[2.5, 17.5], [5.0, 0.0]]


def test_blend_refuses_weights_of_another_number_of_experts():
    with pytest.raises(DataError, match=r"got \(8, 4, 1\) and \(8, 3\)"):
        blend(torch.zeros(8, 4, 1), torch.zeros(8, 3))


def test_the_gate_is_a_softmax_over_one_hidden_layer(vectors):
    gate = Gate(DIM, 3, dim_hidden=8)
    hidden = (vectors @ gate.hidden.weight.T + gate.hidden.bias).clamp_min(0)
    scores = (hidden @ gate.logits.weight.T + gate.logits.bias).exp()
    torch.testing.assert_close(gate(vectors), scores / scores.sum(dim=1, keepdim=True))


def test_a_temperature_divides_the_logits(vectors):
    gate = Gate(DIM, 3, dim_hidden=8)
    plain = gate(vectors)
    gate.temperature = 2.0
    root = plain.sqrt()  # exp(x / 2) is the root of exp(x)
    torch.testing.assert_close(gate(vectors), root / root.sum(dim=1, keepdim=True))


def test_top_k_keeps_the_largest_and_rescales_them(vectors):
    gate = Gate(DIM, 4, dim_hidden=8)
    dense = gate(vectors)
    gate.top_k = 2
    sparse = gate(vectors)
    kept = dense >= dense.sort(dim=1, descending=True).values[:, 1:2]
    expected = torch.where(kept, dense, 0.0)
    torch.testing.assert_close(sparse, expected / expected.sum(dim=1, keepdim=True))


def test_top_k_keeps_exactly_k_of_equal_logits():
    assert keep_largest(torch.zeros(2, 4), 3).isfinite().sum(dim=1).tolist() == [3, 3]


def test_top_k_of_all_changes_nothing(vectors):
    gate = Gate(DIM, 3, dim_hidden=8)
    dense = gate(vectors)
    gate.top_k = 3
    torch.testing.assert_close(gate(vectors), dense)


def test_noise_moves_the_gate_in_training_only(vectors):
    gate = Gate(DIM, 4, dim_hidden=8, noise=True)
    quiet = Gate(DIM, 4, dim_hidden=8)
    quiet.load_state_dict(gate.state_dict(), strict=False)
    assert not torch.equal(gate(vectors), gate(vectors))
    torch.testing.assert_close(gate.eval()(vectors), quiet(vectors))


def test_noise_learns_its_size(vectors):
    gate = Gate(DIM, 4, dim_hidden=8, top_k=2, noise=True)
    gate(vectors).square().sum().backward()
    assert gate.noise_size.weight.grad.abs().sum() > 0


def test_evaluation_draws_no_random_numbers(vectors):
    gate = Gate(DIM, 2, dim_hidden=8, top_k=1, noise=True)
    mixture = Mixture(gate, Experts(DIM, 2, hidden=(7, 4), dropout=0.5)).eval()
    before = torch.get_rng_state()
    mixture(vectors)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_experts": 0}, "n_experts is 0; give 1 or more"),
        ({"temperature": 0.0}, r"gate temperature is 0\.0; give a number above 0"),
        ({"top_k": 4}, r"gate top_k is 4; give 1 to 3 \(n_experts\), or none"),
        ({"top_k": 0}, "gate top_k is 0"),
    ],
)
def test_a_gate_that_cannot_be_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Gate(**{"dim_in": DIM, "n_experts": 3, "dim_hidden": 8} | setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"n_experts": 0}, "n_experts is 0"), ({"hidden": ()}, "one hidden layer or more")],
)
def test_experts_that_cannot_be_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Experts(**{"dim_in": DIM, "n_experts": 3} | setting)


def test_a_gate_and_experts_of_other_numbers_are_refused():
    with pytest.raises(ConfigError, match="the gate weighs 3 experts and there are 2"):
        Mixture(Gate(DIM, 3, dim_hidden=8), Experts(DIM, 2))


def test_a_stack_starts_as_linear_layers_made_one_by_one_would():
    stack = StackedLinear(3, 5, 2)
    torch.manual_seed(0)
    for expert in range(3):
        layer = nn.Linear(5, 2)
        assert torch.equal(stack.weight[expert], layer.weight.T)
        assert torch.equal(stack.bias[expert], layer.bias)


def test_stacked_experts_equal_separate_perceptrons(vectors):
    experts = Experts(DIM, 3, hidden=(7, 5, 4), dropout=0.3).eval()
    outputs = experts(vectors)
    assert outputs.shape == (5, 3, experts.dim_out) == (5, 3, 4)
    for expert in range(3):
        alone = vectors
        for stack in experts.layers:
            layer = nn.functional.linear(alone, stack.weight[expert].T, stack.bias[expert])
            alone = layer.relu()
        torch.testing.assert_close(outputs[:, expert], alone)


def test_experts_share_no_parameters(vectors):
    experts = Experts(DIM, 3, hidden=(7, 4), dropout=0.0)
    experts(vectors)[:, 1].sum().backward()
    for stack in experts.layers:
        assert stack.weight.grad[1].abs().sum() > 0
        assert stack.weight.grad[[0, 2]].abs().sum() == 0


def test_dropout_hits_the_experts_in_training(vectors):
    experts = Experts(DIM, 3, hidden=(7, 4), dropout=0.5)
    assert not torch.equal(experts(vectors), experts(vectors))


def test_the_mixture_blends_what_it_returns(vectors):
    output = make_mixture(4)(vectors)
    by_hand = sum(output.weights[:, [i]] * output.experts[:, i] for i in range(4))
    torch.testing.assert_close(output.blended, by_hand)


def test_one_expert_is_a_plain_perceptron(vectors):
    output = make_mixture(1)(vectors)
    assert torch.equal(output.weights, torch.ones(5, 1))
    assert torch.equal(output.blended, output.experts[:, 0])


def test_an_utterance_does_not_depend_on_its_batch(vectors):
    mixture = make_mixture(4).eval()
    together = mixture(vectors).blended
    alone = torch.cat([mixture(vector[None]).blended for vector in vectors])
    torch.testing.assert_close(together, alone)  # float32 sums in another order


def test_an_empty_batch_passes_so_that_an_empty_share_can_join_in():
    output = make_mixture(4)(torch.zeros(0, DIM))
    assert output.blended.shape == (0, 4)
    assert output.weights.shape == (0, 4)


def test_the_variance_of_a_mixture_is_the_papers_formula():
    weights = torch.rand(6, 3, dtype=torch.float64).softmax(dim=1)
    means = 1 + 4 * torch.rand(6, 3, dtype=torch.float64)
    variances = torch.rand(6, 3, dtype=torch.float64)
    mean, variance = mixture_moments(weights, means, variances)
    expected = (weights * means).sum(dim=1)
    torch.testing.assert_close(mean, expected)
    second = (weights * (variances + means**2)).sum(dim=1)
    torch.testing.assert_close(variance, second - expected**2)


def test_the_variance_of_a_mixture_is_that_of_its_samples():
    weights, means, spreads = [0.2, 0.5, 0.3], [1.5, 3.0, 4.5], [0.2, 0.5, 0.1]
    parts = [
        mean + spread * torch.randn(round(200_000 * weight))
        for weight, mean, spread in zip(weights, means, spreads, strict=True)
    ]
    samples = torch.cat(parts)
    variances = torch.tensor([spreads]).square()
    mean, variance = mixture_moments(torch.tensor([weights]), torch.tensor([means]), variances)
    # The standard error of both is near 0.003 with 200,000 draws.
    assert mean.item() == pytest.approx(samples.mean().item(), abs=0.01)
    assert variance.item() == pytest.approx(samples.var().item(), abs=0.01)
