"""Crops, resizing as in the published evaluations, and combined warps against a sequence of Pillow's."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slowfast.config.defaults import get_cfg
from slowfast.datasets.frame_datasets import ImageNet
from slowfast.datasets.rand_augment import AugmentOp
from slowfast.datasets.resample import (
    Crop,
    antialiased,
    jittered_crop,
    nearly_antialiased,
    op_matrix,
    random_resized_crop,
    resample,
    resize_plain,
    scaled_size,
    shrink,
    view_corners,
    view_matrix,
)
from slowfast.datasets.transforms import TrainTransform

HEIGHT, WIDTH, SIZE = 96, 128, 64
ROWS = np.array([0, 1])
NOISE = np.random.default_rng(0).integers(0, 256, (1, 100, 141, 3), dtype=np.uint8)
SIDES = st.integers(1, 400)
SEEDS = st.integers(0, 2**32 - 1)


def smooth_frames(channels_offset: int = 0) -> np.ndarray:
    rng = np.random.default_rng(5 + channels_offset)
    noise = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 6) for frame in noise]).astype(np.float64)
    return np.clip((frames - 128) * 6 + 128, 0, 255).astype(np.uint8)


def pillow_warp(image: Image.Image, op: AugmentOp) -> Image.Image:
    """The published operations: Pillow, output size equal to the input size, black outside of the input."""
    if op.name == "rotate":
        return image.rotate(op.value, resample=Image.Resampling.BILINEAR)
    coefficients = {
        "shear_x": (1, op.value, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, op.value, 1, 0),
        "translate_x": (1, 0, round(op.value * WIDTH), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, round(op.value * HEIGHT)),
    }[op.name]
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def one_by_one(frame: np.ndarray, ops: list[AugmentOp], crop: Crop, flip: bool) -> np.ndarray:
    image = Image.fromarray(frame)
    for op in ops:
        image = pillow_warp(image, op)
    top, left, height, width = (int(v) for v in (crop.top, crop.left, crop.height, crop.width))
    view = cv2.resize(np.asarray(image)[top : top + height, left : left + width], (SIZE, SIZE))
    return view[:, ::-1] if flip else view


def composed(frames: np.ndarray, ops: list[AugmentOp], crop: Crop, flip: bool, how: str = "bilinear") -> np.ndarray:
    matrix = np.eye(3)
    for op in ops:
        matrix = matrix @ op_matrix(op, HEIGHT, WIDTH)
    return resample(frames, ROWS, matrix @ view_matrix(crop, SIZE, flip), SIZE, how)


CASES = [
    [AugmentOp("rotate", 21.0)],
    [AugmentOp("rotate", -8.0)],
    [AugmentOp("shear_x", 0.2)],
    [AugmentOp("shear_y", -0.2)],
    [AugmentOp("translate_x", 0.3)],
    [AugmentOp("translate_y", -0.25)],
    [AugmentOp("shear_x", 0.2), AugmentOp("rotate", 15.0)],
    [AugmentOp("rotate", 15.0), AugmentOp("translate_x", 0.1), AugmentOp("shear_y", -0.15)],
]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("ops", CASES, ids=lambda ops: "-".join(op.name for op in ops))
def test_composed_equals_one_by_one(ops: list[AugmentOp], flip: bool) -> None:
    frames, crop = smooth_frames(), Crop(10, 20, 70, 90)
    seen = one_by_one(np.full_like(frames[0], 255), ops, crop, flip)
    inside = cv2.erode((seen == 255).astype(np.uint8), np.ones((7, 7)))[..., :1] > 0
    assert inside.mean() > 0.3
    for frame, ours in zip(frames, composed(frames, ops, crop, flip), strict=True):
        difference = np.abs(ours.astype(int) - one_by_one(frame, ops, crop, flip))[inside[..., 0]]
        assert difference.max() <= 8 and difference.mean() < 1.5


@pytest.mark.parametrize("how", ["bilinear", "bicubic", "nearest"])
def test_plain_crop_is_cv2_resize(how: str) -> None:
    flags = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST_EXACT}
    frames = smooth_frames()
    ours = composed(frames, [], Crop(10, 20, 70, 90), True, how)
    for frame, view in zip(frames, ours, strict=True):
        plain = cv2.resize(frame[10:80, 20:110], (SIZE, SIZE), interpolation=flags[how])
        assert np.array_equal(view, plain[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("how", ["bilinear", "bicubic", "nearest"])
def test_resize_path_equals_warp_path(how: str, flip: bool) -> None:
    """A shear far too small to see takes the warp path; a shift by whole pixels the resize path."""
    frames, crop = smooth_frames(), Crop(10, 20, 70, 90)
    shift = [AugmentOp("translate_x", 0.3), AugmentOp("translate_y", -0.3)]
    resized = composed(frames, shift, crop, flip, how)
    warped = composed(frames, [AugmentOp("shear_x", 1e-7), *shift], crop, flip, how)
    difference = np.abs(resized.astype(int) - warped)
    gray = (resized == 128).all(-1)
    assert 0.1 < gray.mean() < 0.9
    edge = cv2.dilate(gray[0].astype(np.uint8), np.ones((5, 5))) - cv2.erode(gray[0].astype(np.uint8), np.ones((5, 5)))
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = 1, 1, 1, 1  # a crop knows nothing outside itself
    assert difference[:, edge == 0].max() <= 4  # a warp rounds coordinates to 1/32 of a pixel


def test_nothing_but_gray_when_all_is_outside() -> None:
    outside = composed(smooth_frames(), [AugmentOp("translate_x", 0.9)], Crop(0, 64, 60, 60), False)
    assert (outside == 128).all()


def test_frames_are_picked_and_stay_as_they_are() -> None:
    frames = smooth_frames()
    frames.setflags(write=False)
    matrix = view_matrix(Crop(0, 0, HEIGHT, WIDTH), SIZE, False)
    one, both = (resample(frames, np.array(rows), matrix, SIZE, "bilinear") for rows in ([1], [0, 1]))
    assert one.shape == (1, SIZE, SIZE, 3) and np.array_equal(one[0], both[1])


def test_only_geometric_operations_have_a_matrix() -> None:
    with pytest.raises(ValueError, match="invert"):
        op_matrix(AugmentOp("invert"), HEIGHT, WIDTH)


# ------------------------------------------------------------------ crops
@given(height=SIDES, width=SIDES, seed=SEEDS, low=st.floats(0.05, 1.0), ratio=st.floats(1.0, 3.0))
def test_random_resized_crop_lies_inside(height: int, width: int, seed: int, low: float, ratio: float) -> None:
    crop = random_resized_crop(height, width, (low, 1.0), (1 / ratio, ratio), np.random.default_rng(seed))
    assert crop.height >= 1 and crop.width >= 1
    assert 0 <= crop.top <= height - crop.height and 0 <= crop.left <= width - crop.width
    assert all(value == int(value) for value in (crop.top, crop.left, crop.height, crop.width))


def test_random_resized_crop_covers_the_ranges() -> None:
    rng = np.random.default_rng(0)
    crops = [random_resized_crop(256, 340, (0.08, 1.0), (0.75, 4 / 3), rng) for _ in range(2000)]
    shares = np.array([crop.height * crop.width / (256 * 340) for crop in crops])
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert 0.078 < shares.min() < 0.1 and shares.max() > 0.95
    assert 0.74 < ratios.min() < 0.77 and 1.31 < ratios.max() < 1.35
    assert abs(np.log(ratios).mean()) < 0.05  # large wide crops fit this frame more often


@pytest.mark.parametrize(("height", "width", "expected"), [(20, 300, (0, 137, 20, 27)), (300, 30, (130, 0, 40, 30))])
def test_random_resized_crop_falls_back_to_the_center(height: int, width: int, expected: tuple[int, ...]) -> None:
    crop = random_resized_crop(height, width, (1.0, 1.0), (0.75, 4 / 3), np.random.default_rng(0))
    assert (crop.top, crop.left, crop.height, crop.width) == pytest.approx(expected, abs=1)


@given(height=SIDES, width=SIDES, seed=SEEDS)
def test_jittered_crop_lies_inside(height: int, width: int, seed: int) -> None:
    crop = jittered_crop(height, width, (256, 320), 224, np.random.default_rng(seed))
    assert crop.height == crop.width >= 1
    assert 0 <= crop.top <= height - crop.height and 0 <= crop.left <= width - crop.width
    short = min(height, width)
    assert 224 / 320 * short - 1 <= crop.height <= 224 / 256 * short + 1


@given(height=SIDES, width=SIDES, short=st.integers(16, 320))
def test_scaled_size(height: int, width: int, short: int) -> None:
    h, w = scaled_size(height, width, short)
    assert min(h, w) == short
    assert max(h, w) == math.floor(max(height, width) * short / min(height, width))


def test_view_corners() -> None:
    assert view_corners(256, 341, 224, 1) == [(16, 59)]  # odd remainders go to the start
    assert view_corners(224, 300, 224, 3) == [(0, 0), (0, 38), (0, 76)]
    assert view_corners(300, 224, 224, 3) == [(0, 0), (38, 0), (76, 0)]
    assert view_corners(224, 224, 224, 3) == [(0, 0)] * 3


def test_a_single_crop_can_be_the_left_one() -> None:
    assert view_corners(224, 300, 224, 1, single="left") == [(0, 0)]
    assert view_corners(300, 224, 224, 1, single="left") == [(0, 0)]
    assert view_corners(256, 341, 224, 1, single="left") == [(16, 0)]
    assert view_corners(224, 300, 224, 3, single="left") == [(0, 0), (0, 38), (0, 76)]


# ------------------------------------------------------------------ resizing
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
