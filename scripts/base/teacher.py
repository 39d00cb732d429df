"""Distill-MOS out of its own package: its encoder for us, and its answers as a teacher.

`pip install --no-deps distillmos==0.9.1` brings the weights (MIT, Microsoft). They are
read from the installed files without importing the package, which needs torchaudio.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from voxpanel.features.distilled import DistilledEncoder

NAMES = (
    ("norm_input.", "norm_input."),
    ("transformer.norm.", "norm_projection."),
    ("transformer.linear_proj.", "projection."),
    ("transformer.transformer_encoder.layers.", "layers."),
)
HEAD = ("norm_trans.", "pool.")


class Teacher:
    """The encoder, rounded to half precision as it is shipped, and Distill-MOS's own head."""

    def __init__(self) -> None:
        weights = {
            name.removeprefix("transformer_pool_attn."): tensor.half().float()
            if tensor.is_floating_point()
            else tensor
            for name, tensor in read_distillmos().items()
        }
        self.head = {name: value for name, value in weights.items() if name.startswith(HEAD)}
        self.encoder = DistilledEncoder()
        self.encoder.load_state_dict(encoder_weights(weights))
        self.encoder.eval()

    def save_encoder(self, path: Path) -> None:
        """Write the encoder as `backbone.source` can name it."""
        state = self.encoder.state_dict()
        save_file({f"backbone.{name}": tensor for name, tensor in state.items()}, path)

    def score(self, frames: Tensor) -> float:
        """Return the MOS of the last layer's frames `[F, D]`."""
        head = self.head
        x = functional.batch_norm(
            frames,
            head["norm_trans.running_mean"],
            head["norm_trans.running_var"],
            head["norm_trans.weight"],
            head["norm_trans.bias"],
        )
        hidden = functional.relu(functional.linear(x, *self.layer("pool.linear1")))
        attention = functional.linear(hidden, *self.layer("pool.linear2")).softmax(dim=0)
        pooled = (attention * x).sum(dim=0)
        return 1 + 4 * float(torch.sigmoid(functional.linear(pooled, *self.layer("pool.linear3"))))

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of a linear layer."""
        return self.head[f"{name}.weight"], self.head[f"{name}.bias"]


def read_distillmos() -> dict[str, Tensor]:
    """Read the weights that the installed package carries."""
    spec = find_spec("distillmos")
    if spec is None or spec.origin is None:
        raise SystemExit("distillmos is missing: pip install --no-deps distillmos==0.9.1")
    path = Path(spec.origin).parent / "weights" / "distill_mos_v7.pt"
    # The one file of another format; `weights_only` admits tensors and nothing that runs.
    content: dict[str, dict[str, Tensor]] = torch.load(path, map_location="cpu", weights_only=True)
    return content["model"]


def encoder_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename Distill-MOS's weights to our encoder's."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("cnn.cnn."):  # convolutions and activations take turns there
            place, kind = name.removeprefix("cnn.cnn.").split(".")
            renamed[f"front_end.convolutions.{int(place) // 2}.{kind}"] = tensor
        for theirs, ours in NAMES:
            if name.startswith(theirs):
                renamed[ours + name.removeprefix(theirs)] = tensor
    return renamed
