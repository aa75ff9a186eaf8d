"""Event simulation against a step-by-step simulation of single pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.simulate import DARK, EventSimulator, PixelNoise


def simulate(frames: np.ndarray, threshold: tuple[float, float] = (0.2, 0.3), **settings: Any) -> EventColumns:
    simulator = EventSimulator(np.random.default_rng(0), threshold, **settings)
    return EventColumns.join(*(simulator.feed(frame, 1000.0 * at) for at, frame in enumerate(frames)))


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
    with pytest.raises(ValueError, match="noise of pixels"):
        PixelNoise(leak=-1)
    with pytest.raises(ValueError, match="hot pixels at most 1"):
        PixelNoise(hot_pixels=1.5)


def per_pixel(events: EventColumns, shape: tuple[int, int]) -> np.ndarray:
    return np.bincount(events.y * shape[1] + events.x, minlength=shape[0] * shape[1]).reshape(shape)


def test_thresholds_of_pixels_differ() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (6, 3, 4)).astype(np.float32)
    noise = PixelNoise(threshold_sigma=0.1)
    on, off = noise.thresholds(np.random.default_rng(0), (0.2, 0.3), (3, 4))
    assert on.std() > 0.03 and min(on.min(), off.min()) >= 0.01
    events = simulate(frames, pixel_noise=noise)
    for y in range(3):
        for x in range(4):
            want = follow(frames[:, y, x], on[y, x], off[y, x])
            mine = events.take((events.x == x) & (events.y == y))
            assert mine.p.tolist() == [p for _, p in want]
            np.testing.assert_allclose(mine.t, [t for t, _ in want], atol=1e-2)


def test_leakage_and_hot_pixels_fire_at_their_rates() -> None:
    still = np.full((101, 20, 30), 80.0)  # 0.1 s
    events = simulate(still, pixel_noise=PixelNoise(leak=105.0))
    counts = per_pixel(events, (20, 30))
    assert events.p.all() and set(counts.ravel()) == {10, 11} and 10.3 < counts.mean() < 10.7
    for pixel in range(600):
        t = events.t[events.y * 30 + events.x == pixel]
        np.testing.assert_allclose(np.diff(t), 1e6 / 105, atol=1e-3)
    assert np.ptp(events.t[np.unique(events.y * 30 + events.x, return_index=True)[1]]) > 8000, "in no common phase"
    counts = per_pixel(simulate(still, pixel_noise=PixelNoise(hot_pixels=0.1, hot_rate=205.0)), (20, 30))
    assert set(counts.ravel()) == {0, 20, 21} and 30 < np.count_nonzero(counts) < 90
    # The drift of a pixel is undone by light that becomes darker.
    darker = np.exp(np.log(90.0) - np.arange(101) * 1e-3 * 100.0 * 0.2) - DARK
    fading = np.broadcast_to(darker[:, None, None], (101, 2, 2))
    assert len(simulate(fading)) and not len(simulate(fading, pixel_noise=PixelNoise(leak=100.0)))


def test_shot_noise_is_stronger_in_the_dark() -> None:
    still = np.zeros((11, 50, 100))  # 0.01 s
    still[:, :, 50:] = 255
    events = simulate(still, pixel_noise=PixelNoise(shot=200.0))
    dark, bright = (np.count_nonzero((events.x >= 50) == side) for side in (False, True))
    assert 4700 < dark < 5300 and 1100 < bright < 1400 and 0.47 < events.p.mean() < 0.53
    assert 4500 < np.median(events.t) < 5500 and (np.diff(events.t) >= 0).all()
    unequal = PixelNoise(threshold_sigma=0.05, shot=2000.0)
    on, off = unequal.thresholds(np.random.default_rng(0), (0.2, 0.3), (50, 100))
    noisy = simulate(still, pixel_noise=unequal)
    for p, want in ((1, 0.2 / on), (0, 0.3 / off)):
        expected = 10.0 * want[:, :50]  # 0.01 s
        counts = per_pixel(noisy.take(noisy.p == p), (50, 100))[:, :50]
        assert abs(np.mean((counts - expected) ** 2 / expected) - 1) < 0.15, "variance of a Poisson process"
    again = simulate(still, pixel_noise=PixelNoise(shot=200.0))
    assert all(np.array_equal(getattr(events, key), getattr(again, key)) for key in "xytp")


def test_all_events_respect_the_refractory_period() -> None:
    frames = np.random.default_rng(2).integers(0, 256, (12, 6, 7)).astype(np.float32)
    settings = {"noise": 300.0, "pixel_noise": PixelNoise(0.05, 50.0, 300.0, 0.1, 500.0)}
    every, rested = simulate(frames, **settings), simulate(frames, refractory=1500.0, **settings)
    fired: dict[tuple[int, int], float] = {}
    want = []
    for x, y, t, p in zip(*(getattr(every, key).tolist() for key in "xytp"), strict=True):
        if np.rint(t) - fired.get((x, y), -np.inf) >= 1500:
            fired[x, y] = np.rint(t)
            want.append((x, y, np.rint(t), p))
    assert list(zip(*(getattr(rested, key).tolist() for key in "xytp"), strict=True)) == want
    assert 50 < len(want) < len(every) / 2


def test_cutoff_frequency_is_that_of_a_pixel_by_pixel_filter() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (8, 3, 4)).astype(np.float32)
    events = simulate(frames, pixel_noise=PixelNoise(cutoff=100.0))
    for y in range(3):
        for x in range(4):
            values = frames[:, y, x].astype(np.float64)
            passed = [float(np.log(values[0] + DARK))]
            for value in values[1:]:
                share = min(2 * np.pi * 100.0 * 1e-3 * (value + 20) / 275, 1.0)
                passed.append((1 - share) * passed[-1] + share * float(np.log(value + DARK)))
            want = follow(np.exp(passed) - DARK, 0.2, 0.3)
            mine = events.take((events.x == x) & (events.y == y))
            assert mine.p.tolist() == [p for _, p in want]
            np.testing.assert_allclose(mine.t, [t for t, _ in want], atol=1e-2)
    assert 0 < len(events) < len(simulate(frames))
    unfiltered = simulate(frames, pixel_noise=PixelNoise(cutoff=1e6))
    assert all(np.array_equal(getattr(unfiltered, key), getattr(simulate(frames), key)) for key in "xytp")


def test_leak_jitter_is_that_of_a_frame_by_frame_drift() -> None:
    still, rate, jitter = np.full((101, 6, 7), 80.0), 300.0, 0.4
    events = simulate(still, pixel_noise=PixelNoise(leak=rate, leak_jitter=jitter))
    rng = np.random.default_rng(0)
    level = 0.2 * rng.random((6, 7))  # the random phase
    drifts = [np.zeros((6, 7))]
    for _ in range(100):
        drifts.append(drifts[-1] + rate * 0.2 * 1e-3 * (1 - jitter * rng.standard_normal((6, 7))))
    for y in range(6):
        for x in range(7):
            total = np.array([drift[y, x] for drift in drifts]) + level[y, x]
            mine = events.take((events.x == x) & (events.y == y))
            assert mine.p.all() and len(mine) == int(total.max() / 0.2 + 1e-9)
            np.testing.assert_allclose(
                np.interp(mine.t, np.arange(101) * 1e3, total), np.arange(1, len(mine) + 1) * 0.2
            )
    steady = simulate(still, pixel_noise=PixelNoise(leak=rate))
    assert (
        abs(len(events) / len(steady) - 1) < 0.1 and len(simulate(still, pixel_noise=PixelNoise(leak_jitter=1.0))) == 0
    )
