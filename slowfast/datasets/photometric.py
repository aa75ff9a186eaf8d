"""Photometric augmentations and random erasing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import cv2
import numpy as np

from slowfast.config.defaults import check_value
from slowfast.datasets.rand_augment import AugmentOp
from slowfast.errors import ConfigError

_LEVELS = np.arange(256)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, RGB


def apply_photometric(clip: np.ndarray, ops: Sequence[AugmentOp]) -> None:
    """Apply operations in order to a clip (U, S, S, 3), in place; statistics are computed per frame."""
    pending = _TableChain(clip)
    for op in ops:
        if op.name in _TABLES:
            pending.append(_TABLES[op.name](op.value)[None, None])
        elif op.name in _STATISTICS:
            pending.append(_STATISTICS[op.name](pending.histograms(), op.value))
        elif op.name in _PIXEL_OPS:
            pending.flush()
            _PIXEL_OPS[op.name](clip, op.value)
        else:
            raise ValueError(f"{op.name!r} is not a photometric operation")
    pending.flush()


class _TableChain:
    """Lookup tables to apply later, combined into one: (u, c, 256), u = 1 or U frames, c = 1 or 3 channels."""

    def __init__(self, clip: np.ndarray) -> None:
        self._clip = clip
        self._reset()

    def _reset(self) -> None:
        self._table: np.ndarray | None = None
        self._counts: np.ndarray | None = None  # histogram of the clip in memory

    def append(self, table: np.ndarray) -> None:
        """Apply a table after the deferred ones."""
        if self._table is not None:
            shape = np.broadcast_shapes(table.shape, self._table.shape)
            table = np.take_along_axis(
                np.broadcast_to(table, shape), np.broadcast_to(self._table, shape).astype(np.intp), -1
            )
        self._table = table.astype(np.uint8)

    def histograms(self) -> np.ndarray:
        """Return the histogram of each frame after the deferred tables, (U, 3, 256)."""
        if self._counts is None:
            self._counts = _histograms(self._clip)
        if self._table is None:
            return self._counts
        groups = np.arange(self._counts.size // 256).reshape(*self._counts.shape[:2], 1)
        bins = groups * 256 + self._table  # (U, 3, 256)
        counts = np.bincount(bins.ravel(), self._counts.ravel(), minlength=self._counts.size)
        return counts.reshape(self._counts.shape)

    def flush(self) -> None:
        """Apply the deferred tables to the clip."""
        if self._table is not None:
            frames = [_stacked(self._clip)] if len(self._table) == 1 else self._clip
            for frame, table in zip(frames, self._table, strict=True):
                lut = np.ascontiguousarray(table.T)[None]  # (1, 256, c)
                cv2.LUT(frame, lut, dst=frame)
        self._reset()


def _stacked(clip: np.ndarray) -> np.ndarray:
    """Return all frames as one image, (U S, S, 3), for one call instead of U."""
    return clip.reshape(-1, *clip.shape[2:])


def _histograms(clip: np.ndarray) -> np.ndarray:
    counts = [cv2.calcHist([frame], [channel], None, [256], [0, 256]) for frame in clip for channel in range(3)]
    return np.stack(counts).reshape(len(clip), 3, 256).astype(np.int64)


def _clipped(values: np.ndarray) -> np.ndarray:
    """Convert to uint8 as Pillow does: clip, then truncate."""
    return np.clip(values, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------ tables
def _solarize_add(amount: float) -> np.ndarray:
    return np.where(_LEVELS < 128, np.minimum(_LEVELS + int(amount), 255), _LEVELS).astype(np.uint8)


# Argument -> table (256,).
_TABLES: dict[str, Callable[[float], np.ndarray]] = {
    "invert": lambda value: _clipped(255 - _LEVELS),
    "posterize": lambda bits: (_LEVELS & (256 - (1 << (8 - int(bits))))).astype(np.uint8),
    "solarize": lambda threshold: _clipped(np.where(_LEVELS < threshold, _LEVELS, 255 - _LEVELS)),
    "solarize_add": _solarize_add,
    "brightness": lambda factor: _clipped(_LEVELS * np.float32(factor)),
}


# ------------------------------------------------------------------ tables that need statistics
def _auto_contrast(counts: np.ndarray, value: float) -> np.ndarray:
    """Stretch each channel of each frame to [0, 255]."""
    present = counts > 0
    low = present.argmax(-1, keepdims=True)
    high = 255 - present[..., ::-1].argmax(-1, keepdims=True)
    scale = 255.0 / np.maximum(high - low, 1)
    return np.where(high > low, _clipped(_LEVELS * scale - low * scale), _LEVELS.astype(np.uint8))


def _equalize(counts: np.ndarray, value: float) -> np.ndarray:
    """Equalize the histogram of each channel; as in Pillow, the largest value present does not count for the step."""
    last = 255 - (counts > 0)[..., ::-1].argmax(-1, keepdims=True)
    total = counts.sum(-1, keepdims=True)
    step = ((total - np.take_along_axis(counts, last, -1)) // 255).astype(np.int64)
    before = np.cumsum(counts, -1) - counts
    table = (step // 2 + before) // np.maximum(step, 1)
    return np.where(step > 0, _clipped(table), _LEVELS.astype(np.uint8))


def _contrast(counts: np.ndarray, factor: float) -> np.ndarray:
    """Move away from (factor > 1) or toward (< 1) the frame's mean gray."""
    channel_means = (counts * _LEVELS).sum(-1) / counts.sum(-1)  # (U, 3)
    gray = np.floor(channel_means @ _LUMA + 0.5).astype(np.float32)[:, None, None]
    return _clipped(gray + np.float32(factor) * (_LEVELS - gray))


# Histograms (U, 3, 256) and argument -> tables (U, c, 256).
_STATISTICS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "contrast": _contrast,
}


# ------------------------------------------------------------------ operations on pixels
def _color(clip: np.ndarray, factor: float) -> None:
    """Move away from (factor > 1) or toward (< 1) the gray of each pixel."""
    matrix = factor * np.eye(3) + (1 - factor) * _LUMA  # each row blends its channel with gray
    image = _stacked(clip)
    cv2.transform(image, matrix, dst=image)


def _sharpness(clip: np.ndarray, factor: float) -> None:
    """Move away from (factor > 1) or toward (< 1) a smoothed frame; the outermost pixels do not change.

    The smoothing kernel, 5 / 13 in the center and 1 / 13 around it, is a box mean plus a fraction of the pixel itself.
    """
    image = _stacked(clip)
    borders = [clip[:, edge].copy() for edge in (0, -1)], [clip[:, :, edge].copy() for edge in (0, -1)]
    smooth = (1 - factor) / 13
    cv2.addWeighted(cv2.blur(image, (3, 3)), 9 * smooth, image, 4 * smooth + factor, 0, dst=image)
    for edge, row, column in zip((0, -1), *borders, strict=True):
        clip[:, edge], clip[:, :, edge] = row, column


_PIXEL_OPS: dict[str, Callable[[np.ndarray, float], None]] = {"color": _color, "sharpness": _sharpness}


def draw_color_jitter(strength: float, rng: np.random.Generator) -> list[AugmentOp]:
    """Draw three operations in random order, with factors uniform in [max(0, 1 - strength), 1 + strength]."""
    names = rng.permutation(["brightness", "contrast", "color"])
    factors = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength, size=3)
    return [AugmentOp(str(name), float(factor)) for name, factor in zip(names, factors, strict=True)]


_AREA = (0.02, 1 / 3)  # total area of all boxes as a fraction of the frame
_ASPECT = (0.3, 1 / 0.3)  # height / width
_TRIES = 100


class RandomErasing:
    """Random erasing of one to `max_count` boxes, which share the area.

    Noise and colors are drawn from N(mean, std), which is standard normal once the clip is normalized. The mean color
    becomes 0 by normalization, within half a level, as in the published codes, which erase after it.

    Args:
        probability: Probability of erasing in a clip.
        mode: ``pixel`` for noise per pixel and frame, ``rand`` for a color per box, ``const`` for the mean color.
        max_count: Largest number of boxes.
        mean: Mean of the channels, in [0, 1] units and the order of the clip's channels.
        std: Standard deviation of the channels.

    Raises:
        ConfigError: If `mode` or `max_count` is invalid.
    """

    def __init__(
        self, probability: float, mode: str, max_count: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        check_value("AUG.RE_MODE", mode)
        if max_count < 1:
            raise ConfigError(f"AUG.RE_COUNT ({max_count}) must be at least 1. AUG.RE_PROB 0 disables erasing")
        self.probability = probability
        self.mode = mode
        self.max_count = max_count
        # 256 equally likely values of the distribution, so that noise is a table lookup of random bytes.
        quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
        values = (np.asarray(mean) + np.asarray(std) * quantiles[:, None]) * 255  # (256, 3)
        self._mean = np.clip(np.rint(np.asarray(mean) * 255), 0, 255).astype(np.uint8)
        self._noise = np.clip(np.rint(values), 0, 255).astype(np.uint8)[None]

    def __call__(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Erase boxes of a clip, uint8 (T, H, W, 3), in place and return it."""
        if rng.random() >= self.probability:
            return clip
        count = int(rng.integers(1, self.max_count, endpoint=True))
        for _ in range(count):
            box = _draw_box(clip.shape[1], clip.shape[2], count, rng)
            if box is not None:
                self._fill(clip[:, box[0], box[1]], rng)
        return clip

    def _fill(self, box: np.ndarray, rng: np.random.Generator) -> None:
        """Fill a view (T, h, w, 3) of the clip."""
        if self.mode == "const":
            box[...] = self._mean
        elif self.mode == "rand":
            box[...] = self._noise[0, rng.integers(256, size=3), np.arange(3)]
        else:
            t, h, w, channels = box.shape
            levels = rng.integers(0, 256, (t * h, w, channels), dtype=np.uint8)
            box[...] = cv2.LUT(levels, self._noise).reshape(box.shape)


def _draw_box(height: int, width: int, count: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Return the rows and columns of one of `count` boxes; None if no draw fits the frame."""
    for _ in range(_TRIES):
        area = rng.uniform(*_AREA) * height * width / count
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = (
                int(rng.integers(0, height - h, endpoint=True)),
                int(rng.integers(0, width - w, endpoint=True)),
            )
            return slice(top, top + h), slice(left, left + w)
    return None
