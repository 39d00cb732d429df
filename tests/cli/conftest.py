"""Running the command inside the test, with a scorer that needs no model."""

from typing import NamedTuple

import pytest

from voxpanel import cli
from voxpanel.errors import CheckpointError
from voxpanel.records import Score

MOS = {"good.wav": 4.0, "fair.wav": 3.0, "poor.wav": 2.0}


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


class FakeScorer:
    """Knows three files by name; any other cannot be scored. `loaded` counts loads."""

    model_id = "fake 1.0 abc"
    n_gates = 2
    test_names = ("studio", "crowd")
    loaded: list
    asked: list

    @classmethod
    def load(cls, source="base", *, device="auto"):
        if source == "missing":
            raise CheckpointError("no model 'missing'")
        cls.loaded.append((source, device))
        return cls()

    def score_many(self, paths, *, test=None, systems=None):
        for path in paths:
            self.asked.append((path, test))
            name = path.rsplit("/", 1)[-1]
            system = (systems or {}).get(path)
            if name == "interrupt.wav":
                raise KeyboardInterrupt
            if name not in MOS:
                error = f"{path}: no such file"
                yield Score(path, system=system, model=self.model_id, error=error)
                continue
            mos = MOS[name]
            yield Score(
                path,
                mos=mos,
                mos_low=mos - 0.5,
                mos_high=mos + 0.5,
                system=system,
                flags=("short",),
                model=self.model_id,
                gates=(0.25, 0.75),
            )


@pytest.fixture
def fake(monkeypatch):
    """Put the fake in the place of `Scorer`; return its class."""
    from voxpanel import score

    scorer = type("Fresh", (FakeScorer,), {"loaded": [], "asked": []})
    monkeypatch.setattr(score, "Scorer", scorer)
    return scorer


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Work in a folder with the three clips, and a manifest of them."""
    monkeypatch.chdir(tmp_path)
    for name in MOS:
        (tmp_path / name).touch()
    rows = "path,system,score,test,split\n"
    rows += "good.wav,A,4.5,studio,test\nfair.wav,A,3.5,studio,test\npoor.wav,B,2,studio,dev\n"
    (tmp_path / "ratings.csv").write_text(rows)
    return tmp_path


@pytest.fixture
def voxpanel(capsys):
    """Return `voxpanel(*args)`, which runs the command to its end."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(list(map(str, args)))
        out, err = capsys.readouterr()
        return Done(stop.value.code, out, err)

    return run
