import math

import pytest
import scipy.stats
import torch

from voxpanel.model.losses import (
    RegulariserWeights,
    Term,
    balance,
    class_loss,
    contrastive,
    diversity,
    expert_regulariser,
    gate_entropy,
    joint,
    mixture_nll,
    mos_loss,
    running_mean_gate,
)

NAN = math.nan


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def all_of(tensor):
    return torch.ones(len(tensor), dtype=torch.bool)


@pytest.mark.parametrize(
    ("beta", "expected"),
    # Residuals 0.25 and 2: below beta r^2 / (2 beta), above it |r| - beta / 2.
    [(1.0, 0.03125 + 1.5), (0.5, 0.0625 + 1.75), (0.25, 0.125 + 1.875), (4.0, 0.0078125 + 0.5)],
)
def test_mos_loss_is_worked_by_hand(beta, expected):
    predicted, target = torch.tensor([3.25, 2.0]), torch.tensor([3.0, 4.0])
    term = mos_loss(predicted, target, all_of(target), beta=beta)
    assert term.total.item() == pytest.approx(expected)
    assert term.mean().item() == pytest.approx(expected / 2)


def test_an_unlabelled_clip_changes_neither_loss_nor_gradient():
    predicted = torch.tensor([3.25, 1.0], requires_grad=True)
    labelled = torch.tensor([True, False])
    term = mos_loss(predicted, torch.tensor([3.0, NAN]), labelled)
    term.mean().backward()
    assert (term.total.item(), term.weight.item()) == (0.03125, 1.0)
    assert predicted.grad.tolist() == [0.25, 0.0]


def test_a_batch_without_labels_has_loss_and_gradient_zero():
    predicted = torch.tensor([3.0, 1.0], requires_grad=True)
    nobody = torch.tensor([False, False])
    term = mos_loss(predicted, torch.full((2,), NAN), nobody)
    term.mean().backward()
    assert (term.mean().item(), term.weight.item()) == (0.0, 0.0)
    assert predicted.grad.tolist() == [0.0, 0.0]


def test_clip_weights_weigh_loss_and_divisor():
    predicted, target = torch.tensor([3.0, 3.0, 3.0]), torch.tensor([5.0, 4.5, NAN])
    weights = torch.tensor([3.0, 1.0, 100.0])
    labelled = torch.tensor([True, True, False])
    term = mos_loss(predicted, target, labelled, clip_weights=weights)
    assert term.total.item() == pytest.approx(3 * 1.5 + 1.0)
    assert term.weight.item() == 4.0


def test_parts_of_a_batch_add_up_to_the_batch():
    predicted, target = torch.rand(7), torch.rand(7)
    labelled = torch.tensor([True, False, True, True, False, True, True])
    whole = mos_loss(predicted, target, labelled)
    parts = [mos_loss(predicted[i::2], target[i::2], labelled[i::2]) for i in range(2)]
    weight = parts[0].weight + parts[1].weight
    assert weight == whole.weight == 5
    torch.testing.assert_close(sum(part.over(weight) for part in parts), whole.mean())


def test_class_loss_is_worked_by_hand():
    # p = (0.75, 0.25); with smoothing 0.1 the wanted distribution is (0.95, 0.05).
    logits = torch.tensor([[math.log(3), 0.0]])
    term = class_loss(logits, torch.tensor([0]))
    assert term.total.item() == pytest.approx(-(0.95 * math.log(0.75) + 0.05 * math.log(0.25)))


def test_class_loss_without_smoothing_is_the_log_probability():
    logits = torch.tensor([[math.log(3), 0.0]])
    assert class_loss(logits, torch.tensor([1]), smoothing=0.0).total.item() == pytest.approx(
        math.log(4)
    )


def test_a_clip_of_unknown_origin_is_left_out():
    logits = torch.randn(3, 4, requires_grad=True)
    term = class_loss(logits, torch.tensor([2, -1, 0]))
    torch.testing.assert_close(term, class_loss(logits[[0, 2]], torch.tensor([2, 0])))
    term.total.backward()
    assert logits.grad[1].abs().sum() == 0


def test_class_loss_takes_clip_weights():
    logits, classes = torch.zeros(3, 2), torch.tensor([0, 1, -1])
    term = class_loss(logits, classes, clip_weights=torch.tensor([0.5, 2.0, 9.0]))
    assert term.total.item() == pytest.approx(2.5 * math.log(2))
    assert term.weight.item() == 2.5


def test_a_batch_of_unknown_origin_has_class_loss_zero():
    assert class_loss(torch.randn(2, 3), torch.tensor([-1, -1])).mean().item() == 0.0


def test_contrastive_is_worked_by_hand():
    # Errors 0, 1, 3: misses 1, 3, 2, each in both orders; less the margin 0.5; halved.
    predicted, target = torch.tensor([3.0, 3.0, 5.0, 1.0]), torch.tensor([3.0, 2.0, 2.0, NAN])
    labelled = torch.tensor([True, True, True, False])
    term = contrastive(predicted, target, labelled, margin=0.5)
    assert term.total.item() == pytest.approx(0.5 + 2.5 + 1.5)
    assert term.weight.item() == 9


def test_contrastive_does_not_see_a_constant_offset():
    target = torch.rand(5)
    assert contrastive(target + 2, target, all_of(target), margin=0.01).total.item() == 0


def test_mixture_nll_is_that_of_scipys_normals():
    weights, means = torch.tensor([[0.3, 0.7], [0.5, 0.5]]), torch.tensor([[2.0, 4.0], [1.0, 5.0]])
    variances, target = torch.tensor([[0.25, 1.0], [0.5, 0.5]]), torch.tensor([2.5, NAN])
    term = mixture_nll(weights, means, variances, target, torch.tensor([True, False]))
    density = 0.3 * scipy.stats.norm.pdf(2.5, 2.0, 0.5) + 0.7 * scipy.stats.norm.pdf(2.5, 4.0, 1.0)
    assert term.total.item() == pytest.approx(-math.log(density))
    assert term.weight.item() == 1


def test_mixture_nll_stays_finite_for_an_expert_sure_of_itself_and_one_unasked():
    weights = torch.tensor([[1.0, 0.0]], requires_grad=True)
    variances = torch.zeros(1, 2, requires_grad=True)
    target = torch.tensor([5.0])
    term = mixture_nll(weights, torch.ones(1, 2), variances, target, all_of(target))
    term.total.backward()
    assert math.isfinite(term.total.item())
    assert weights.grad.isfinite().all()
    assert variances.grad.isfinite().all()


def test_mixture_nll_takes_clip_weights():
    ones, target = torch.ones(2, 1), torch.tensor([1.0, 3.0])
    weights = torch.tensor([2.0, 0.5])
    term = mixture_nll(ones, ones, ones, target, all_of(target), clip_weights=weights)
    log_root = 0.5 * math.log(2 * math.pi)
    assert term.total.item() == pytest.approx(2 * log_root + 0.5 * (2 + log_root))


@pytest.mark.parametrize(
    ("experts", "expected"),
    [
        ([[1.0, 0.0], [0.0, 2.0]], 0.0),
        ([[1.0, 0.0], [-3.0, 0.0]], 1.0),
        ([[1.0, 0.0], [1.0, 1.0]], 0.5),
        ([[1.0, 0.0], [0.0, 0.0]], 0.0),
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], 1 / 3),  # cos^2 of the pairs: 0, 1/2, 1/2
        ([[1.0, 2.0]], 0.0),
    ],
    ids=["orthogonal", "opposite", "45 degrees", "one silent", "three", "one alone"],
)
def test_diversity_is_worked_by_hand(experts, expected):
    assert diversity(torch.tensor([experts])).mean().item() == pytest.approx(expected)


def test_diversity_is_a_mean_over_utterances():
    experts = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    assert diversity(experts).mean().item() == pytest.approx(0.5)


def test_diversity_has_a_gradient_at_silent_experts():
    experts = torch.zeros(1, 3, 4, requires_grad=True)
    diversity(experts).mean().backward()
    assert experts.grad.abs().sum() == 0


def test_gate_entropy_is_worked_by_hand():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    expected = (math.log(4) + 0 + math.log(2)) / 3
    assert gate_entropy(weights).mean().item() == pytest.approx(expected)


def test_gate_entropy_has_a_finite_gradient_at_a_gate_of_zero():
    logits = torch.tensor([[1.0, -torch.inf]], requires_grad=True)
    gate_entropy(torch.softmax(logits, dim=1)).mean().backward()
    assert logits.grad.isfinite().all()


def test_the_l1_norm_of_a_gate_teaches_nothing_but_its_entropy_does():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    norm = torch.softmax(logits, dim=1).abs().sum()
    (gradient,) = torch.autograd.grad(norm, logits)
    assert norm.item() == pytest.approx(3)
    assert gradient.abs().max() < 1e-15  # rounding of float64
    (gradient,) = torch.autograd.grad(gate_entropy(torch.softmax(logits, dim=1)).mean(), logits)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("mean_gate", "expected"),
    [([0.25] * 4, 0.0), ([1.0, 0.0, 0.0, 0.0], 3.0), ([0.75, 0.25], 0.25), ([1.0], 0.0)],
)
def test_balance_is_worked_by_hand(mean_gate, expected):
    assert balance(torch.tensor(mean_gate)).item() == pytest.approx(expected)


def test_the_running_mean_starts_at_the_first_batch_and_forgets_slowly():
    first = running_mean_gate(torch.tensor([1.0, 0.0]), None)
    second = running_mean_gate(torch.tensor([0.0, 1.0]), first)
    assert first.tolist() == [1.0, 0.0]
    torch.testing.assert_close(second, torch.tensor([0.9, 0.1]))


def test_the_running_mean_passes_the_batchs_gradient_undamped_and_keeps_no_history():
    old = torch.tensor([0.5, 0.5], requires_grad=True)
    batch = torch.tensor([1.0, 0.0], requires_grad=True)
    running_mean_gate(batch, old, momentum=0.9)[0].backward()
    assert batch.grad.tolist() == [1.0, 0.0]
    assert old.grad is None


@pytest.mark.parametrize(("loss", "evener"), [("entropy", False), ("balance", True)])
def test_entropy_sharpens_the_mean_gate_and_balance_evens_it(loss, evener):
    logits = torch.tensor([[0.5, 0.0], [0.4, 0.1]], requires_grad=True)
    weights = torch.softmax(logits, dim=1)
    before = weights.mean(dim=0)
    value = gate_entropy(weights).mean() if loss == "entropy" else balance(before)
    value.backward()
    after = torch.softmax(logits.detach() - 0.5 * logits.grad, dim=1).mean(dim=0)
    assert (after[0] < before[0]) == evener


def test_the_regulariser_weighs_its_parts_by_a_hundredth_each():
    parts = (torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0))
    assert expert_regulariser(*parts).item() == pytest.approx(0.07)
    weights = RegulariserWeights(diversity=1.0, entropy=10.0, balance=100.0)
    assert expert_regulariser(*parts, weights).item() == pytest.approx(421)


def test_the_joint_loss_is_the_weighted_sum():
    mos, synthesizer, regulariser = torch.tensor(2.0), torch.tensor(3.0), torch.tensor(0.05)
    total = joint(mos, synthesizer, regulariser, (0.3, 0.7))
    assert total.item() == pytest.approx(0.6 + 2.1 + 0.05)


def test_a_term_over_no_weight_is_zero():
    assert Term(torch.tensor(0.0), torch.tensor(0.0)).mean().item() == 0
