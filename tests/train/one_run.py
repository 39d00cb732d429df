"""Runs as a process of its own, which tests kill, or start twice under torchrun."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from corpus import Notes

from voxpanel.config import build_config
from voxpanel.train import loop, run
from voxpanel.train.parallel import Group, start


class Lasting(Group):
    """The processes of several runs: a process group is started once in a process."""

    def stop(self) -> None:
        self.barrier()

    def leave(self) -> None:
        """Stay, for the next run."""


def main(folders: list[Path]) -> None:
    """Run what `run.json` in each folder says; the model goes to `model` there."""
    if os.environ.get("RANK", "0") != "0":
        sys.addaudithook(lambda event, facts: forbid_writing(folders, event, facts))
    with start() as group:
        run.start = lambda: Lasting(group.rank, group.size, group.local_rank)
        run_all(folders)


def run_all(folders: list[Path]) -> None:
    """Run one after another."""
    for folder in folders:
        wanted = json.loads((folder / "run.json").read_text())
        if wanted["save_every_step"]:
            loop.SAVE_EVERY_S, loop.SAVE_SHARE = -1.0, 0
        config = build_config(wanted["config"], "run.json")
        manifest, cache, out = Path(wanted["manifest"]), Path(wanted["cache"]), folder / "model"
        resume = wanted["resume"]
        run.train([manifest], out, config, Notes(), cache=cache, resume=resume, device="cpu")


def forbid_writing(folders: list[Path], event: str, facts: tuple[Any, ...]) -> None:
    """Stop a process that is not the first where it would change one of the folders."""
    changes = event in {"os.mkdir", "os.rename", "os.remove"}
    writes = event == "open" and bool(facts[2] & (os.O_WRONLY | os.O_RDWR))
    if (changes or writes) and any(str(facts[0]).startswith(str(folder)) for folder in folders):
        raise RuntimeError(f"a process that is not the first: {event} {facts[0]}")


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
