"""Scaling as in the published image evaluations, and shrinking large frames before a crop."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slowfast.config.defaults import get_cfg
from slowfast.datasets.imagenet import ImageNet
from slowfast.datasets.resample import antialiased, nearly_antialiased, resize_plain, shrink
from slowfast.datasets.transforms import TrainTransform
from slowfast.datasets.types import Crop

NOISE = np.random.default_rng(0).integers(0, 256, (1, 100, 141, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_antialiased_is_pillow_s(name: str) -> None:
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    scaled = antialiased(name)(np.repeat(NOISE, 2, axis=0), 30, 42)
    expected = np.asarray(Image.fromarray(NOISE[0]).resize((42, 30), filters[name]))
    assert np.array_equal(scaled, [expected, expected])
    assert scaled.std() < 0.6 * resize_plain(NOISE, 30, 42).std()  # noise is averaged away


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(30, 42), (256, 361), (99, 140)])
def test_nearly_antialiased_is_that_to_two_levels(name: str, size: tuple[int, int]) -> None:
    frames = np.repeat(NOISE, 2, axis=0)[:, ::-1, :-1]  # as an upright view of a turned frame
    exact, near = (resize(frames, *size).astype(int) for resize in (antialiased(name), nearly_antialiased(name)))
    assert near.shape == exact.shape
    assert np.abs(near - exact).max() <= 2 and (near != exact).mean() < 0.02


def published_evaluation(image: np.ndarray, size: int, ratio: float, resample: Image.Resampling) -> np.ndarray:
    """torchvision's resize and center crop, one step at a time."""
    short = int(size / ratio)
    picture = Image.fromarray(image)
    width, height = picture.size
    new = (short, int(short * height / width)) if width < height else (int(short * width / height), short)
    scaled = np.asarray(picture.resize(new, resample))
    top, left = int(round((scaled.shape[0] - size) / 2.0)), int(round((scaled.shape[1] - size) / 2.0))
    return scaled[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(100, 141), (141, 100), (99, 99), (37, 200), (64, 75)])
@pytest.mark.parametrize(
    ("size", "ratio", "name"), [(56, 0.875, "bicubic"), (48, 0.9, "bilinear"), (64, 1.0, "bicubic")]
)
def test_evaluation_of_images_is_the_published_one(shape: tuple[int, int], size: int, ratio: float, name: str) -> None:
    cfg = get_cfg()
    cfg.DATA.TEST_CROP_SIZE, cfg.DATA.IN_VAL_CROP_RATIO, cfg.DATA.IN_VAL_INTERPOLATION = size, ratio, name
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scaled, ((top, left),) = ImageNet(cfg).view_transform(1)(image[None])
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[name]
    assert np.array_equal(
        scaled[0, top : top + size, left : left + size], published_evaluation(image, size, ratio, resample)
    )


@pytest.mark.parametrize(("size", "short"), [(224, 256), (384, 438)])
def test_the_published_short_sides(size: int, short: int) -> None:
    cfg = get_cfg()
    cfg.DATA.TEST_CROP_SIZE = size
    assert ImageNet(cfg).view_transform(1).short_side == short


@given(
    factor=st.integers(1, 6),
    size=st.integers(4, 12),
    top=st.integers(0, 5),
    left=st.integers(0, 5),
    more=st.integers(0, 3),
)
def test_shrunk_crops_keep_their_place_and_enough_pixels(
    factor: int, size: int, top: int, left: int, more: int
) -> None:
    extent = factor * size + min(more, size - 1)
    rows = np.arange(top + extent + 3, dtype=np.uint8)
    frames = np.broadcast_to(rows[None, :, None, None], (1, len(rows), left + extent, 3)).copy()
    crop = Crop(top, left, extent, extent)
    small, box = shrink(frames, crop, size)
    assert min(box.height, box.width) >= size - 1
    assert box.top + box.height <= small.shape[1] and box.left + box.width <= small.shape[2]
    assert box.top * factor == pytest.approx(top)
    assert (small is frames) == (factor == 1)
    means = rows[: len(rows) // factor * factor].reshape(-1, factor).mean(1)
    assert np.abs(small[0, :, 0, 0] - means).max() <= 0.5


def test_large_photographs_are_averaged_in_training() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 640, 640, 3), dtype=np.uint8)

    def clip(frames: np.ndarray, first: bool) -> np.ndarray:
        scales, aspect = (1.0, 1.0), (1.0, 1.0)
        transform = TrainTransform(64, scales_relative=scales, aspect_relative=aspect, images=first)
        return transform(frames, np.zeros(1, int), np.random.default_rng(0))

    assert clip(noise, True).std() < 10 < 30 < clip(noise, False).std()
    small = np.ascontiguousarray(noise[:, :80, :80])
    assert np.array_equal(clip(small, True), clip(small, False))


def test_plain_is_opencv_s() -> None:
    assert np.array_equal(resize_plain(NOISE, 30, 42)[0], cv2.resize(NOISE[0], (42, 30)))
