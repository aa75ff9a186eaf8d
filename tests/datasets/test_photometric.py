"""Combined lookup tables against Pillow, frame by frame and operation by operation; random erasing."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from slowfast.datasets.photometric import RandomErasing, apply_photometric
from slowfast.datasets.rand_augment import AugmentOp, RandAugment
from slowfast.datasets.resample import GEOMETRIC
from slowfast.errors import ConfigError

# ------------------------------------------------------------------ photometric operations
ADD = [min(255, level + 77) if level < 128 else level for level in range(256)] * 3

PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "auto_contrast": lambda image, value: ImageOps.autocontrast(image),
    "equalize": lambda image, value: ImageOps.equalize(image),
    "invert": lambda image, value: ImageOps.invert(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "solarize_add": lambda image, value: image.point(ADD),
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
EXACT = [
    ("auto_contrast", 0.0),
    ("equalize", 0.0),
    ("invert", 0.0),
    ("posterize", 2),
    ("posterize", 4),
    ("solarize", 77),
    ("solarize", 256),
    ("solarize_add", 77),
]
CLOSE = [(name, factor) for name in ("color", "contrast", "brightness", "sharpness") for factor in (0.0, 0.37, 1.63)]


def clip(seed: int = 0) -> np.ndarray:
    """Three frames of different brightness and range, one of them with a flat channel."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in noise]).astype(np.float64)
    frames = (frames - 128) * np.array([1.0, 2.0, 3.0])[:, None, None, None] + np.array([90, 120, 150])[
        :, None, None, None
    ]
    frames = np.clip(frames, 0, 255).astype(np.uint8)
    frames[1, ..., 2] = 77
    return frames


def by_pillow(frames: np.ndarray, ops: list[tuple[str, float]]) -> np.ndarray:
    images = [Image.fromarray(frame) for frame in frames]
    for name, value in ops:
        images = [PILLOW[name](image, value) for image in images]
    return np.stack([np.asarray(image) for image in images])


def by_us(frames: np.ndarray, ops: list[tuple[str, float]]) -> np.ndarray:
    out = frames.copy()
    apply_photometric(out, [AugmentOp(name, value) for name, value in ops])
    return out


@pytest.mark.parametrize("op", EXACT, ids=str)
def test_tables_equal_pillow(op: tuple[str, float]) -> None:
    assert np.array_equal(by_us(clip(), [op]), by_pillow(clip(), [op]))


@pytest.mark.parametrize("op", CLOSE, ids=str)
def test_enhancements_are_within_one_level_of_pillow(op: tuple[str, float]) -> None:
    difference = np.abs(by_us(clip(), [op]).astype(int) - by_pillow(clip(), [op]))
    assert difference.max() <= 1


def test_an_empty_histogram_range_changes_nothing() -> None:
    flat = np.full((2, 8, 8, 3), 50, np.uint8)
    for name in ("auto_contrast", "equalize"):
        assert np.array_equal(by_us(flat, [(name, 0.0)]), flat)


@pytest.mark.parametrize("seed", range(30))
def test_joined_tables_equal_pillow_one_after_the_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ops = [EXACT[i] for i in rng.integers(len(EXACT), size=5)]
    assert np.array_equal(by_us(clip(seed), ops), by_pillow(clip(seed), ops))


@pytest.mark.parametrize("seed", range(30))
def test_joined_equals_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ops = [op for op in RandAugment(7, 12, 0.5, True).draw(rng) if op.name not in GEOMETRIC]
    joined, single = clip(seed), clip(seed)
    apply_photometric(joined, ops)
    for op in ops:
        apply_photometric(single, [op])
    assert np.array_equal(joined, single)


def test_order_matters() -> None:
    a, b = ("solarize", 77), ("brightness", 1.63)
    assert not np.array_equal(by_us(clip(), [a, b]), by_us(clip(), [b, a]))


def test_sharpness_keeps_frames_apart() -> None:
    frames = np.zeros((2, 6, 6, 3), np.uint8)
    frames[1] = 255
    assert np.array_equal(by_us(frames, [("sharpness", 0.1)]), frames)


def test_unknown_operation() -> None:
    with pytest.raises(ValueError, match="rotate"):
        apply_photometric(clip(), [AugmentOp("rotate", 3.0)])


# ------------------------------------------------------------------ random erasing
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


def test_erasing_depends_on_probability_and_seed() -> None:
    clip = np.full((2, 32, 32, 3), SENTINEL, np.uint8)
    hit = sum((erasing(probability=0.25)(clip.copy(), np.random.default_rng(s)) != SENTINEL).any() for s in range(1000))
    assert 200 < hit < 300
    assert (erasing(probability=0.0)(clip, np.random.default_rng(0)) == SENTINEL).all()
    assert np.array_equal(erased_clip("pixel", 9), erased_clip("pixel", 9))


def test_frames_too_small_for_a_box_stay() -> None:
    clip = np.full((2, 1, 1, 3), SENTINEL, np.uint8)
    assert (erasing()(clip, np.random.default_rng(0)) == SENTINEL).all()


@pytest.mark.parametrize(("mode", "count", "key"), [("noise", 1, "AUG.RE_MODE"), ("pixel", 0, "AUG.RE_COUNT")])
def test_invalid_erasing(mode: str, count: int, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        erasing(mode, count)
