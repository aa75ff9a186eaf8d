"""Event samplers, time normalization and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.augment import EventAugment
from slowfast.datasets.dvs.sample import SAMPLERS, EventColumns, choose, get_sampler, normalize_time
from slowfast.errors import ConfigError

NAMES = [*SAMPLERS, "random_chunk_sample_1", "random_chunk_sample_16", "random_chunk_sample_500"]
SENSOR = (12, 16)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def events(n: int = 300, seed: int = 0) -> EventColumns:
    draw = rng(seed)
    x, y, p = (draw.integers(0, limit, n) for limit in (16, 12, 2))
    return EventColumns(x, y, np.sort(draw.uniform(100, 5000, n)), p)


class TestSamplers:
    @settings(deadline=None, max_examples=60)
    @given(name=st.sampled_from(NAMES), n=st.integers(1, 400), share=st.floats(0.01, 1), seed=st.integers(0, 99))
    def test_samples_are_ascending_and_reproducible(self, name: str, n: int, share: float, seed: int) -> None:
        k = max(1, int(n * share))
        rows = get_sampler(name)(n, k, rng(seed))
        assert rows.shape == (k,) and rows.dtype == np.int64
        assert rows[0] >= 0 and rows[-1] < n and (np.diff(rows) >= 0).all()
        assert np.array_equal(rows, get_sampler(name)(n, k, rng(seed)))

    def test_random_samples_are_distinct(self) -> None:
        assert (np.diff(get_sampler("random_sample")(100, 90, rng())) > 0).all()
        many = np.concatenate([get_sampler("random_sample")(100, 10, rng(seed)) for seed in range(300)])
        assert np.bincount(many, minlength=100).min() > 10  # 30 each on average

    def test_chunks_are_consecutive(self) -> None:
        rows = get_sampler("random_chunk_sample_8")(10_000, 32, rng())
        assert (np.diff(rows.reshape(4, 8)) == 1).all()

    def test_deterministic_samples_are_evenly_spaced(self) -> None:
        assert get_sampler("deterministic_uniform_sample")(101, 5, rng()).tolist() == [0, 25, 50, 75, 100]

    def test_gaussians(self) -> None:
        one = get_sampler("gaussian_sample")(10_000, 3000, rng())
        assert abs(one.mean() - 5000) < 200 and abs(one.std() - 2400) < 200  # clipping makes it slightly less than 2500
        each = get_sampler("multivariate_gaussian_sample")(10_000, 100, rng())
        assert np.abs(each - np.arange(100) * 100).max() < 130

    def test_all_events_are_used_if_there_are_few(self) -> None:
        for k in (0, 10, 11):
            assert choose(get_sampler("uniform_sample"), 10, k, rng()) == slice(None)
        assert len(choose(get_sampler("uniform_sample"), 10, 9, rng())) == 9

    @pytest.mark.parametrize("name", ["random", "random_chunk_sample", "random_chunk_sample_0"])
    def test_unknown_names(self, name: str) -> None:
        with pytest.raises(ConfigError, match="DVS.SAMPLER.*random_chunk_sample_n"):
            get_sampler(name)


def test_time_normalization() -> None:
    t = np.array([100.0, 150.0, 300.0])
    for norm, want in (("none", [0, 50, 200]), ("sample", [0, 0.25, 1]), ("dataset", [0, 0.125, 0.5])):
        found = normalize_time(t, norm, 400.0)
        assert found.dtype == np.float32 and found.tolist() == want
    assert normalize_time(np.array([7.0, 7.0]), "sample", 0.0).tolist() == [0, 0]


class TestAugmentation:
    def changed(self, before: EventColumns | None = None, seed: int = 0, **settings: object) -> EventColumns:
        return EventAugment(SENSOR, prob=1.0, **settings)(before or events(), rng(seed))

    def test_flips(self) -> None:
        before = events()
        assert np.array_equal(self.changed(flip_x=True).x, 15 - before.x)
        assert np.array_equal(self.changed(flip_y=True).y, 11 - before.y)
        assert np.array_equal(self.changed(flip_polarity=True).p, 1 - before.p)

    def test_translation_drops_events_that_leave(self) -> None:
        before, after = events(), self.changed(translate=3, seed=2)
        place = {t: i for i, t in enumerate(before.t)}
        old = before.take(np.array([place[t] for t in after.t]))
        shifts = {(int(dx), int(dy)) for dx, dy in zip(after.x - old.x, after.y - old.y, strict=True)}
        assert len(shifts) == 1 and shifts != {(0, 0)}
        (dx, dy) = shifts.pop()
        inside = (before.x + dx >= 0) & (before.x + dx < 16) & (before.y + dy >= 0) & (before.y + dy < 12)
        assert len(after) == inside.sum() < len(before)

    def test_rotation_keeps_distances_from_the_center(self) -> None:
        before = events()
        near = before.take(np.hypot(before.x - 7.5, before.y - 5.5) < 5)
        after = self.changed(near, rotate=90.0)
        assert len(after) == len(near)
        distances = [np.hypot(e.x - 7.5, e.y - 5.5) for e in (near, after)]
        assert np.abs(distances[0] - distances[1]).max() < 0.75
        assert not np.array_equal(near.x, after.x)

    def test_scale_and_shear(self) -> None:
        smaller = self.changed(scale=(0.5, 0.5))
        assert smaller.x.min() >= 3 and smaller.x.max() <= 12 and len(smaller) == 300
        leaning = self.changed(shear=0.5, seed=1)
        assert not np.array_equal(leaning.x, events().x[: len(leaning)]) and set(leaning.y) <= set(range(12))

    def test_time_jitter_keeps_events_sorted(self) -> None:
        after = self.changed(time_jitter=0.05)
        assert (np.diff(after.t) >= 0).all() and not np.array_equal(after.t, events().t)

    def test_drop_noise_erase(self) -> None:
        assert 0.4 * 300 < len(self.changed(drop=0.5)) < 300
        noisy = self.changed(noise=0.5)
        assert 300 < len(noisy) <= 450 and (np.diff(noisy.t) >= 0).all() and set(events().t) <= set(noisy.t)
        erased = self.changed(erase=6)
        lost = sorted(set(events().t) - set(erased.t))
        gone = events().take(np.isin(events().t, lost))
        assert lost and np.ptp(gone.x) < 6 and np.ptp(gone.y) < 6

    def test_disabled_augmentation_changes_nothing(self) -> None:
        assert all(np.array_equal(getattr(self.changed(), key), getattr(events(), key)) for key in "xytp")
        never = EventAugment(SENSOR, prob=0.0, flip_x=True, rotate=30.0, drop=0.5, noise=0.5, erase=5, translate=4)
        assert all(np.array_equal(getattr(never(events(), rng()), key), getattr(events(), key)) for key in "xytp")

    @settings(deadline=None, max_examples=40)
    @given(n=st.integers(1, 40), seed=st.integers(0, 999))
    def test_all_transforms_keep_sorted_events_on_the_sensor(self, n: int, seed: int) -> None:
        all_on = {"flip_x": True, "flip_y": True, "flip_polarity": True, "translate": 20, "rotate": 90.0}
        all_on |= {"shear": 0.5, "scale": (0.2, 3.0), "time_jitter": 0.2, "drop": 0.9, "noise": 0.9, "erase": 12}
        after = self.changed(events(n, seed), seed, **all_on)
        assert len(after) >= 1 and (np.diff(after.t) >= 0).all()
        assert (after.x >= 0).all() and (after.x < 16).all() and (after.y >= 0).all() and (after.y < 12).all()
        assert set(after.p) <= {0, 1}
        again = self.changed(events(n, seed), seed, **all_on)
        assert all(np.array_equal(getattr(after, key), getattr(again, key)) for key in "xytp")
