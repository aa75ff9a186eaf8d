"""Event simulation against a step-by-step simulation of single pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.simulate import DARK, EventSimulator, join_events


def simulate(frames: np.ndarray, threshold: tuple[float, float] = (0.2, 0.3), **settings: float) -> EventColumns:
    simulator = EventSimulator(np.random.default_rng(0), threshold, **settings)
    return join_events([simulator.feed(frame, 1000.0 * at) for at, frame in enumerate(frames)])


def follow(values: np.ndarray, on: float, off: float) -> list[tuple[float, int]]:
    """Simulate one pixel step by step; return times and polarities."""
    logs = np.log(values.astype(np.float64) + DARK)
    level, fired = logs[0], []
    for at in range(1, len(logs)):
        before, now = logs[at - 1], logs[at]
        while now - level >= on - 1e-9 or level - now >= off - 1e-9:
            brighter = now > level
            level += on if brighter else -off
            fired.append((1000.0 * (at - 1 + np.clip((level - before) / (now - before), 0, 1)), int(brighter)))
    return fired


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.integers(0, 255), min_size=2, max_size=8))
def test_pixel_equals_a_step_by_step_simulation(values: list[int]) -> None:
    frames = np.full((len(values), 3, 4), 100.0)
    frames[:, 1, 2] = values
    events = simulate(frames)
    want = follow(frames[:, 1, 2].astype(np.float32), 0.2, 0.3)
    assert set(zip(events.x.tolist(), events.y.tolist(), strict=True)) <= {(2, 1)}
    assert events.p.tolist() == [p for _, p in want]
    np.testing.assert_allclose(events.t, [t for t, _ in want], atol=1e-2)


def test_colors_are_weighted_by_luma() -> None:
    dark, green, blue = np.zeros((2, 2, 3)), np.full((2, 2, 3), (0, 200, 0)), np.full((2, 2, 3), (0, 0, 200))
    assert len(simulate(np.stack([dark, green]))) > len(simulate(np.stack([dark, blue]))) > 0


def test_refractory_time_and_noise() -> None:
    step = np.stack([np.zeros((4, 4)), np.full((4, 4), 255.0)])
    every = simulate(step)
    rested = simulate(step, refractory=300.0)
    assert 0 < len(rested) < len(every)
    for pixel in range(16):
        t = rested.t[rested.y * 4 + rested.x == pixel]
        assert (np.diff(t) >= 300).all()
    still = np.full((11, 50, 50), 80.0)
    assert len(simulate(still)) == 0
    noisy = simulate(still, noise=20.0)
    assert 350 < len(noisy) < 650 and (np.diff(noisy.t) >= 0).all()  # 2500 pixels x 0.01 s x 20


def test_invalid_values() -> None:
    for settings_ in ({"threshold": (0.0, 0.1)}, {"refractory": -1.0}, {"noise": -1.0}):
        with pytest.raises(ValueError, match="thresholds"):
            EventSimulator(np.random.default_rng(0), **settings_)
    simulator = EventSimulator(np.random.default_rng(0))
    simulator.feed(np.zeros((2, 2)), 5.0)
    with pytest.raises(ValueError, match="ascending order of time"):
        simulator.feed(np.zeros((2, 2)), 5.0)
