"""A run as a process of its own, which tests kill, or start twice under torchrun."""

import json
import sys
from pathlib import Path

from corpus import Notes

from voxpanel.config import build_config
from voxpanel.train import loop
from voxpanel.train.run import train


def main(folder: Path) -> None:
    """Run what `run.json` in a folder says; the model goes to `model` there."""
    wanted = json.loads((folder / "run.json").read_text())
    if wanted["save_every_step"]:
        loop.SAVE_EVERY_S, loop.SAVE_SHARE = -1.0, 0
    config = build_config(wanted["config"], "run.json")
    manifest, cache, out = Path(wanted["manifest"]), Path(wanted["cache"]), folder / "model"
    train([manifest], out, config, Notes(), cache=cache, resume=wanted["resume"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
