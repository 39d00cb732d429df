"""What all encoders share: masks and the cutting of long clips."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxpanel.features.backbone import Backbone, equal_parts, frame_mask


@given(st.integers(1, 100_000), st.integers(1, 2_000))
def test_parts_cover_the_whole_and_differ_by_at_most_one(n, n_most):
    parts = equal_parts(n, n_most)
    assert sum(parts) == n
    assert max(parts) <= n_most
    assert max(parts) - min(parts) <= 1
    assert len(parts) == math.ceil(n / n_most)


def test_a_mask_marks_as_many_frames_as_a_clip_has():
    n_frames = torch.tensor([0, 2, 5])
    assert frame_mask(n_frames, 5).sum(dim=1).tolist() == [0, 2, 5]
    assert frame_mask(n_frames, 5)[1].tolist() == [True, True, False, False, False]


def test_an_encoder_without_a_forward_says_so():
    with pytest.raises(NotImplementedError, match="Backbone has no forward"):
        Backbone()(torch.zeros(1, 400), torch.tensor([400]))
