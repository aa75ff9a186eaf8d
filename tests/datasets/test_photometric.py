"""Combined lookup tables against Pillow, frame by frame and operation by operation."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from slowfast.datasets.photometric import apply_photometric
from slowfast.datasets.rand_augment import AugmentOp, RandAugment
from slowfast.datasets.resample import GEOMETRIC

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
