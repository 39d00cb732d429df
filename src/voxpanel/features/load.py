"""A backbone by name, with its trained weights, or from what a checkpoint recorded."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from voxpanel.config import BackboneSettings
from voxpanel.errors import BackboneError
from voxpanel.features.backbone import Backbone
from voxpanel.features.distilled import DistilledEncoder
from voxpanel.features.melbank import Melbank

PREFIX = "backbone."  # of the encoder's weights in a model folder


def load_backbone(settings: BackboneSettings) -> Backbone:
    """Load an encoder, ready for inference.

    `distilled` comes out of the shipped model, or out of `source`, the
    `model.safetensors` of another model folder. `transformer` needs a `source`.

    Raises:
        BackboneError: the weights are not there, or are of another network.
    """
    if settings.name == "distilled":
        encoder = DistilledEncoder()
        load_weights(encoder, Path(settings.source) if settings.source else shipped_weights())
        return encoder.eval()
    if settings.name == "melbank":
        return Melbank().eval()
    if settings.name == "transformer":
        from voxpanel.features.transformer import load_transformer  # imports transformers

        assert settings.source is not None  # `Config` has checked it
        encoder_model = load_transformer(settings.source)
        if settings.fine_tune:
            encoder_model.prepare_training(
                freeze_convolutions=settings.freeze_convolutions,
                gradient_checkpointing=settings.gradient_checkpointing,
            )
        return encoder_model
    raise BackboneError(f"backbone {settings.name!r}: known are distilled, transformer, melbank")


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """Return what `rebuild_backbone` needs; JSON can hold it."""
    if isinstance(backbone, DistilledEncoder | Melbank):
        return {"name": backbone.name}
    from voxpanel.features.transformer import TransformerEncoder

    assert isinstance(backbone, TransformerEncoder)
    return {"name": "transformer", "config": backbone.config_dict()}


def rebuild_backbone(record: Mapping[str, Any]) -> Backbone:
    """Build an encoder without its weights from what `describe_backbone` returned."""
    name = record.get("name")
    if name == "distilled":
        return DistilledEncoder()
    if name == "melbank":
        return Melbank()
    if name == "transformer":
        from voxpanel.features.transformer import TransformerEncoder

        return TransformerEncoder.from_config(record["config"])
    raise BackboneError(f"backbone {name!r}: known are distilled, transformer, melbank")


def shipped_weights() -> Path:
    """Return where the shipped model's weights are."""
    return Path(str(resources.files("voxpanel"))) / "model" / "base" / "model.safetensors"


def load_weights(encoder: Backbone, path: Path) -> None:
    """Fill an encoder from the `backbone.` part of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {
                name.removeprefix(PREFIX): file.get_tensor(name).float()
                for name in file.keys()  # noqa: SIM118  # not a mapping: it cannot be iterated
                if name.startswith(PREFIX)
            }
        encoder.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(
            f"{path}: no weights of the {encoder.name} encoder ({reason}); give the "
            "model.safetensors of a model folder that has them"
        ) from None
