"""Features of a frozen encoder, computed once and kept on disk.

One safetensors file a clip, named by a hash of what decides its content: the
encoder's weights, the code's version of the features, and the audio file's path,
size and time of change. A file appears whole or not at all, so a run that is killed
loses one clip's work, and two runs may share a store.
"""

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from voxpanel.errors import AudioError
from voxpanel.features.backbone import Backbone
from voxpanel.features.extract import Features, encode, read_clip
from voxpanel.features.moments import Moments

FEATURES_VERSION = 1  # raised whenever the same clip would give other features


def default_store() -> Path:
    """Return the folder for features: `$VOXPANEL_CACHE`, or one in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VOXPANEL_CACHE") or Path(cache) / "voxpanel") / "features"


class FeatureStore:
    """Computes the features of clips, or finds them on disk."""

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        self.backbone = backbone
        self.folder = folder / hash_weights(backbone)

    def one(self, path: Path) -> Features:
        """Return the features of one clip, as a batch of one in main memory.

        Raises:
            AudioError: the file cannot be read, or there is nothing in it to rate.
        """
        place = self.place(path)
        found = read_features(place)
        if found is not None:
            return found
        with torch.inference_mode():
            features = encode(self.backbone, [read_clip(path, self.backbone)])
        features = features.to(torch.device("cpu"))  # where stored ones are read to
        write_features(place, features)
        return features

    def place(self, path: Path) -> Path:
        """Return the file that holds a clip's features."""
        try:
            state = path.stat()
        except OSError as error:
            raise AudioError(f"{path}: {error.strerror}") from None
        identity = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
        name = hashlib.sha256(identity.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"


def hash_weights(backbone: Backbone) -> str:
    """Name an encoder by what it computes."""
    digest = hashlib.sha256(f"{backbone.name} {FEATURES_VERSION}".encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return f"{backbone.name.replace('/', '-')}-{digest.hexdigest()[:16]}"


def read_features(place: Path) -> Features | None:
    """Return stored features; None if there are none, or only a damaged file."""
    try:
        tensors = load_file(place)
        pooled = Moments(*(tensors[name] for name in Moments._fields))
        return Features(pooled, tensors["fullband"])
    except (OSError, SafetensorError, KeyError):
        return None


def write_features(place: Path, features: Features) -> None:
    """Write features whole: to a name of this process, then renamed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    tensors = {**features.moments._asdict(), "fullband": features.fullband}
    draft = place.with_suffix(f".{os.getpid()}")
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, draft)
    draft.replace(place)
