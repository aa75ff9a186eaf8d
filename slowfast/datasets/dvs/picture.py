"""Events as pictures to look at.

n events, T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np

FRAMES = 6
BACKGROUND, BRIGHTER, DARKER = (255, 255, 255), (200, 60, 40), (40, 80, 190)


def accumulate(
    x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, sensor: tuple[int, int], frames: int = FRAMES
) -> np.ndarray:
    """The events (n,) of equal parts of the time, red where it grew brighter, blue where darker: uint8 (T, H, W, 3)."""
    pictures = np.full((frames, *sensor, 3), BACKGROUND, np.uint8)
    if not len(t):
        return pictures
    span = max(float(t.max() - t.min()), np.finfo(np.float32).tiny)
    part = np.minimum((t - t.min()) / span * frames, frames - 1).astype(np.int64)
    pictures[part, y, x] = np.where(p[:, None] > 0, BRIGHTER, DARKER)
    return pictures
