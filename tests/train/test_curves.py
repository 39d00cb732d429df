"""The drawing of a run: every defined number has its point, in the right place."""

import re
from xml.etree import ElementTree as ET

import pytest

from voxpanel.train.curves import HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def entry(member=0, stage="joint", **numbers):
    return {"member": member, "stage": stage, **numbers}


def lines(svg):
    """Return the points of each line, in the order of drawing."""
    found = ET.fromstring(svg).iter(f"{SVG}polyline")
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in found
    ]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_line_goes_from_the_left_edge_to_the_right_and_up_to_one():
    history = [entry(dev_utterance_lcc=value) for value in (0.0, 0.5, 1.0)]
    ((first, middle, last),) = lines(draw_curves(history))
    bottom = 130.0  # of the frame that lies from y = 24 down to it
    assert first == (LEFT, bottom)
    assert middle == ((LEFT + WIDTH - RIGHT) / 2, (TOP + bottom) / 2)
    assert last == (WIDTH - RIGHT, TOP)


def test_what_is_beyond_the_frame_lies_at_its_edge():
    history = [entry(train_mos=1.7), entry(train_mos=-0.2)]
    ((first, last),) = lines(draw_curves(history))
    assert (first[1], last[1]) == (TOP, 130.0)


def test_an_undefined_number_is_left_out():
    history = [entry(dev_accuracy=0.5), entry(dev_accuracy=None), entry(), entry(dev_accuracy=0.5)]
    ((first, last),) = lines(draw_curves(history))
    assert (first[0], last[0]) == (LEFT, WIDTH - RIGHT)
    assert "held-out class accuracy" in texts(draw_curves(history))


def test_a_number_that_is_never_there_has_no_line_and_no_legend():
    svg = draw_curves([entry(dev_utterance_mse=0.5)])
    assert len(lines(svg)) == 1
    assert [text for text in texts(svg) if text.startswith("held-out")] == [
        "held-out utterance MSE"
    ]


def test_every_member_has_a_panel_below_the_one_before():
    history = [entry(member, train_mos=0.5) for member in (1, 0, 1, 2)]
    svg = draw_curves(history)
    assert re.findall(r"translate\(0 (\d+)\)", svg) == [str(HEIGHT * i) for i in range(3)]
    assert [text for text in texts(svg) if text.startswith("member")] == [
        "member 1",
        "member 2",
        "member 3",
    ]
    assert [len(line) for line in lines(svg)] == [1, 2, 1]
    assert f'viewBox="0 0 {WIDTH} {3 * HEIGHT}"' in svg


def test_a_stage_is_named_where_it_begins():
    stages = ["classes", "classes", "joint", "a < b & c"]
    svg = draw_curves([entry(stage=stage, train_mos=0.1) for stage in stages])
    names = [text for text in texts(svg) if text in stages]
    assert names == ["classes", "joint", "a < b & c"]


@pytest.mark.parametrize("history", [[], [entry()], [entry(dev_accuracy=0.5)]])
def test_little_to_draw_is_still_a_drawing(history):
    assert ET.fromstring(draw_curves(history)).tag == f"{SVG}svg"


def test_the_drawing_loads_nothing_from_elsewhere():
    svg = draw_curves([entry(train_mos=0.5)])
    assert "href" not in svg
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
