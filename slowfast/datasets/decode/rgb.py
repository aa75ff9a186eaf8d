"""Decoded frames to upright RGB arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter


class RgbConverter:
    """Converts frames to R G B, all to the size of the first one.

    One conversion context serves all frames and uses no threads: PyAV's `to_rgb()` starts threads for every frame.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None  # (W, H) as coded

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """A frame as uint8 (H, W, 3), turned upright. The array is a view that keeps the frame's memory alive."""
        self._size = self._size or (frame.width, frame.height)
        width, height = self._size
        rgb = self._reformatter.reformat(frame, width, height, format="rgb24", threads=1)
        plane: Any = rgb.planes[0]  # has the buffer protocol, which its type does not tell
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        image = lines[:, : width * 3].reshape(height, width, 3)
        # The display matrix's angle is counter-clockwise; players honour quarter turns only.
        return np.rot90(image, round(frame.rotation / 90) % 4)
