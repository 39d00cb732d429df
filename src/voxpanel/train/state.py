"""The state of a run on disk: one file that is whole or not there.

Everything that the next step depends on is in it: weights, the optimizer's moments,
the best weights so far, early stopping, the metrics logged. Random numbers are not,
for they are drawn afresh at every step from a seed that names the step; so a run that
is killed at any moment continues to the same bits.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from voxpanel.errors import CheckpointError


def save_state(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record to one file, replacing the one before."""
    draft = path.with_suffix(".draft")
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, draft, metadata={"record": json.dumps(record)})
    draft.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote.

    Raises:
        CheckpointError: the file is damaged or not a run's state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            record = dict(json.loads((file.metadata() or {})["record"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not the state of a run ({error}); start over") from None
    return tensors, record


def pack(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a group's name before each tensor's."""
    return {f"{group}/{name}": tensor for name, tensor in tensors.items()}


def unpack(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a group, by their own names."""
    prefix = f"{group}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's moments by `place.name`."""
    return {
        f"{place}.{name}": value
        for place, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the moments that `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def seed_step(*numbers: int) -> int:
    """Return a seed for one step: a hash of the run's seed and where the run is.

    >>> seed_step(0, 1, 2) == seed_step(0, 1, 2), seed_step(0, 1, 2) == seed_step(0, 2, 1)
    (True, False)
    """
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:7], "big")
