"""The whole network in one forward: encoder, fusion, mixture, two heads.

`MosModel` holds one encoder and one or more `Panel`s, the members of an ensemble
that were trained on other parts of the ratings. A panel is the paper's system
behind the encoder: fusion, mixture of experts (eq. 1-2), MOS head, synthesizer head.

Axes: B clips, G the global vector, E experts, K outputs of an expert, C
synthesizers, M members.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from voxpanel.config import Config
from voxpanel.features.backbone import Backbone
from voxpanel.features.extract import ClipInput, Features, encode
from voxpanel.features.fullband import DIM as N_BANDS
from voxpanel.model.blend import Blend
from voxpanel.model.fusion import UNKNOWN_TEST, Fusion
from voxpanel.model.mixture import Experts, Gate, Mixture

LOWEST, HIGHEST = 1.0, 5.0  # ends of the scale


class PanelOutput(NamedTuple):
    """What one panel says.

    mos: `[B]`, unclipped.
    logits: `[B, C]`, one a synthesizer.
    gates: `[B, E]`; E is 0 without a mixture.
    experts: `[B, E, K]`.
    """

    mos: Tensor
    logits: Tensor
    gates: Tensor
    experts: Tensor


class Verdict(NamedTuple):
    """What all members together say of B clips.

    mos: `[B]`, the members' mean, within 1-5.
    disagreement: `[B]`, variance of the members' scores; 0 for one member.
    synthesizers: `[B, C]`, probabilities, the members' mean.
    gates: `[B, M * E]`, each member's gate over M; a row sums to 1.
    """

    mos: Tensor
    disagreement: Tensor
    synthesizers: Tensor
    gates: Tensor


class Panel(nn.Module):
    """Fusion, mixture and heads; with `mixture: null`, one linear layer on the vector.

    label_mean: of the training ratings; the MOS head starts there.
    """

    label_mean: Tensor

    def __init__(
        self, config: Config, backbone: Backbone, n_synthesizers: int, n_tests: int
    ) -> None:
        super().__init__()
        settings = config.mixture
        self.fusion = Fusion(config.fusion, backbone.n_layers, backbone.dim, N_BANDS, n_tests)
        self.mixture: Mixture | None = None
        self.residual = settings is not None and settings.residual
        width = config.fusion.dim
        if settings is not None:
            self.mixture = Mixture(
                Gate(
                    width,
                    settings.n_experts,
                    settings.gate_hidden,
                    settings.temperature,
                    settings.top_k,
                    settings.noise,
                ),
                Experts(width, settings.n_experts, settings.hidden, settings.dropout),
            )
            width = self.mixture.experts.dim_out
        self.blend: Blend | None = None
        if config.blend.ridge or config.blend.prior:
            layer_weights = torch.softmax(self.fusion.layer_logits, dim=0)
            self.blend = Blend(config.blend, layer_weights, backbone.dim)
        self.mos_head = nn.Linear(width, 1)
        self.synthesizer_head = nn.Linear(width, n_synthesizers)
        self.register_buffer("label_mean", torch.tensor(3.0))

    def forward(
        self, features: Features, tests: Tensor, prior: Tensor | None = None
    ) -> PanelOutput:
        """Score B clips as listening tests `[B]` would; see `Fusion.forward`.

        In training the score is the mixture's own; the blend is for answers.

        Args:
            prior: `[B]`, an earlier model's scores, where the blend has a share for them.
        """
        vector = self.fusion(features, tests)
        experts = gates = vector.new_zeros(len(vector), 0)
        blended = vector
        if self.mixture is not None:
            blended, experts, gates = self.mixture(vector)
        if self.residual:
            blended = blended + vector
        mos = self.label_mean + self.mos_head(blended).squeeze(1)
        if self.blend is not None and not self.training:
            mos = self.blend(mos, features, prior)
        return PanelOutput(mos, self.synthesizer_head(blended), gates, experts)


class MosModel(nn.Module):
    """An encoder and the panels that read it.

    prior: panels of an earlier model on the same encoder, for the members' blends.
    """

    def __init__(
        self, backbone: Backbone, panels: Sequence[Panel], prior: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.panels = nn.ModuleList(panels)
        self.prior = nn.ModuleList(prior)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.panels.parameters()).device

    def forward(self, features: Features, tests: Tensor) -> Verdict:
        """Ask every member about B clips and average."""
        prior = mean_score(self.prior, features) if len(self.prior) else None
        outputs = [panel(features, tests, prior) for panel in self.panels]
        scores = torch.stack([output.mos for output in outputs])
        probabilities = torch.stack([output.logits.softmax(dim=1) for output in outputs])
        gates = torch.cat([output.gates for output in outputs], dim=1) / len(outputs)
        return Verdict(
            scores.mean(dim=0).clamp(LOWEST, HIGHEST),
            scores.var(dim=0, unbiased=False),
            probabilities.mean(dim=0),
            gates,
        )

    def listen(self, clips: Sequence[ClipInput], tests: Tensor) -> Verdict:
        """Encode a batch and score it, without gradients."""
        with torch.inference_mode():
            return self.forward(encode(self.backbone, clips), tests.to(self.device))


def mean_score(panels: nn.ModuleList, features: Features) -> Tensor:
    """Return the mean score `[B]` of panels, for no listening test in particular."""
    tests = torch.full((len(features.fullband),), UNKNOWN_TEST, device=features.fullband.device)
    return torch.stack([panel(features, tests).mos for panel in panels]).mean(dim=0)
