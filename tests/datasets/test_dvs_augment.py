"""Augmentation of events, by sample and by whole batches: published formulas, switches per batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from event_files import SENSOR, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.augment import BatchAugment, EventAugment, chunk_mask
from slowfast.datasets.dvs.dataset import EventSampling, RecordingTrainDataset
from slowfast.datasets.dvs.index import read_event_index
from slowfast.datasets.dvs.recording import Opening
from slowfast.datasets.dvs.sample import EventColumns

H, W = 32, 48


def events(n: int = 400, seed: int = 0) -> EventColumns:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n) for limit in (W, H, 2))
    return EventColumns(x, y, np.sort(rng.uniform(0, 1e5, n)), p)


def augmented(seed: int = 0, batch: int = 0, **settings: object) -> tuple[EventColumns, EventColumns, np.ndarray]:
    before = events()
    augment = BatchAugment((H, W), 0, **{"prob": 1.0, **settings})
    return before, *augment(before, np.random.default_rng(batch), np.random.default_rng(seed))


@pytest.mark.parametrize(
    "settings",
    [{"scale": (0.8, 1.2)}, {"rotate": 20.0}, {"shear": 0.2}, {"translate": 5}, {"flip_x": True}],
    ids=lambda settings: next(iter(settings)),
)
def test_moves_are_affine_and_what_leaves_the_sensor_is_invalid(settings: dict) -> None:
    """Least squares recover the published matrix of each transform from the moved events."""
    before, after, valid = augmented(**settings)
    assert len(after) == len(before) and np.array_equal(after.t, before.t) and np.array_equal(after.p, before.p)
    assert np.array_equal(valid, (after.x >= 0) & (after.x < W) & (after.y >= 0) & (after.y < H))
    inputs = np.stack([before.x, before.y, np.ones(len(before))], 1)
    (matrix, residual, *_) = np.linalg.lstsq(inputs, np.stack([after.x, after.y], 1), rcond=None)
    assert np.abs(inputs @ matrix - np.stack([after.x, after.y], 1)).max() < 1.2, "rounding only"
    (xx, yx), (xy, yy), (x0, y0) = matrix
    if "scale" in settings:
        assert 0.79 < xx < 1.21 and 0.79 < yy < 1.21 and abs(xx - yy) > 1e-3 and max(abs(x0), abs(y0)) < 0.5
    elif "shear" in settings:
        assert abs(xx - 1) < 0.01 and abs(yy - 1) < 0.01 and abs(xy - yx) > 1e-3 and max(abs(x0), abs(y0)) < 0.5
    elif "rotate" in settings:
        assert abs(xx * yy - xy * yx - 1) < 0.02 and abs(xy + yx) < 0.02
        center = np.array([(W - 1) / 2, (H - 1) / 2, 1]) @ matrix
        assert np.allclose(center, [(W - 1) / 2, (H - 1) / 2], atol=0.1)
    elif "translate" in settings:
        assert np.allclose([xx, yy, xy, yx], [1, 1, 0, 0], atol=1e-6) and np.abs([x0, y0]).max() <= 5
    else:
        assert np.array_equal(after.x, before.x) or np.array_equal(after.x, W - 1 - before.x)


def test_erased_rectangles() -> None:
    kept = []
    for seed in range(40):
        before, after, valid = augmented(seed, erase=16, erase_prob=0.5)
        assert np.array_equal(after.x, before.x)
        x, y = before.x[~valid], before.y[~valid]
        if len(x):
            inside = (before.x >= x.min()) & (before.x <= x.max()) & (before.y >= y.min()) & (before.y <= y.max())
            assert np.array_equal(inside, ~valid) and np.ptp(x) <= 16 and np.ptp(y) <= 16
        kept.append(valid.all())
    assert 10 < sum(kept) < 32


def test_chunks_are_consecutive_and_shorter_with_padding() -> None:
    for seed in range(30):
        full = chunk_mask(1000, 1000, 1000, (1, 100), np.random.default_rng(seed))
        places = np.flatnonzero(full)
        assert len(places) <= 100 and (np.diff(places) == 1).all()
        short = chunk_mask(250, 250, 1000, (1, 100), np.random.default_rng(seed))
        assert short.sum() <= 25
    _, _, valid = augmented(chunks=(4, 20))
    assert 0 < (~valid).sum() <= 80


def test_warped_chunks_scale_the_times_of_their_events() -> None:
    before, after, valid = augmented(warped=(3, 50), warp_scale=(0.5, 0.9))
    factors = (after.t - before.t[0]) / np.maximum(before.t - before.t[0], 1e-9)
    changed = np.flatnonzero(after.t != before.t)
    assert valid.all() and np.array_equal(after.x, before.x) and 0 < len(changed) <= 150
    assert (factors[changed] >= 0.5).all() and (factors[changed] <= 0.9).all() and np.ptp(factors[changed]) > 0.1
    assert np.count_nonzero(np.diff(changed) > 1) <= 2, "at most three chunks"
    # Chunks of a sample with padding are as long.
    own = np.random.default_rng(np.random.default_rng(0).integers(2**63, size=2))
    lengths, starts = own.integers(1, 50, 3, endpoint=True), own.integers(0, 400, 3)
    inside = {place for start, length in zip(starts, lengths, strict=True) for place in range(start, start + length)}
    assert set(changed.tolist()) | {0} >= {place for place in inside if place < 400} - {0}


def test_switches_belong_to_the_batch_and_numbers_to_the_recording() -> None:
    settings = {"prob": 0.5, "translate": 6, "rotate": 30.0}
    for batch in range(8):
        changed = {
            bool((after.x != before.x).any())
            for before, after, _ in (augmented(s, batch, **settings) for s in range(5))
        }
        assert len(changed) == 1
    first, second = (augmented(seed, 3, translate=6)[1].x for seed in (0, 1))
    assert (first != second).any()


def test_dataset_switches_by_batch(tmp_path: Path) -> None:
    """Recordings of a batch are all moved or all left, whatever process reads them."""
    write_folder(tmp_path, per_class=10)
    records = read_event_index(tmp_path, "train", 3)
    sampling = EventSampling(Opening(SENSOR), 0, "random_sample", "none", 0.0)
    plain = RecordingTrainDataset(records, sampling)
    augment = BatchAugment(SENSOR, 0, 0.5, translate=40)
    moved = RecordingTrainDataset(records, sampling, augment, batch_size=6)
    by_batch: dict[int, set[bool]] = {}
    for epoch in range(3):
        for position in np.random.default_rng(0).permutation(24):
            [one], [other] = plain[epoch, int(position)].clips, moved[epoch, int(position)].clips
            assert len(one["x"]) == len(other["x"])
            by_batch.setdefault(epoch * 10 + position // 6, set()).add(
                any((one[key] != other[key]).any() for key in "xy")
            )
    assert all(len(kinds) == 1 for kinds in by_batch.values()) and {True, False} == set.union(*by_batch.values())


def small_events(n: int = 300, seed: int = 0) -> EventColumns:
    draw = np.random.default_rng(seed)
    x, y, p = (draw.integers(0, limit, n) for limit in (16, 12, 2))
    return EventColumns(x, y, np.sort(draw.uniform(100, 5000, n)), p)


class TestEventAugment:
    def changed(self, before: EventColumns | None = None, seed: int = 0, **settings: object) -> EventColumns:
        return EventAugment(SENSOR, prob=1.0, **settings)(before or small_events(), np.random.default_rng(seed))

    def test_flips(self) -> None:
        before = small_events()
        assert np.array_equal(self.changed(flip_x=True).x, 15 - before.x)
        assert np.array_equal(self.changed(flip_y=True).y, 11 - before.y)
        assert np.array_equal(self.changed(flip_polarity=True).p, 1 - before.p)

    def test_translation_drops_events_that_leave(self) -> None:
        before, after = small_events(), self.changed(translate=3, seed=2)
        place = {t: i for i, t in enumerate(before.t)}
        old = before.take(np.array([place[t] for t in after.t]))
        shifts = {(int(dx), int(dy)) for dx, dy in zip(after.x - old.x, after.y - old.y, strict=True)}
        assert len(shifts) == 1 and shifts != {(0, 0)}
        (dx, dy) = shifts.pop()
        inside = (before.x + dx >= 0) & (before.x + dx < 16) & (before.y + dy >= 0) & (before.y + dy < 12)
        assert len(after) == inside.sum() < len(before)

    def test_rotation_keeps_distances_from_the_center(self) -> None:
        before = small_events()
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
        assert not np.array_equal(leaning.x, small_events().x[: len(leaning)]) and set(leaning.y) <= set(range(12))

    def test_time_jitter_keeps_events_sorted(self) -> None:
        after = self.changed(time_jitter=0.05)
        assert (np.diff(after.t) >= 0).all() and not np.array_equal(after.t, small_events().t)

    def test_drop_noise_erase(self) -> None:
        assert 0.4 * 300 < len(self.changed(drop=0.5)) < 300
        noisy = self.changed(noise=0.5)
        assert 300 < len(noisy) <= 450 and (np.diff(noisy.t) >= 0).all() and set(small_events().t) <= set(noisy.t)
        erased = self.changed(erase=6)
        lost = sorted(set(small_events().t) - set(erased.t))
        gone = small_events().take(np.isin(small_events().t, lost))
        assert lost and np.ptp(gone.x) < 6 and np.ptp(gone.y) < 6

    def test_disabled_augmentation_changes_nothing(self) -> None:
        assert all(np.array_equal(getattr(self.changed(), key), getattr(small_events(), key)) for key in "xytp")
        never = EventAugment(SENSOR, prob=0.0, flip_x=True, rotate=30.0, drop=0.5, noise=0.5, erase=5, translate=4)
        assert all(
            np.array_equal(getattr(never(small_events(), np.random.default_rng()), key), getattr(small_events(), key))
            for key in "xytp"
        )

    @settings(deadline=None, max_examples=40)
    @given(n=st.integers(1, 40), seed=st.integers(0, 999))
    def test_all_transforms_keep_sorted_events_on_the_sensor(self, n: int, seed: int) -> None:
        all_on = {"flip_x": True, "flip_y": True, "flip_polarity": True, "translate": 20, "rotate": 90.0}
        all_on |= {"shear": 0.5, "scale": (0.2, 3.0), "time_jitter": 0.2, "drop": 0.9, "noise": 0.9, "erase": 12}
        after = self.changed(small_events(n, seed), seed, **all_on)
        assert len(after) >= 1 and (np.diff(after.t) >= 0).all()
        assert (after.x >= 0).all() and (after.x < 16).all() and (after.y >= 0).all() and (after.y < 12).all()
        assert set(after.p) <= {0, 1}
        again = self.changed(small_events(n, seed), seed, **all_on)
        assert all(np.array_equal(getattr(after, key), getattr(again, key)) for key in "xytp")
