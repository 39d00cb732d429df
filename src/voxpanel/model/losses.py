"""The joint loss and its parts (paper III-C, eq. 3-6), one pure function each.

Axes: B utterances, E experts, K outputs of an expert, C synthesizers.

A loss over utterances is a `Term`: its sum, and the number (or weight) of the
utterances in it. The caller divides, so that a batch shared among processes
gives what it gives in one: `term.over(group.sum(term.weight))`, and gradients are
then summed, not averaged. In one process `term.mean()` does.

A trap in eq. 6: "L1 sparsity of the gate" does nothing. A gate is a softmax, so
its absolute values always sum to 1 and the gradient is zero. Sparsity is
therefore the entropy of each utterance's gate, which is 0 if one expert is asked
and log E if all are asked alike. By itself that collapses the mixture onto one
expert; `balance` over the whole batch is what holds against it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

UNKNOWN_CLASS = -1  # the class index of an utterance whose synthesizer is not known
MIN_NORM = 1e-6  # an expert's output shorter than this points nowhere
MIN_GATE = 1e-12  # below this a gate weight adds nothing to the entropy
MIN_VARIANCE = 1e-4  # an expert surer than 0.01 MOS is not believed


class Term(NamedTuple):
    """A loss before its division.

    total: the sum over the utterances that count.
    weight: how many count, or the sum of their weights; no gradient.
    """

    total: Tensor
    weight: Tensor

    def over(self, weight: Tensor) -> Tensor:
        """Divide by a weight, such as that of the global batch; 0 where the weight is 0."""
        return self.total / torch.where(weight > 0, weight, torch.ones_like(weight))

    def mean(self) -> Tensor:
        """Divide by the term's own weight."""
        return self.over(self.weight)


class RegulariserWeights(NamedTuple):
    """The weights of the three parts of eq. 6."""

    diversity: float = 0.01
    entropy: float = 0.01
    balance: float = 0.01


DEFAULT_WEIGHTS = RegulariserWeights()


def weighted_sum(losses: Tensor, counted: Tensor, clip_weights: Tensor | None) -> Term:
    """Sum the losses `[n]` of the utterances that count.

    Args:
        losses: `[n]`, of the counted utterances only.
        counted: `[B]` bool, n of them true.
        clip_weights: `[B]`, how much each utterance matters; 1 each if None.
    """
    weights = torch.ones_like(counted) if clip_weights is None else clip_weights.detach()
    weights = weights[counted].to(losses)
    return Term((losses * weights).sum(), weights.sum())


def mos_loss(
    predicted: Tensor,
    target: Tensor,
    labelled: Tensor,
    beta: float = 1.0,
    clip_weights: Tensor | None = None,
) -> Term:
    """Sum the smooth L1 loss of the utterances that have a rating (eq. 4).

    `r^2 / (2 beta)` where the residual |r| is below beta, `|r| - beta / 2` above. An
    utterance without a rating is left out, never imputed; its target may be anything.

    Args:
        predicted: `[B]`.
        target: `[B]`, 1-5.
        labelled: `[B]` bool.
        clip_weights: `[B]`, how much each utterance matters; 1 each if None.

    >>> target = torch.tensor([3.5, 1.0, torch.nan])
    >>> mos_loss(torch.tensor([3.0, 3.0, 3.0]), target, torch.tensor([True, True, False]))
    Term(total=tensor(1.6250), weight=tensor(2.))
    """
    losses = functional.smooth_l1_loss(
        predicted[labelled], target[labelled], beta=beta, reduction="none"
    )
    return weighted_sum(losses, labelled, clip_weights)


def class_loss(
    logits: Tensor,
    classes: Tensor,
    smoothing: float = 0.1,
    clip_weights: Tensor | None = None,
) -> Term:
    """Sum the label-smoothed cross-entropy of the utterances of known origin (eq. 5).

    The wanted distribution has `1 - smoothing + smoothing / C` on the true class
    and `smoothing / C` on each other one.

    Args:
        logits: `[B, C]`.
        classes: `[B]` int64; `UNKNOWN_CLASS` leaves an utterance out.
        clip_weights: `[B]`, how much each utterance matters; 1 each if None.

    >>> class_loss(torch.zeros(2, 2), torch.tensor([1, -1]))
    Term(total=tensor(0.6931), weight=tensor(1.))
    """
    known = classes != UNKNOWN_CLASS
    losses = functional.cross_entropy(
        logits[known], classes[known], label_smoothing=smoothing, reduction="none"
    )
    return weighted_sum(losses, known, clip_weights)


def contrastive(predicted: Tensor, target: Tensor, labelled: Tensor, margin: float = 0.2) -> Term:
    """Sum, over pairs, by how much predicted differences miss the true ones.

    `max(0, |(p_i - p_j) - (y_i - y_j)| - margin) / 2`, over all ordered pairs of
    labelled utterances, each with itself included, as UTMOS counts them. Pairs are
    formed within a process only, so this loss alone depends on how a batch is shared.

    Args:
        predicted: `[B]`.
        target: `[B]`, 1-5.
        labelled: `[B]` bool.
        margin: a miss that is forgiven, in MOS.

    Source: Saeki et al. 2022 (UTMOS); its code divides the mean by 2.

    >>> contrastive(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]), torch.ones(2).bool())
    Term(total=tensor(0.8000), weight=tensor(4.))
    """
    error = (predicted - target)[labelled]  # (p_i - p_j) - (y_i - y_j) = error_i - error_j
    miss = (error[:, None] - error[None, :]).abs() - margin
    losses = functional.relu(miss) / 2
    return Term(losses.sum(), torch.ones_like(losses).detach().sum())


def mixture_nll(
    weights: Tensor,
    means: Tensor,
    variances: Tensor,
    target: Tensor,
    labelled: Tensor,
    clip_weights: Tensor | None = None,
) -> Term:
    """Sum the negative log likelihood of the ratings under a mixture of normals.

    The loss of experts that each predict a mean and a variance; the prediction
    and its variance are then `mixture.mixture_moments`.

    Args:
        weights: `[B, E]`, each row summing to 1.
        means: `[B, E]`, 1-5.
        variances: `[B, E]`; those below `MIN_VARIANCE` count as that.
        target: `[B]`, 1-5.
        labelled: `[B]` bool.
        clip_weights: `[B]`, how much each utterance matters; 1 each if None.

    Source: Jacobs et al. 1991, eq. 1.3, as a density.
    """
    variances = variances[labelled].clamp_min(MIN_VARIANCE)
    squared = (target[labelled][:, None] - means[labelled]).square()
    log_density = -0.5 * (squared / variances + variances.log() + math.log(2 * math.pi))
    log_gate = weights[labelled].clamp_min(MIN_GATE).log()
    losses = -torch.logsumexp(log_gate + log_density, dim=1)
    return weighted_sum(losses, labelled, clip_weights)


def diversity(experts: Tensor) -> Term:
    """Sum, over utterances, how much the experts say the same (eq. 6, first part).

    The mean of the squared cosine over the pairs of experts: 0 if all are orthogonal,
    1 if all point the same way. 0 for one expert; an expert silent at zero is
    orthogonal to all.

    Args:
        experts: `[B, E, K]`.

    Source: orthogonality of experts, arXiv 2505.22323.

    >>> diversity(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])).mean()
    tensor(0.5000)
    """
    n_utterances, n_experts, _ = experts.shape
    directions = functional.normalize(experts, dim=2, eps=MIN_NORM)
    squared_cosines = (directions @ directions.transpose(1, 2)).square()  # [B, E, E]
    n_pairs = max(1, n_experts * (n_experts - 1) // 2)
    total = squared_cosines.triu(diagonal=1).sum() / n_pairs
    return Term(total, total.new_tensor(float(n_utterances)))


def gate_entropy(weights: Tensor) -> Term:
    """Sum the entropies of the utterances' gates, in nats (eq. 6, sparsity).

    Args:
        weights: `[B, E]`, each row summing to 1.

    >>> gate_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])).mean()
    tensor(0.3466)
    """
    # The clamp keeps the gradient finite where a gate is exactly 0 (top-k).
    total = -(weights * weights.clamp_min(MIN_GATE).log()).sum()
    return Term(total, total.new_tensor(float(len(weights))))


def balance(mean_gate: Tensor) -> Tensor:
    """Return the squared coefficient of variation of the mean gate (eq. 6, balance).

    0 if all experts are used alike, E - 1 if one is used alone; the variance is that
    of a population (divided by E).

    Args:
        mean_gate: `[E]`, the gate's mean over utterances; see `running_mean_gate`.

    Source: Shazeer et al. 2017, eq. 6-7.

    >>> balance(torch.tensor([0.75, 0.25]))
    tensor(0.2500)
    """
    mean = mean_gate.mean()
    return (mean_gate - mean).square().mean() / mean.square()


def running_mean_gate(batch_mean: Tensor, previous: Tensor | None, momentum: float = 0.9) -> Tensor:
    """Smooth the gate's batch mean over steps, because batches are small.

    The value is `momentum * previous + (1 - momentum) * batch_mean`. The gradient is
    that of the batch mean, not damped by `1 - momentum`: the running mean stands for
    the mean over all data, and the batch mean's gradient is an unbiased sample of
    its gradient. So the weight of `balance` means the same at any momentum.

    Args:
        batch_mean: `[E]`, over the global batch.
        previous: `[E]`, what this returned at the step before; None at the first.

    >>> running_mean_gate(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), momentum=0.8)
    tensor([0.6000, 0.4000])
    """
    if previous is None:
        return batch_mean
    value = torch.lerp(batch_mean.detach(), previous.detach(), momentum)
    return value + (batch_mean - batch_mean.detach())


def expert_regulariser(
    diversity: Tensor,
    entropy: Tensor,
    balance: Tensor,
    weights: RegulariserWeights = DEFAULT_WEIGHTS,
) -> Tensor:
    """Weigh the three parts of the experts' regularisation (eq. 6).

    Args:
        diversity, entropy: means over the global batch.
        balance: of the running mean gate.

    >>> part = torch.tensor(1.0)
    >>> expert_regulariser(part, part, 2 * part, RegulariserWeights(0.5, 0.25, 0.125))
    tensor(1.)
    """
    return weights.diversity * diversity + weights.entropy * entropy + weights.balance * balance


def joint(
    mos: Tensor, synthesizer: Tensor, regulariser: Tensor, task_weights: tuple[float, float]
) -> Tensor:
    """Weigh the two tasks and add the experts' regularisation (eq. 3).

    Args:
        mos, synthesizer: mean losses of the two tasks over the global batch.
        regulariser: from `expert_regulariser`, its weights already in it.
        task_weights: of MOS and of the class; see `train/schedule.py`.

    >>> joint(torch.tensor(2.0), torch.tensor(4.0), torch.tensor(0.125), (0.75, 0.25))
    tensor(2.6250)
    """
    mos_weight, class_weight = task_weights
    return mos_weight * mos + class_weight * synthesizer + regulariser
