"""The model card: what a reader has to know stands in it."""

import pytest
from small_model import small_record

from voxpanel.model.calibration import Calibration
from voxpanel.model.card import write_card


def metric(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


LEVEL = {
    "n": 120,
    "mse": metric(0.25, 0.2, 0.3),
    "lcc": metric(0.875, 0.8, 0.9),
    "srcc": metric(0.5),
    "ktau": metric(None),
}


def test_a_card_says_name_version_data_classes_and_limits():
    record = small_record(training={"ratings": "A corpus, CC BY 4.0", "clips": 12})
    card = write_card(record, preface="What it is for.", limits="Not for music.")
    assert card.startswith("# small 0.1\n\nWhat it is for.\n\n")
    assert "- ratings: A corpus, CC BY 4.0\n- clips: 12\n" in card
    assert "## Classes\n\nnatural, robot, non-speech\n" in card
    assert card.endswith("## Limits\n\nNot for music.\n")


def test_without_preface_and_limits_there_is_a_card_all_the_same():
    card = write_card(small_record(synthesizers=()))
    assert "it predicts how people would rate speech, on a scale of 1-5." in card
    assert "## Limits" not in card
    assert card.endswith("## Classes\n\nnone\n")


def test_accuracy_is_a_row_a_level_with_counts_and_intervals():
    measured = {"systems unseen": {"utterance": LEVEL, "system": {**LEVEL, "n": 8}}}
    lines = write_card(small_record(measured=measured)).splitlines()
    rows = [line for line in lines if line.startswith("| systems unseen")]
    numbers = "0.250 (0.200 to 0.300) | 0.875 (0.800 to 0.900) | 0.500 | undefined |"
    assert rows == [
        f"| systems unseen | utterance | 120 | {numbers}",
        f"| systems unseen | system | 8 | {numbers}",
    ]


def test_a_level_that_was_not_measured_has_no_row():
    measured = {"held out": {"utterance": LEVEL}, "note": "by sentence"}
    lines = write_card(small_record(measured=measured)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows[:2] == [
        "| clips | level | n | MSE | LCC | SRCC | KTAU |",
        "|---|---|---|---|---|---|---|",
    ]
    assert len(rows) == 3
    assert {row.count("|") for row in rows} == {8}


@pytest.mark.parametrize(("coverage", "said"), [(0.9375, "93.8%"), (None, "not measured")])
def test_the_interval_is_told_with_its_basis_and_coverage(coverage, said):
    calibration = Calibration(0.6251, 480, coverage, "of systems unseen")
    card = " ".join(write_card(small_record(calibration=calibration)).split())
    assert "lie 0.63 MOS from the score: 95 % of the 480 clips of systems unseen" in card
    assert f"set without a clip's own group: {said}." in card
