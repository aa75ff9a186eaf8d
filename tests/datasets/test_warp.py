"""Combined resampling against a sequence of Pillow's warps, and the resize path against the warp."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from slowfast.datasets.rand_augment import AugmentOp
from slowfast.datasets.resample import op_matrix, resample, view_matrix
from slowfast.datasets.types import Crop

HEIGHT, WIDTH, SIZE = 96, 128, 64
ROWS = np.array([0, 1])


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


def test_nothing_but_grey_when_all_is_outside() -> None:
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
