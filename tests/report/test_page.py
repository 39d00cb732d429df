"""The report: whole, accessible, and deaf to what a file name tries."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin

import pytest

from voxpanel.measure import FLAGS
from voxpanel.records import Score
from voxpanel.report.page import render, write_page
from voxpanel.tables import SystemMean

VOID = {"meta", "path", "rect"}
NASTY = '"><script>alert(1)</script> & #1.wav'
SCORES = [
    Score(
        "in/a.wav", mos=3.0, mos_low=2.0, mos_high=4.0, system="A", flags=("short",), model="m 1"
    ),
    Score(NASTY, system=NASTY, error="not audio <b>", model="m 1"),
]
MEANS = [SystemMean("A", 1, 0, 3.0, 2.0, 4.0), SystemMean(NASTY, 0, 1, None, None, None)]


class Page(HTMLParser):
    """Collects tags and text; refuses what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page():
    return Page(render("Title <1>", SCORES, MEANS, Path("demo")))


def test_names_are_text_and_never_markup(page):
    assert page.all("script") == page.all("b") == []
    assert NASTY in page.texts
    assert "Title <1>" in page.texts


def test_every_clip_has_a_named_player_that_finds_its_file(page):
    players = page.all("audio")
    found = [unquote(urljoin("x/demo/", player["src"])) for player in players]
    assert found == ["x/in/a.wav", f"x/{NASTY}"]
    assert [player["aria-label"] for player in players] == ["in/a.wav", NASTY]
    assert all(player["preload"] == "none" for player in players)


def test_nothing_is_loaded_but_audio(page):
    assert {tag for tag, attributes in page.tags if {"src", "href"} & set(attributes)} == {"audio"}


def test_a_bar_ends_at_its_mean_and_its_whisker_at_the_interval(page):
    # The axis runs from 1 at 180 px to 5 at 600 px, so a step of 1 is 105 px.
    (bar,) = page.all("rect")
    assert (float(bar["x"]), float(bar["width"])) == (180.0, 2 * 105.0)
    (whisker,) = [path["d"] for path in page.all("path") if "H" in path["d"]]
    assert [float(x) for x in re.findall(r"[MH](\d+\.\d)", whisker)] == [285.0, 495.0]


def test_what_is_drawn_is_also_said(page):
    (figure,) = page.all("svg")
    assert figure["role"] == "img"
    assert figure["aria-label"]
    assert "2.000 to 4.000" in page.texts
    assert {header["scope"] for header in page.all("th")} == {"col", "row"}
    assert page.all("html") == [{"lang": "en"}]


def test_counts_and_reasons_are_there(page):
    assert "1 of 2 clips scored by m 1." in page.texts
    assert "not scored: not audio <b>" in page.texts
    assert FLAGS["short"] in page.texts
    assert FLAGS["clipped"] not in page.texts


def test_without_systems_there_is_no_figure():
    assert "<svg" not in render("t", SCORES, [], Path("demo"))


def test_a_page_is_written_even_for_a_name_that_is_no_utf8(tmp_path):
    write_page(tmp_path / "new" / "page.html", "t", [Score("caf\udce9.wav", error="gone")], [])
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "caf\\udce9.wav" in text
    assert "caf%E9.wav" in text
