"""Demo clips: no single frame reveals the motion, reversed time gives the opposite class; rendering of objects."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_data.scene import MOTIONS, PATCH, RADIUS, Path, draw_path, paint, render_clip

HEIGHT, WIDTH, FRAMES, DRAWS = 96, 112, 48, 1500
OPPOSITES = [("left", "right"), ("up", "down"), ("clockwise", "counter-clockwise"), ("nearer", "farther")]
# Kolmogorov-Smirnov distance that equal distributions pass once in some 8000 cases.
LIMIT = 2.2


@pytest.fixture(scope="module")
def paths() -> dict[str, list[Path]]:
    return {
        name: [
            draw_path(motion, FRAMES, HEIGHT, WIDTH, np.random.default_rng([label, number])) for number in range(DRAWS)
        ]
        for label, (name, motion) in enumerate(MOTIONS.items())
    }


def unit_state(path: Path, t: int) -> np.ndarray:
    """Center, angle and size (log scale) in frame t, each as a fraction of its range."""
    size = np.log(path.radius[t] / (RADIUS[0] * HEIGHT)) / np.log(RADIUS[1] / RADIUS[0])
    return np.array([path.center[t, 0] / HEIGHT, path.center[t, 1] / WIDTH, path.angle[t] / (2 * np.pi) % 1.0, size])


def distance_to_uniform(values: np.ndarray) -> float:
    values = np.sort(values)
    steps = np.arange(len(values) + 1) / len(values)
    return float(max(np.max(steps[1:] - values), np.max(values - steps[:-1])))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    places = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (one, other)]
    return float(np.max(np.abs(below[0] - below[1])))


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("t", [0, FRAMES // 2, FRAMES - 1])
def test_a_frame_looks_the_same_in_every_class(paths, name, t):
    states = np.array([unit_state(path, t) for path in paths[name]])
    for column in states.T:
        assert distance_to_uniform(column) < LIMIT / np.sqrt(DRAWS)
    for one, other in itertools.combinations(states.T, 2):  # and the four are independent of each other
        assert distance_to_uniform((one + other) % 1.0) < LIMIT / np.sqrt(DRAWS)
        assert distance_to_uniform((one - other) % 1.0) < LIMIT / np.sqrt(DRAWS)


def steps_of(center: np.ndarray) -> np.ndarray:
    """Displacement from frame to frame, the shorter one around the edge: (T - 1, 2)."""
    size = np.array([HEIGHT, WIDTH])
    return (np.diff(center, axis=0) + size / 2) % size - size / 2


def features(path: Path, reverse: bool) -> np.ndarray:
    """Start and displacements of a path or its reverse: features that distinguish the classes, and the start."""
    order = slice(None, None, -1) if reverse else slice(None)
    center, radius, angle = path.center[order], path.radius[order], path.angle[order]
    steps = steps_of(center)
    return np.array([*center[0], radius[0], *steps[0], *steps[-1], *np.diff(radius)[[0, -1]], angle[1] - angle[0]])


@pytest.mark.parametrize(("name", "opposite"), OPPOSITES)
def test_reversed_clips_are_the_opposite_class(paths, name, opposite):
    backwards = np.array([features(path, reverse=True) for path in paths[name]])
    forwards = np.array([features(path, reverse=False) for path in paths[opposite]])
    for one, other in zip(backwards.T, forwards.T, strict=True):
        # rounded: steps that are 0 but for rounding are equal
        assert distance(one.round(6), other.round(6)) < LIMIT * np.sqrt(2 / DRAWS)
    itself = np.array([features(path, reverse=False) for path in paths[name]])
    differences = [distance(a.round(6), b.round(6)) for a, b in zip(backwards.T, itself.T, strict=True)]
    assert max(differences) > 0.9  # the features do distinguish the class from its opposite


def test_names_mean_what_they_say(paths):
    steps = {name: steps_of(some[0].center) for name, some in paths.items()}
    turns = {name: np.diff(some[0].angle) for name, some in paths.items()}
    grown = {name: np.diff(some[0].radius) for name, some in paths.items()}
    assert (steps["left"][:, 1] < 0).all() and (steps["right"][:, 1] > 0).all()
    assert (steps["up"][:, 0] < 0).all() and (steps["down"][:, 0] > 0).all()
    assert (turns["clockwise"] > 0).all() and (turns["counter-clockwise"] < 0).all()
    # all but the steps at which the size wraps around to the other end of its range
    assert (grown["nearer"] > 0).mean() > 0.9 and (grown["farther"] < 0).mean() > 0.9


def test_paths_stay_in_the_frame_and_the_size_range(paths):
    for path in itertools.chain.from_iterable(paths.values()):
        assert (path.center >= 0).all() and (path.center < (HEIGHT, WIDTH)).all()
        assert (path.radius >= RADIUS[0] * HEIGHT - 1e-9).all() and (path.radius <= RADIUS[1] * HEIGHT + 1e-9).all()


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
