"""Random erasing: boxes, fill values and their statistics."""

from __future__ import annotations

import numpy as np
import pytest

from slowfast.datasets.photometric import RandomErasing
from slowfast.errors import ConfigError

MEAN, STD = [0.5, 0.4, 0.6], [0.1, 0.05, 0.12]
SENTINEL = 255  # not a value the noise above can take


def erasing(mode: str = "pixel", count: int = 1, probability: float = 1.0) -> RandomErasing:
    return RandomErasing(probability, mode, count, MEAN, STD)


def erased_clip(mode: str, seed: int, count: int = 1, size: tuple[int, int] = (64, 80)) -> np.ndarray:
    clip = np.full((4, *size, 3), SENTINEL, np.uint8)
    return erasing(mode, count)(clip, np.random.default_rng(seed))


def box_of(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_one_box_through_all_frames(mode: str) -> None:
    for seed in range(50):
        mask = (erased_clip(mode, seed) != SENTINEL).all(-1)
        assert (mask == mask[0]).all()
        box = box_of(mask[0])
        assert mask[0][box].all()
        height, width = mask[0][box].shape
        assert 0.015 < height * width / (64 * 80) < 0.35
        assert 0.25 < height / width < 4


def test_areas_and_aspects_cover_their_ranges() -> None:
    shapes = []
    for seed in range(600):
        mask = (erased_clip("const", seed, size=(100, 100))[0] != SENTINEL).all(-1)
        shapes.append(mask[box_of(mask)].shape)
    heights, widths = np.array(shapes, float).T
    assert (heights * widths).min() / 1e4 < 0.03 and (heights * widths).max() / 1e4 > 0.31
    assert (heights / widths).min() < 0.35 and (heights / widths).max() > 2.8
    assert abs(np.log(heights / widths).mean()) < 0.1


def test_pixel_noise_is_standard_normal_once_normalized() -> None:
    clips = [erased_clip("pixel", seed, size=(200, 200)) for seed in range(5)]
    values = np.concatenate([clip[(clip != SENTINEL).all(-1)] for clip in clips]) / 255
    normal = (values - MEAN) / STD
    assert np.abs(normal.mean(0)).max() < 0.02 and np.abs(normal.std(0) - 1).max() < 0.03
    assert np.abs(np.corrcoef(normal.T) - np.eye(3)).max() < 0.02


def test_pixel_noise_differs_between_frames() -> None:
    clip = erased_clip("pixel", 0)
    assert not np.array_equal(clip[0], clip[1])


def test_rand_is_one_color_per_box_and_const_is_the_mean() -> None:
    colors = [erased_clip("rand", seed).reshape(-1, 3) for seed in range(20)]
    for clip in colors:
        assert len(np.unique(clip[(clip != SENTINEL).all(-1)], axis=0)) == 1
    assert len({tuple(clip[(clip != SENTINEL).all(-1)][0]) for clip in colors}) > 10
    erased = erased_clip("const", 0).reshape(-1, 3)
    filled = erased[(erased != SENTINEL).all(-1)]
    normalized = (filled / 255 - np.asarray(MEAN)) / np.asarray(STD)
    assert len(filled) and np.abs(normalized).max() <= 0.5 / 255 / min(STD) + 1e-9  # 0, to half a level


def test_count_is_the_most_boxes_and_they_share_the_area() -> None:
    shares, boxes = [], set()
    for seed in range(200):
        clip = erased_clip("rand", seed, count=3, size=(100, 100))[0].reshape(-1, 3)
        mask = (clip != SENTINEL).all(-1)
        boxes.add(len({tuple(color) for color in clip[mask]}))
        shares.append(mask.mean())
    assert boxes == {1, 2, 3}
    assert max(shares) <= 0.34


def test_probability_and_seed() -> None:
    clip = np.full((2, 32, 32, 3), SENTINEL, np.uint8)
    hit = sum((erasing(probability=0.25)(clip.copy(), np.random.default_rng(s)) != SENTINEL).any() for s in range(1000))
    assert 200 < hit < 300
    assert (erasing(probability=0.0)(clip, np.random.default_rng(0)) == SENTINEL).all()
    assert np.array_equal(erased_clip("pixel", 9), erased_clip("pixel", 9))


def test_frames_too_small_for_a_box_stay() -> None:
    clip = np.full((2, 1, 1, 3), SENTINEL, np.uint8)
    assert (erasing()(clip, np.random.default_rng(0)) == SENTINEL).all()


@pytest.mark.parametrize(("mode", "count", "key"), [("noise", 1, "AUG.RE_MODE"), ("pixel", 0, "AUG.RE_COUNT")])
def test_mistakes(mode: str, count: int, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        erasing(mode, count)
