"""Demo motions: no single frame reveals the class, and reversed time gives the opposite class."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from demo_data.motion import MOTIONS, RADIUS, Path, draw_path

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
