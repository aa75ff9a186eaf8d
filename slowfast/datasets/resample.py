"""Crops, resizing and affine warps of frames."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from slowfast.datasets.rand_augment import AugmentOp

# Function that scales frames uint8 (U, H, W, 3) to a height and width.
Resize = Callable[[np.ndarray, int, int], np.ndarray]

# DATA.IN_VAL_INTERPOLATION -> Pillow's filter.
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_CROP_TRIES = 10


# ------------------------------------------------------------------ crops
@dataclass(frozen=True)
class Crop:
    """Rectangle of a frame in pixels, which may be fractional."""

    top: float
    left: float
    height: float
    width: float


def random_resized_crop(
    height: int, width: int, area: Sequence[float], aspect: Sequence[float], rng: np.random.Generator
) -> Crop:
    """Draw a crop with a random area and aspect ratio; the largest centered one if ten draws do not fit the frame.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        area: Smallest and largest area as a fraction of the frame (uniform).
        aspect: Smallest and largest width / height (log-uniform).
        rng: Generator of the draw.
    """
    for _ in range(_CROP_TRIES):
        target = rng.uniform(area[0], area[1]) * height * width
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(0, height - h, endpoint=True), rng.integers(0, width - w, endpoint=True)
            return Crop(int(top), int(left), h, w)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    h = min(height, max(1, round(width / ratio)))
    w = min(width, max(1, round(height * ratio)))
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def jittered_crop(height: int, width: int, short_side: Sequence[int], size: int, rng: np.random.Generator) -> Crop:
    """Draw a square crop of `size` pixels of the frame scaled to a random short side.

    The crop is in pixels of the frame itself, rounded, so that cropping and scaling are one step.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        short_side: Smallest and largest short side after scaling.
        size: Side of the crop after scaling.
        rng: Generator of the draw.
    """
    side = rng.integers(short_side[0], short_side[1], endpoint=True)
    extent = max(1, round(size / int(side) * min(height, width)))
    top, left = (rng.integers(0, length - extent, endpoint=True) for length in (height, width))
    return Crop(int(top), int(left), extent, extent)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) after scaling the short side to `short_side` pixels; the long side is rounded down."""
    if height <= width:
        return short_side, short_side * width // height
    return short_side * height // width, short_side


def view_corners(
    height: int,
    width: int,
    size: int,
    crops: int,
    center: Callable[[float], int] = math.ceil,
    single: str = "center",
) -> list[tuple[int, int]]:
    """Return (top, left) of each square crop of a frame.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        size: Side of the crops.
        crops: Number of crops: 1, or 3 at the start, center and end of the long side.
        center: Rounding of the margin of a center crop; up in the published video code.
        single: Position of a single crop, ``center`` or ``left`` (the start of the long side).
    """
    top, left = center((height - size) / 2), center((width - size) / 2)
    if crops == 1 and single == "center":
        return [(top, left)]
    if crops == 1:
        return [(0, left) if height > width else (top, 0)]
    if height > width:
        return [(0, left), (top, left), (height - size, left)]
    return [(top, 0), (top, left), (top, width - size)]


# ------------------------------------------------------------------ resizing
def resize_plain(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly without antialiasing, as published video networks are evaluated."""
    scaled = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, scaled, strict=True):
        cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    return scaled


def antialiased(interpolation: str) -> Resize:
    """Return Pillow's antialiased resize, as published image networks are evaluated.

    Args:
        interpolation: A key of FILTERS.
    """
    return functools.partial(_resize_with_pillow, FILTERS[interpolation])


def _resize_with_pillow(resample: Image.Resampling, frames: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), resample)) for frame in frames])


def nearly_antialiased(interpolation: str) -> Resize:
    """Return a resize several times as fast as `antialiased`, which differs by a level or two of 255 in a few pixels.

    Args:
        interpolation: A key of FILTERS.
    """
    return functools.partial(_resize_with_torch, interpolation)


def _resize_with_torch(mode: str, frames: np.ndarray, height: int, width: int) -> np.ndarray:
    # Imported late, because `slowfast prepare` uses this module without PyTorch.
    import torch
    import torch.nn.functional as F

    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # U 3 H W, channels last in memory
    scaled = F.interpolate(images, (height, width), mode=mode, antialias=True)
    return np.asarray(scaled.permute(0, 2, 3, 1).numpy())


def shrink(frames: np.ndarray, crop: Crop, size: int) -> tuple[np.ndarray, Crop]:
    """Average frames over squares of k x k pixels before a crop is warped, which reads only the nearest pixels.

    k is the largest factor that leaves the crop at least `size` pixels. Edge pixels that fill no square are dropped.

    Args:
        frames: Frames (U, H, W, 3); returned unchanged if k is 1.
        crop: Crop of the frames.
        size: Side in pixels that the crop will be resampled to.

    Returns:
        The averaged frames and the crop in their pixels.
    """
    factor = int(min(crop.height, crop.width, *frames.shape[1:3]) // size)
    if factor < 2:
        return frames, crop
    height, width = (length // factor for length in frames.shape[1:3])
    inner = frames[:, : height * factor, : width * factor]
    small = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in inner])
    top, left = crop.top / factor, crop.left / factor
    return small, Crop(top, left, min(crop.height / factor, height - top), min(crop.width / factor, width - left))


# ------------------------------------------------------------------ warps
GEOMETRIC = frozenset({"rotate", "shear_x", "shear_y", "translate_x", "translate_y"})
INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
Color = tuple[int, int, int]
GRAY: Color = (128, 128, 128)


def op_matrix(op: AugmentOp, height: int, width: int) -> np.ndarray:
    """Return the warp of a geometric operation on a frame, (3, 3).

    As in Pillow, positive degrees rotate counter-clockwise about the center. Translations are rounded to integer
    pixels, which need no interpolation.
    """
    matrix = np.eye(3)
    if op.name == "rotate":
        cos, sin = math.cos(math.radians(op.value)), math.sin(math.radians(op.value))
        x, y = width / 2, height / 2
        matrix[:2] = [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]
    elif op.name == "shear_x":
        matrix[0, 1] = op.value
    elif op.name == "shear_y":
        matrix[1, 0] = op.value
    elif op.name == "translate_x":
        matrix[0, 2] = round(op.value * width)
    elif op.name == "translate_y":
        matrix[1, 2] = round(op.value * height)
    else:
        raise ValueError(f"{op.name!r} is not a geometric operation")
    return matrix


def view_matrix(crop: Crop, size: int, flip: bool) -> np.ndarray:
    """Return the warp that scales a crop to size x size pixels and, with `flip`, mirrors it left to right, (3, 3)."""
    x_scale, y_scale = crop.width / size, crop.height / size
    if flip:
        return np.array([[-x_scale, 0, crop.left + crop.width], [0, y_scale, crop.top], [0, 0, 1]], np.float64)
    return np.array([[x_scale, 0, crop.left], [0, y_scale, crop.top], [0, 0, 1]], np.float64)


def resample(
    frames: np.ndarray, rows: np.ndarray, matrix: np.ndarray, size: int, interpolation: str, fill: Color = GRAY
) -> np.ndarray:
    """Warp frames, without antialiasing as in the published code: uint8 (U, H, W, 3) -> (U, S, S, 3).

    Crops, flips and translations by integer pixels, the most common draws, become a plain resize, which is nine times
    faster than a warp with bicubic interpolation.

    Args:
        frames: Frames, not changed.
        rows: Indices of the frames to warp, (U,).
        matrix: Warp from pixels of the result to pixels of a frame, (3, 3).
        size: Side of the result, S.
        interpolation: A key of INTERPOLATIONS.
        fill: Color outside the frames.
    """
    out = np.empty((len(rows), size, size, 3), np.uint8)
    left, right = sorted((matrix[0, 2], matrix[0, 2] + matrix[0, 0] * size))
    box = np.array([matrix[1, 2], matrix[1, 2] + matrix[1, 1] * size, left, right])  # top, bottom, left, right
    rounded = np.rint(box)
    upright = matrix[0, 1] == 0 and matrix[1, 0] == 0 and matrix[1, 1] > 0
    if upright and np.abs(box - rounded).max() < 1e-6:
        top, bottom, left, right = (int(edge) for edge in rounded)
        _resize_box(frames, rows, (top, bottom, left, right), INTERPOLATIONS[interpolation], fill, out)
        if matrix[0, 0] < 0:
            stacked = out.reshape(-1, size, 3)  # (U * S, S, 3)
            cv2.flip(stacked, 1, dst=stacked)
        return out
    _warp(frames, rows, matrix, INTERPOLATIONS[interpolation], fill, out)
    return out


def translate(clip: np.ndarray, x: int, y: int, fill: Color) -> np.ndarray:
    """Return the clip (U, H, W, 3) whose pixel at (row, column) comes from (row + y, column + x)."""
    out = np.empty_like(clip)
    out[...] = fill
    height, width = clip.shape[1:3]
    to_rows, to_columns = slice(max(-y, 0), max(height - y, 0)), slice(max(-x, 0), max(width - x, 0))
    from_rows, from_columns = slice(max(y, 0), max(height + y, 0)), slice(max(x, 0), max(width + x, 0))
    out[:, to_rows, to_columns] = clip[:, from_rows, from_columns]
    return out


def _resize_box(
    frames: np.ndarray,
    rows: np.ndarray,
    box: tuple[int, int, int, int],
    interpolation: int,
    fill: Color,
    out: np.ndarray,
) -> None:
    """Resize a box (top, bottom, left, right) that may reach outside the frames."""
    top, bottom, left, right = box
    height, width = frames.shape[1:3]
    inside = (slice(max(top, 0), max(min(bottom, height), 0)), slice(max(left, 0), max(min(right, width), 0)))
    if top >= 0 and bottom <= height and left >= 0 and right <= width:
        sources = (frames[row][inside] for row in rows)
    else:
        padded = np.full((bottom - top, right - left, 3), fill, np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        sources = (_pasted(padded, frames[row][inside], y, x) for row in rows)
    if interpolation == cv2.INTER_NEAREST:
        # Samples at pixel centers, as a warp does; INTER_NEAREST is off by half a pixel.
        interpolation = cv2.INTER_NEAREST_EXACT
    for source, target in zip(sources, out, strict=True):
        cv2.resize(source, target.shape[1::-1], dst=target, interpolation=interpolation)


def _pasted(canvas: np.ndarray, patch: np.ndarray, top: int, left: int) -> np.ndarray:
    """Return the canvas after copying a patch onto it."""
    height, width = patch.shape[:2]
    if height and width:
        canvas[top : top + height, left : left + width] = patch
    return canvas


def _warp(
    frames: np.ndarray, rows: np.ndarray, matrix: np.ndarray, interpolation: int, fill: Color, out: np.ndarray
) -> None:
    """Resample with any matrix; the coordinates are computed once for all frames."""
    height, width = out.shape[1:3]
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    source_x, source_y = ((row[0] * x + row[1] * y + row[2] - 0.5).astype(np.float32) for row in matrix[:2])
    nearest = interpolation == cv2.INTER_NEAREST
    integers, fractions = cv2.convertMaps(source_x, source_y, cv2.CV_16SC2, nninterpolation=nearest)
    for row, target in zip(rows, out, strict=True):
        frame = frames[row]
        cv2.remap(frame, integers, fractions, interpolation, target, cv2.BORDER_CONSTANT, fill)
