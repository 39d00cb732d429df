"""Voxpanel: a panel of experts listens to synthetic speech and predicts its MOS.

The public names. Each is imported when it is first asked for, so that `import voxpanel`
costs nothing; torch is loaded by `load` and `Scorer`.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxpanel.data.manifest import read_manifest
    from voxpanel.errors import VoxpanelError
    from voxpanel.evaluate import Evaluation, evaluate
    from voxpanel.records import Clip, Rating, Score
    from voxpanel.score import Scorer

__version__ = "0.1.0"

__all__ = [
    "Clip",
    "Evaluation",
    "Rating",
    "Score",
    "Scorer",
    "VoxpanelError",
    "__version__",
    "evaluate",
    "load",
    "read_manifest",
]

HOMES = MappingProxyType(
    {
        "Clip": "voxpanel.records",
        "Evaluation": "voxpanel.evaluate",
        "Rating": "voxpanel.records",
        "Score": "voxpanel.records",
        "Scorer": "voxpanel.score",
        "VoxpanelError": "voxpanel.errors",
        "evaluate": "voxpanel.evaluate",
        "read_manifest": "voxpanel.data.manifest",
    }
)


def load(source: str = "base", *, device: str = "auto") -> "Scorer":
    """Load a model to score with.

    Args:
        source: the name of a shipped model, a model's folder, or a hub id.
        device: `cpu`, `cuda`, ...; `auto` is a GPU if there is one.

    Raises:
        CheckpointError: it cannot be found or read.
    """
    from voxpanel.score import Scorer

    return Scorer.load(source, device=device)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'voxpanel' has no attribute {name!r}")
    module = import_module(HOMES[name])
    # Importing the package `evaluate` made it an attribute here; it answers calls itself.
    return globals().get(name) or getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
