"""Random erasing (arXiv 1708.04896) of boxes at one position in all frames of a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import cv2
import numpy as np

from slowfast.config.defaults import check_value
from slowfast.errors import ConfigError

_AREA = (0.02, 1 / 3)  # of the frame, for all boxes together
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
        ConfigError: If `mode` or `max_count` is impossible.
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
        # 256 equally likely values of the distribution: noise is then a table look-up of random bytes.
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
