from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_data.motion import MOTIONS, Path
from demo_data.scene import PATCH, paint, render_clip


def render(name: str, seed: int = 0, frames: int = 5) -> np.ndarray:
    return render_clip(MOTIONS[name], frames, 48, 56, np.random.default_rng(seed))


def test_clip_is_what_it_says_and_repeats():
    clip = render("left")
    assert clip.shape == (5, 48, 56, 3) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, render("left"))
    assert (clip != render("left", seed=1)).any()


@pytest.mark.parametrize("name", MOTIONS)
def test_first_frame_is_the_same_in_every_class_and_the_next_is_not(name):
    clip, left = render(name), render("left")
    np.testing.assert_array_equal(clip[0], left[0])
    assert name == "left" or (clip[1] != left[1]).any()


@settings(max_examples=30, deadline=None)
@given(
    y=st.integers(0, 47), x=st.integers(0, 55), dy=st.integers(0, 47), dx=st.integers(0, 55),
    radius=st.floats(6.0, 16.0), angle=st.floats(0.0, 6.3),
)  # fmt: skip
def test_what_leaves_one_side_comes_back_on_the_other(y, x, dy, dx, radius, angle):
    patch = np.zeros((PATCH, PATCH, 4), np.float32)
    patch[8:-8, 20:-12] = (200.0, 10.0, 90.0, 1.0)

    def painted(center: tuple[int, int]) -> np.ndarray:
        canvas = np.zeros((48, 56, 3), np.float32)
        paint(canvas, patch, Path(np.array([center], float), np.array([radius]), np.array([angle])), 0)
        return canvas

    here, there = painted((y, x)), painted(((y + dy) % 48, (x + dx) % 56))
    assert here.max() > 190
    np.testing.assert_allclose(np.roll(here, (dy, dx), axis=(0, 1)), there, atol=4.0)  # of 255: fixed-point warps


def test_a_growing_angle_turns_clockwise_on_the_screen():
    patch = np.zeros((PATCH, PATCH, 4), np.float32)
    patch[28:36, 44:60] = (200.0, 200.0, 200.0, 1.0)  # a spot right of the middle
    for angle, place in ((0.0, (24, 41)), (np.pi / 2, (37, 28)), (np.pi, (24, 15)), (1.5 * np.pi, (11, 28))):
        canvas = np.zeros((48, 56, 3), np.float32)
        paint(canvas, patch, Path(np.array([[24.0, 28.0]]), np.array([17.0]), np.array([angle])), 0)
        bright = np.argwhere(canvas[:, :, 0] > 100).mean(axis=0)  # y, x: right, then below, left, above
        np.testing.assert_allclose(bright, place, atol=2.0)
