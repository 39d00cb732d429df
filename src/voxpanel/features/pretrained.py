"""Where a trained encoder comes from: a folder, the hub's cache, or the hub.

Only JSON and safetensors are read, never a pickle. A folder needs what
`save_pretrained` writes: `config.json`, the weights, and with them
`preprocessor_config.json` if the model's clips are to be prepared as in training.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's
from safetensors import SafetensorError
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from voxpanel.errors import BackboneError

HUB_TIMEOUT_S = 2.0  # the hub's client tries twice
HUB_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def find_folder(source: str) -> Path:
    """Return the folder that holds an encoder: as given, out of the cache, or downloaded.

    Without a network this answers within seconds.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not HUB_ID.fullmatch(source):
        found = "is a file" if folder.exists() else "does not exist"
        raise BackboneError(f"{source}: {found}; give the folder of a model, or its id on the hub")
    cached = find_cached(source)
    if cached:
        return cached
    try:
        # The download itself would wait long for a hub that cannot be reached.
        huggingface_hub.HfApi().model_info(source, timeout=HUB_TIMEOUT_S)
        return download(source, local_files_only=False)
    except (OSError, HTTPError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BackboneError(
            f"{source}: no such folder, not in the cache {huggingface_hub.constants.HF_HUB_CACHE} "
            f"with safetensors, and the hub did not give it ({reason}); connect to the network and "
            "unset HF_HUB_OFFLINE, point HF_HOME at a cache that has it, or save the model to a "
            "folder and pass that folder"
        ) from error


def find_cached(source: str) -> Path | None:
    """Return a hub model's folder in the cache, or None if it lacks something."""
    try:
        folder = download(source, local_files_only=True)
    except OSError:  # what huggingface_hub raises for all that it does not find
        return None
    # Other programs may have left a copy with pickled weights alone.
    return folder if (folder / "config.json").exists() and has_safetensors(folder) else None


def download(source: str, *, local_files_only: bool) -> Path:
    """Return the cached copy of a hub model, weights as safetensors only."""
    folder = huggingface_hub.snapshot_download(
        source, allow_patterns=list(HUB_FILES), local_files_only=local_files_only
    )
    return Path(folder)


def has_safetensors(folder: Path) -> bool:
    """Tell whether a folder has weights that are not pickled."""
    return any(folder.glob("*.safetensors"))


def read_json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    """Read a JSON object; a file that is not needed and not there is an empty one."""
    if not needed and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{path}: cannot be read ({error}); save the model again with save_pretrained"
        ) from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def read_weights(folder: Path, source: str) -> PreTrainedModel:
    """Read a folder's safetensors into a network; every weight must be there."""
    if not has_safetensors(folder):
        raise BackboneError(
            f"{source}: no .safetensors in {folder}; pickled weights are not read. Where you trust "
            f"them: transformers.AutoModel.from_pretrained({source!r}).save_pretrained(FOLDER), "
            "and pass that folder"
        )
    try:
        with quiet_report():
            model, report = AutoModel.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BackboneError(
            f"{source}: the weights in {folder} cannot be read ({error}); fetch them again"
        ) from error
    # SpecAugment alone uses the one weight that old checkpoints lack.
    missing = set(report["missing_keys"]) - {"masked_spec_embed"}
    unfilled = sorted(missing | {key for key, *_ in report["mismatched_keys"]})
    if unfilled:
        raise BackboneError(
            f"{source}: {len(unfilled)} weights are not in {folder} or have another shape, the "
            f"first being {unfilled[0]}; config.json and the weights must be of the same model"
        )
    assert isinstance(model, PreTrainedModel)  # what AutoModel returns is not typed
    return model


@contextmanager
def quiet_report() -> Iterator[None]:
    """Keep transformers from a progress bar, and from listing weights of heads not used here."""
    level = transformers_logging.get_verbosity()
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bar:
            transformers_logging.enable_progress_bar()
