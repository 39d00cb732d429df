"""What decides which epoch is kept: a panel's scores of the clips held out from it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from voxpanel.config import Config, Stage
from voxpanel.evaluate.levels import evaluate_levels
from voxpanel.evaluate.metrics import Metrics
from voxpanel.features.extract import Features
from voxpanel.model.losses import UNKNOWN_CLASS
from voxpanel.model.network import Panel
from voxpanel.train.material import Material

BATCH = 64
FOR_ONE_SYSTEM = "all"  # where clips have no system, they count as one


@dataclass(frozen=True)
class Validation:
    """How a panel did on held-out clips.

    key: what is compared between epochs, larger being better.
    utterance, system: of the rated ones; None if there are none.
    accuracy: share of the named clips whose synthesizer was told; NaN without any.
    """

    key: tuple[float, ...]
    utterance: Metrics | None
    system: Metrics | None
    accuracy: float
    n_named: int

    def entry(self) -> dict[str, Any]:
        """Return the numbers for the log; what is undefined is None."""
        numbers: dict[str, Any] = {"accuracy": self.accuracy, "n_named": self.n_named}
        for level, metrics in (("utterance", self.utterance), ("system", self.system)):
            if metrics is not None:
                numbers[f"{level}_n"] = metrics.n
                for name in ("mse", "lcc", "srcc", "ktau"):
                    numbers[f"{level}_{name}"] = getattr(metrics, name)
        return {f"dev_{name}": defined(number) for name, number in numbers.items()}


def validate(
    panel: Panel,
    source: Callable[[Sequence[int]], Features],
    material: Material,
    held: list[int],
    stage: Stage,
    config: Config,
    epoch: int = 0,
) -> Validation:
    """Score held-out clips and compare with their ratings and synthesizers.

    A stage that only learns classes is judged by accuracy; the others by
    `validation.metric`, on plain mean ratings.
    """
    mos, logits = predict(panel, source, material, held)
    classes = material.classes[held].numpy()
    named = classes != UNKNOWN_CLASS
    hits = logits.argmax(axis=1)[named] == classes[named]
    accuracy = float(hits.mean()) if named.any() else math.nan
    rated = material.labelled[held].numpy()
    utterance = system = None
    if rated.sum() >= 2:
        systems = [material.clips[row].system or FOR_ONE_SYSTEM for row in np.array(held)[rated]]
        evaluation = evaluate_levels(mos[rated], material.ratings[held][rated], systems)
        utterance, system = evaluation.utterance, evaluation.system
    if config.validation.metric == "last":
        return Validation((float(epoch),), utterance, system, accuracy, int(named.sum()))
    only_classes = stage.mos == (0.0, 0.0) or utterance is None
    key = (accuracy,) if only_classes else metric_key(config, utterance, system)
    return Validation(key, utterance, system, accuracy, int(named.sum()))


def metric_key(
    config: Config, utterance: Metrics | None, system: Metrics | None
) -> tuple[float, ...]:
    """Return what to compare between epochs, larger being better."""
    assert utterance is not None
    metric = config.validation.metric
    if metric == "utterance_mse":
        return (-utterance.mse,)
    if metric == "utterance_lcc":
        return utterance.lcc, -utterance.mse
    if metric == "system_srcc":
        assert system is not None
        # Rounded, so that equal ones tie: 1 may come out as 0.9999999999999999.
        return round(system.srcc, 9), -system.mse, utterance.lcc
    raise ValueError(
        f"metric {metric!r}: known are system_srcc, utterance_lcc, utterance_mse, last"
    )


def predict(
    panel: Panel,
    source: Callable[[Sequence[int]], Features],
    material: Material,
    rows: list[int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a panel's scores `[n]` and class logits `[n, C]` of some clips."""
    scores, logits = [np.empty(0)], [np.empty((0, len(material.synthesizers) or 1))]
    device = panel.label_mean.device
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            prior = material.prior[part].to(device)
            output = panel(source(part), material.tests[part].to(device), prior)
            scores.append(output.mos.double().cpu().numpy())
            logits.append(output.logits.double().cpu().numpy())
    return np.concatenate(scores), np.concatenate(logits)


def defined(number: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if math.isnan(number) else number
