"""The weights that a member starts from: random ones, or those of a trained model.

A model trained on other ratings knows what speech sounds like when it is good. A
few hundred ratings then only have to say what this panel and these systems are like,
which carries further to systems that none of them is of.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from voxpanel.config import Config
from voxpanel.errors import ConfigError, DataError
from voxpanel.features.backbone import Backbone
from voxpanel.features.extract import Features, concatenate
from voxpanel.model.checkpoint import LoadedModel
from voxpanel.model.network import Panel
from voxpanel.train.loop import Source
from voxpanel.train.material import Material
from voxpanel.train.state import seed_step
from voxpanel.train.validate import predict

BATCH = 16
# Their rows are names of the data at hand, or they are fitted to it.
OWN = ("synthesizer_head.", "fusion.test.", "blend.")


def first_panel(
    config: Config,
    backbone: Backbone,
    material: Material,
    source: Source,
    member: int,
    started: LoadedModel | None,
) -> Panel:
    """Return a member's panel before its first step.

    Standardisers and the mean rating come from the clips that the member may see.
    With `started`, the weights and standardisers are those of one of its panels.
    """
    torch.manual_seed(seed_step(config.seed, member))
    n_classes = max(1, len(material.synthesizers))
    panel = Panel(config, backbone, n_classes, len(material.test_names))
    # A backbone without weights has buffers.
    panel.to(next(chain(backbone.parameters(), backbone.buffers())).device)
    seen = np.flatnonzero(material.folds != member)
    rated = seen[material.labelled.numpy()[seen]].tolist()
    if not rated:
        raise DataError(f"fold {member} holds every rated clip; group by something finer")
    panel.label_mean.fill_(float(material.targets[rated].mean()))
    if panel.blend is not None:
        device = panel.label_mean.device
        ratings = torch.from_numpy(material.ratings[rated]).to(device)
        panel.blend.fit(in_batches(source, rated), ratings, material.prior[rated].to(device))
    if started is None:
        with torch.no_grad():
            panel.fusion.fit(in_batches(source, seen.tolist()))
        return panel
    copy_weights(panel, started, member)
    blend, panel.blend = panel.blend, None  # the mixture alone has to be right on average
    scores, _ = predict(panel.eval(), source, material, rated)
    panel.blend = blend
    panel.label_mean += float((material.targets[rated].double().numpy() - scores).mean())
    return panel


def copy_encoder(backbone: Backbone, started: LoadedModel) -> None:
    """Give an encoder the weights that a trained model's panels have learned to read.

    Raises:
        ConfigError: the model has another encoder.
    """
    theirs = started.network.backbone.state_dict()
    shapes = {name: tensor.shape for name, tensor in theirs.items()}
    own = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    if type(backbone) is not type(started.network.backbone) or own != shapes:
        raise ConfigError(
            f"start: {started.identity} has another encoder than {backbone.name}; use the "
            "backbone that it has, or set start=null"
        )
    backbone.load_state_dict(theirs)


def copy_weights(panel: Panel, started: LoadedModel, member: int) -> None:
    """Give a panel the weights of a trained one, but for those that belong to its data."""
    panels = started.network.panels
    state = {
        name: tensor
        for name, tensor in panels[member % len(panels)].state_dict().items()
        if not name.startswith(OWN)
    }
    shapes = {name: tensor.shape for name, tensor in panel.state_dict().items()}
    wrong = [name for name, tensor in state.items() if shapes.get(name) != tensor.shape]
    missing = [name for name in shapes if name not in state and not name.startswith(OWN)]
    if wrong or missing:
        raise ConfigError(
            f"start: {started.identity} has another network ({(wrong + missing)[0]} differs); "
            "use the backbone, fusion and mixture that it has, or set start=null"
        )
    panel.load_state_dict(state, strict=False)


def in_batches(source: Source, rows: Sequence[int]) -> Features:
    """Return the features of many clips, encoded a few at a time."""
    return concatenate([source(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)])
