"""Scaling whole frames: as published video code does it, as published image evaluations do it, and by whole factors.

U frames, H height, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from slowfast.datasets.types import Crop

# Frames uint8 (U, H, W, 3), height, width -> frames of that size.
Resize = Callable[[np.ndarray, int, int], np.ndarray]

# DATA.IN_VAL_INTERPOLATION -> Pillow's filter.
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_plain(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear between the four nearest pixels, without antialiasing, as published video networks are tested."""
    scaled = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, scaled, strict=True):
        cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    return scaled


def antialiased(interpolation: str) -> Resize:
    """A resize with a name of FILTERS that averages over all pixels when it shrinks, as published image networks are
    tested: Pillow's own, to the bit.
    """
    return functools.partial(_resize_with_pillow, FILTERS[interpolation])


def _resize_with_pillow(resample: Image.Resampling, frames: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), resample)) for frame in frames])


def nearly_antialiased(interpolation: str) -> Resize:
    """As `antialiased` to a level or two of 255 in a few pixels, several times as fast: for a camera's frames."""
    return functools.partial(_resize_with_torch, interpolation)


def _resize_with_torch(mode: str, frames: np.ndarray, height: int, width: int) -> np.ndarray:
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # U 3 H W, channels last in memory
    scaled = F.interpolate(images, (height, width), mode=mode, antialias=True)
    return np.asarray(scaled.permute(0, 2, 3, 1).numpy())


def shrink(frames: np.ndarray, crop: Crop, size: int) -> tuple[np.ndarray, Crop]:
    """Frames averaged over squares of k x k pixels, and the crop in them; k as large as leaves the crop `size` pixels.

    A warp to `size` pixels that looks at the nearest few pixels only would leave out the others. Edge pixels that fill
    no square are left out. Frames are returned as they are where k is 1.
    """
    factor = int(min(crop.height, crop.width, *frames.shape[1:3]) // size)
    if factor < 2:
        return frames, crop
    height, width = (length // factor for length in frames.shape[1:3])
    inner = frames[:, : height * factor, : width * factor]
    small = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in inner])
    top, left = crop.top / factor, crop.left / factor
    return small, Crop(top, left, min(crop.height / factor, height - top), min(crop.width / factor, width - left))
