"""Every scale's way to 1-5."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxpanel.errors import DataError
from voxpanel.scales import SCALES, check_scale, read_score


@pytest.mark.parametrize("scale", SCALES)
def test_the_ends_and_the_middle_of_a_scale_are_1_5_and_3(scale):
    low, high = SCALES[scale]
    ends = [read_score(str(score), scale) for score in (low, (low + high) / 2, high)]
    assert ends == [1.0, 3.0, 5.0]


@given(st.floats(1, 5))
def test_a_score_from_1_to_5_stays_exactly_as_it_is(score):
    assert read_score(repr(score), "1-5") == score


@pytest.mark.parametrize(
    ("cell", "scale", "message"),
    [
        ("7.0", "1-5", r"is 7\.0; the scale 1-5 allows 1 to 5 \(give column 'scale'"),
        ("0", "1-7", "the scale 1-7 allows 1 to 7"),
        ("-1", "0-100", "the scale 0-100 allows 0 to 100"),
        ("inf", "0-100", "is inf; the scale"),
        ("nan", "1-5", "is NaN; leave the cell empty"),
        ("3,5", "1-5", "is '3,5', not a number; write one such as 3.5"),
    ],
)
def test_what_is_not_on_the_scale_is_refused(cell, scale, message):
    with pytest.raises(DataError, match=message):
        read_score(cell, scale)


def test_an_unknown_scale_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="is '0-10', not a scale known here; use 1-5, 0-100, 1-7"):
        check_scale("0-10")
