"""Experts and the gate that blends them (paper III-B, eq. 1 and 2).

Axes: B utterances, D features in, E experts, K outputs.
The gate reads the vector that the experts read; its weights are non-negative and
sum to 1 over E. Experts have the same structure and separate parameters, held
in stacks so that all experts of a layer are one batched product. Frames become
that vector in `fusion.py`; the penalties on the gate (eq. 6) are in `losses.py`;
what the gate does in practice is counted in `gates.py`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpanel.errors import ConfigError, DataError


class MixtureOutput(NamedTuple):
    """What a mixture returns.

    blended: `[B, K]`, the experts' outputs weighted by the gate (eq. 2).
    experts: `[B, E, K]`, each expert's own output.
    weights: `[B, E]`, the gate (eq. 1), each row summing to 1.
    """

    blended: Tensor
    experts: Tensor
    weights: Tensor


def blend(outputs: Tensor, weights: Tensor) -> Tensor:
    """Blend the experts' outputs by their gate weights (eq. 2).

    Args:
        outputs: `[B, E, K]`, one vector per expert.
        weights: `[B, E]`, each row summing to 1.

    Returns:
        `[B, K]`.

    Raises:
        DataError: the two disagree on B or E.

    >>> blend(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[0.75, 0.25]])).item()
    2.0
    """
    if outputs.shape[:2] != weights.shape:
        raise DataError(
            "outputs [B, E, K] and weights [B, E] must agree on B and E: "
            f"got {tuple(outputs.shape)} and {tuple(weights.shape)}"
        )
    return torch.einsum("bek,be->bk", outputs, weights)


def mixture_moments(weights: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of a mixture of distributions.

    With mean `mu = sum g_i mu_i` the variance is `sum g_i (s_i^2 + mu_i^2) - mu^2`.
    It is computed as `sum g_i (s_i^2 + (mu_i - mu)^2)`, which is the same number
    without the difference of two large ones, so it is never negative.

    Args:
        weights: `[B, E]`, each row summing to 1.
        means: `[B, E]`, what each expert predicts.
        variances: `[B, E]`, how uncertain each expert says it is; not negative.

    Returns:
        mean and variance, `[B]` each.

    >>> weights = torch.tensor([[0.5, 0.5]])
    >>> mixture_moments(weights, torch.tensor([[2.0, 4.0]]), torch.tensor([[0.5, 1.5]]))
    (tensor([3.]), tensor([2.]))
    """
    mean = (weights * means).sum(dim=1)
    spread = (means - mean[:, None]).square()
    return mean, (weights * (variances + spread)).sum(dim=1)


class Gate(nn.Module):
    """Weigh the experts by what an utterance sounds like (eq. 1).

    `softmax((W_g h + b_g) / temperature)`, where h is one hidden ReLU layer over
    the vector that the experts read.

    top_k: keep the k largest weights of an utterance and rescale them; all if None.
    noise: while training, add normal noise of a learned size to the logits, so
        that `top_k` tries every expert. In evaluation no random number is drawn.

    Source: Jacobs et al. 1991; top-k and noise as in Shazeer et al. 2017, eq. 3-5.
    """

    def __init__(
        self,
        dim_in: int,
        n_experts: int,
        dim_hidden: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        noise: bool = False,
    ) -> None:
        super().__init__()
        if n_experts < 1:
            raise ConfigError(f"n_experts is {n_experts}; give 1 or more")
        if not temperature > 0:
            raise ConfigError(f"gate temperature is {temperature}; give a number above 0")
        if top_k is not None and not 1 <= top_k <= n_experts:
            raise ConfigError(f"gate top_k is {top_k}; give 1 to {n_experts} (n_experts), or none")
        self.n_experts = n_experts
        self.temperature = temperature
        self.top_k = top_k
        self.hidden = nn.Linear(dim_in, dim_hidden)
        self.logits = nn.Linear(dim_hidden, n_experts)
        self.noise_size: nn.Linear | None = None
        if noise:
            self.noise_size = nn.Linear(dim_hidden, n_experts, bias=False)
            nn.init.zeros_(self.noise_size.weight)  # all experts equally noisy at first

    def forward(self, vectors: Tensor) -> Tensor:
        """Turn `[B, D]` vectors into `[B, E]` weights."""
        hidden = functional.relu(self.hidden(vectors))
        logits: Tensor = self.logits(hidden)
        if self.noise_size is not None and self.training:
            size = functional.softplus(self.noise_size(hidden))
            logits = logits + torch.randn_like(logits) * size
        if self.top_k is not None:
            logits = keep_largest(logits, self.top_k)
        return torch.softmax(logits / self.temperature, dim=1)


def keep_largest(logits: Tensor, n_kept: int) -> Tensor:
    """Set all but the largest logits of a row to minus infinity.

    Exactly `n_kept` stay: of equal ones at the edge, which stay is torch's choice.

    >>> keep_largest(torch.tensor([[0.5, 2.0, 1.0]]), 2)
    tensor([[-inf, 2., 1.]])
    """
    largest = logits.topk(n_kept, dim=1)
    return torch.full_like(logits, -torch.inf).scatter(1, largest.indices, largest.values)


class StackedLinear(nn.Module):
    """One linear layer an expert, all of them in one product; initialised as `nn.Linear`."""

    def __init__(self, n_experts: int, dim_in: int, dim_out: int) -> None:
        super().__init__()
        layers = [nn.Linear(dim_in, dim_out) for _ in range(n_experts)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, vectors: Tensor) -> Tensor:
        """Turn `[B, E, D]`, each expert's own vectors, into `[B, E, K]`."""
        by_expert = vectors.transpose(0, 1)  # [E, B, D]
        return torch.baddbmm(self.bias[:, None, :], by_expert, self.weight).transpose(0, 1)


class Experts(nn.Module):
    """E perceptrons of the same structure and separate parameters.

    Every layer, the last one too, ends in ReLU and dropout: the experts emit
    features, and the linear heads that read their blend are the output layer.

    hidden: the width of each layer; the last one is K, the width of the outputs.
    """

    def __init__(
        self,
        dim_in: int,
        n_experts: int,
        hidden: tuple[int, ...] = (256, 128),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if n_experts < 1:
            raise ConfigError(f"n_experts is {n_experts}; give 1 or more")
        if not hidden:
            raise ConfigError("experts need one hidden layer or more; the paper has 2 or 3")
        widths = (dim_in, *hidden)
        self.n_experts = n_experts
        self.dim_out = widths[-1]
        self.layers = nn.ModuleList(
            StackedLinear(n_experts, widths[i], widths[i + 1]) for i in range(len(hidden))
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Turn `[B, D]` vectors, which all experts read, into `[B, E, K]` outputs."""
        outputs = vectors[:, None, :].expand(-1, self.n_experts, -1)
        for layer in self.layers:
            outputs = self.dropout(functional.relu(layer(outputs)))
        return outputs


class Mixture(nn.Module):
    """The experts and their gate; with one expert, a plain perceptron."""

    def __init__(self, gate: Gate, experts: Experts) -> None:
        super().__init__()
        if gate.n_experts != experts.n_experts:
            raise ConfigError(
                f"the gate weighs {gate.n_experts} experts and there are {experts.n_experts}; "
                "give both the same number"
            )
        self.gate = gate
        self.experts = experts

    def forward(self, vectors: Tensor) -> MixtureOutput:
        """Blend what the experts make of `[B, D]` vectors."""
        weights = self.gate(vectors)
        experts = self.experts(vectors)
        return MixtureOutput(blend(experts, weights), experts, weights)
