"""`make demo`: the tables, the two files, and a line that is computed."""

from pathlib import Path

import pytest

from voxpanel.records import Score
from voxpanel.rows import read_rows

SCRIPTS = Path(__file__).parent.parent / "scripts"
N_CLIPS, N_TEXTS = 12, 6  # three synthesizers, two sentences each, clean and degraded


class FakeScorer:
    """Gives a degraded clip a score of 2, any other one of 4, but for `spoilt` ones."""

    spoilt = ""

    @classmethod
    def load(cls, source):
        assert source == "base"
        return cls()

    def score_many(self, paths, *, systems):
        for path in paths:
            mos = 2.0 if "degraded" in path or Path(path).name == self.spoilt else 4.0
            yield Score(path, mos=mos, mos_low=mos, mos_high=mos, system=systems[path], model="m")


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Import the script, its scorer replaced and its output elsewhere."""
    monkeypatch.chdir(tmp_path)  # so that the script's own change of folder is undone
    monkeypatch.syspath_prepend(SCRIPTS)
    import demo as script

    monkeypatch.setattr(script, "Scorer", type("Fresh", (FakeScorer,), {}))
    monkeypatch.setattr(script, "OUT", tmp_path / "demo")
    return script


def test_the_demo_writes_both_files_and_counts_every_text(demo, tmp_path, capsys):
    assert demo.main() == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == ("in 6 of 6 spoken texts the clean clip scores above its degraded copy")
    assert sum("examples/" in line for line in out) == N_CLIPS
    assert sum(line.startswith("flite") for line in out) == 2
    assert len(list(read_rows(tmp_path / "demo" / "scores.csv").rows)) == N_CLIPS
    assert (tmp_path / "demo" / "report.html").read_text().count("<audio") == N_CLIPS


def test_a_model_that_does_not_hear_the_difference_fails_the_demo(demo, monkeypatch, capsys):
    monkeypatch.setattr(demo.Scorer, "spoilt", "flite_cups_clean_16k.flac")
    assert demo.main() == 1
    assert f"in {N_TEXTS - 1} of {N_TEXTS} spoken texts" in capsys.readouterr().out
