"""Frames and crops of views: published formulas one value at a time, and invariants for any sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets import sampling

LENGTHS = st.integers(1, 500)
SIDES = st.integers(1, 400)
SEEDS = st.integers(0, 2**32 - 1)


def assert_valid(indices: np.ndarray, n: int) -> None:
    assert indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() <= n - 1
    assert (np.diff(indices, axis=-1) >= 0).all()


# ------------------------------------------------------------------ Kinetics style
def test_clip_span() -> None:
    assert sampling.clip_span(16, 4, 30, 30.0) == 64
    assert sampling.clip_span(16, 4, 30, 15.0) == 32


def test_published_steps_of_four_and_five() -> None:
    steps = np.diff(sampling.span_indices(300, 0.0, 64.0, 16))
    assert set(steps) == {4, 5} and steps.sum() == 63


@given(n=LENGTHS, start=st.floats(0, 600), span=st.floats(1, 300), frames=st.integers(2, 32))
def test_span_indices_follow_the_formula(n: int, start: float, span: float, frames: int) -> None:
    indices = sampling.span_indices(n, start, span, frames)
    assert_valid(indices, n)
    for i, index in enumerate(indices):
        position = start + (span - 1) * i / (frames - 1)
        allowed = {min(max(math.floor(position + noise), 0), n - 1) for noise in (-1e-6, 1e-6)}
        assert index in allowed


@given(n=LENGTHS, span=st.floats(0.5, 300), frames=st.integers(1, 32), seed=SEEDS)
def test_span_train_stays_in_the_medium(n: int, span: float, frames: int, seed: int) -> None:
    indices = sampling.span_train(n, span, frames, np.random.default_rng(seed))
    assert indices.shape == (frames,)
    assert_valid(indices, n)
    if n > span:  # the clip spans at most its own length
        assert indices[-1] <= math.ceil(indices[0] + span)


def test_span_train_covers_all_starts() -> None:
    rng = np.random.default_rng(0)
    starts = {int(sampling.span_train(20, 10.0, 4, rng)[0]) for _ in range(500)}
    assert starts == set(range(10))


@given(
    n=LENGTHS,
    span=st.floats(1, 100),
    frames=st.integers(1, 32),
    views=st.integers(1, 10),
    offset=st.booleans(),
)
def test_span_views_follow_the_formula(n: int, span: float, frames: int, views: int, offset: bool) -> None:
    indices = sampling.span_views(n, span, frames, views, offset)
    assert indices.shape == (views, frames)
    assert_valid(indices, n)
    delta = max(n - span, 0)
    for view in range(views):
        if not offset:
            start = delta * view / views
        elif views == 1:
            start = math.floor(delta / 2)
        else:
            start = view * math.floor(delta / (views - 1))
        assert np.array_equal(indices[view], sampling.span_indices(n, start, span, frames))
    if delta >= views:
        assert len({tuple(row) for row in indices}) == views


def test_a_span_below_one_frame_repeats_it() -> None:
    assert list(sampling.span_indices(9, 3.0, 0.4, 4)) == [3] * 4


def test_a_clip_longer_than_the_video_repeats_its_last_frame() -> None:
    views = sampling.span_views(5, 64.0, 16, 3, True)
    assert (views == views[0]).all()
    assert list(views[0]) == [0, 4] + [4] * 14


# ------------------------------------------------------------------ Something style
@given(n=LENGTHS, frames=st.integers(1, 40), seed=SEEDS)
def test_segment_train_takes_one_frame_of_each_segment(n: int, frames: int, seed: int) -> None:
    indices = sampling.segment_train(n, frames, np.random.default_rng(seed))
    assert indices.shape == (frames,)
    assert_valid(indices, n)
    segment = (n - 1) / frames
    for i, index in enumerate(indices):
        assert round(segment * i) <= index <= round(segment * (i + 1))


def test_segment_train_reaches_both_ends_of_a_segment() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([sampling.segment_train(9, 2, rng) for _ in range(200)])
    assert set(draws[:, 0]) == set(range(5)) and set(draws[:, 1]) == set(range(4, 9))


@given(n=LENGTHS, frames=st.integers(1, 40), views=st.integers(1, 6))
def test_segment_views_follow_the_formula(n: int, frames: int, views: int) -> None:
    indices = sampling.segment_views(n, frames, views)
    assert indices.shape == (views, frames)
    assert_valid(indices, n)
    segment = (n - 1) / frames
    for view in range(views):
        expected = [round(segment * i) + math.floor(segment / (views + 1) * (view + 1)) for i in range(frames)]
        assert list(indices[view]) == expected
    if segment >= views + 1:
        assert len({tuple(row) for row in indices}) == views


def test_frame_order() -> None:
    rows = np.array([3, 5, 5, 8, 9])
    assert np.array_equal(sampling.frame_order(rows, "normal", np.random.default_rng(0)), rows)
    assert list(sampling.frame_order(rows, "repeated", np.random.default_rng(0))) == [5] * 5
    shuffled = [sampling.frame_order(rows, "shuffled", np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert sorted(shuffled[0]) == list(rows)
    assert np.array_equal(shuffled[0], shuffled[1]) and not np.array_equal(shuffled[0], shuffled[2])
    assert list(rows) == [3, 5, 5, 8, 9]
    with pytest.raises(ValueError, match="normal, repeated, shuffled"):
        sampling.frame_order(rows, "reversed", np.random.default_rng(0))


# ------------------------------------------------------------------ spatial views
@given(height=SIDES, width=SIDES, seed=SEEDS, low=st.floats(0.05, 1.0), ratio=st.floats(1.0, 3.0))
def test_random_resized_crop_lies_inside(height: int, width: int, seed: int, low: float, ratio: float) -> None:
    crop = sampling.random_resized_crop(height, width, (low, 1.0), (1 / ratio, ratio), np.random.default_rng(seed))
    assert crop.height >= 1 and crop.width >= 1
    assert 0 <= crop.top <= height - crop.height and 0 <= crop.left <= width - crop.width
    assert all(value == int(value) for value in (crop.top, crop.left, crop.height, crop.width))


def test_random_resized_crop_covers_the_ranges() -> None:
    rng = np.random.default_rng(0)
    crops = [sampling.random_resized_crop(256, 340, (0.08, 1.0), (0.75, 4 / 3), rng) for _ in range(2000)]
    shares = np.array([crop.height * crop.width / (256 * 340) for crop in crops])
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert 0.078 < shares.min() < 0.1 and shares.max() > 0.95
    assert 0.74 < ratios.min() < 0.77 and 1.31 < ratios.max() < 1.35
    assert abs(np.log(ratios).mean()) < 0.05  # large wide crops fit this frame more often


@pytest.mark.parametrize(("height", "width", "expected"), [(20, 300, (0, 137, 20, 27)), (300, 30, (130, 0, 40, 30))])
def test_random_resized_crop_falls_back_to_the_centre(height: int, width: int, expected: tuple[int, ...]) -> None:
    crop = sampling.random_resized_crop(height, width, (1.0, 1.0), (0.75, 4 / 3), np.random.default_rng(0))
    assert (crop.top, crop.left, crop.height, crop.width) == pytest.approx(expected, abs=1)


@given(height=SIDES, width=SIDES, seed=SEEDS)
def test_jittered_crop_lies_inside(height: int, width: int, seed: int) -> None:
    crop = sampling.jittered_crop(height, width, (256, 320), 224, np.random.default_rng(seed))
    assert crop.height == crop.width >= 1
    assert 0 <= crop.top <= height - crop.height and 0 <= crop.left <= width - crop.width
    short = min(height, width)
    assert 224 / 320 * short - 1 <= crop.height <= 224 / 256 * short + 1


@given(height=SIDES, width=SIDES, short=st.integers(16, 320))
def test_scaled_size(height: int, width: int, short: int) -> None:
    h, w = sampling.scaled_size(height, width, short)
    assert min(h, w) == short
    assert max(h, w) == math.floor(max(height, width) * short / min(height, width))


def test_view_corners() -> None:
    assert sampling.view_corners(256, 341, 224, 1) == [(16, 59)]  # odd remainders go to the start
    assert sampling.view_corners(224, 300, 224, 3) == [(0, 0), (0, 38), (0, 76)]
    assert sampling.view_corners(300, 224, 224, 3) == [(0, 0), (38, 0), (76, 0)]
    assert sampling.view_corners(224, 224, 224, 3) == [(0, 0)] * 3


def test_a_single_crop_can_be_the_left_one() -> None:
    assert sampling.view_corners(224, 300, 224, 1, single="left") == [(0, 0)]
    assert sampling.view_corners(300, 224, 224, 1, single="left") == [(0, 0)]
    assert sampling.view_corners(256, 341, 224, 1, single="left") == [(16, 0)]
    assert sampling.view_corners(224, 300, 224, 3, single="left") == [(0, 0), (0, 38), (0, 76)]
