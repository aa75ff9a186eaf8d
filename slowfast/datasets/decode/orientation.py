"""Display matrices: how a stored picture is turned or mirrored for display, as FFmpeg's programs do it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import Type

_TOLERANCE = 1.0  # degrees


@dataclass(frozen=True)
class Orientation:
    """How to bring a stored picture upright: transpose it, then mirror it; or rotate it by an odd angle.

    `angle` is clockwise in degrees and 0 unless the matrix is none of the eight that keep the pixel grid.
    """

    transpose: bool = False
    mirror_columns: bool = False  # left-right, after transposing
    mirror_rows: bool = False  # up-down, after transposing
    angle: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Return whether stored pictures are upright."""
        return self == UPRIGHT

    @property
    def is_mirrored(self) -> bool:
        """Return whether upright pictures are mirror images of the stored ones, not only turned."""
        return (self.transpose + self.mirror_columns + self.mirror_rows) % 2 == 1

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return a view of an image (H, W, 3) that is upright but for `angle`."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.mirror_rows else 1, :: -1 if self.mirror_columns else 1]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of the upright picture."""
        return (height, width) if self.transpose else (width, height)

    def filters(self) -> list[tuple[str, str]]:
        """Return the FFmpeg filters (name, arguments) that bring a picture upright."""
        chosen = [("transpose", "0")] if self.transpose else []  # counterclockwise and mirrored up-down: a transpose
        chosen += [("hflip", "")] if self.mirror_columns else []
        chosen += [("vflip", "")] if self.mirror_rows else []
        return chosen + ([("rotate", repr(math.radians(self.angle)))] if self.angle else [])


UPRIGHT = Orientation()


def frame_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """Return a frame's display matrix, 9 numbers row by row; None where it has none."""
    data: Any = frame.side_data  # its type leaves out all but motion vectors
    if not len(data):
        return None
    for number in range(len(data)):
        if data[number].type == Type.DISPLAYMATRIX:
            return struct.unpack("=9i", bytes(data[number])[:36])
    return None


def orientation_of(matrix: tuple[int, ...] | None) -> Orientation:
    """Return what a display matrix says, as FFmpeg's programs understand it (`autorotate`)."""
    if matrix is None:
        return UPRIGHT
    theta = _angle(matrix)
    if theta is None:
        return UPRIGHT
    if abs(theta - 90) < _TOLERANCE:  # clockwise; the sign tells whether it is mirrored, too
        return Orientation(transpose=True, mirror_columns=matrix[3] <= 0)
    if abs(theta - 180) < _TOLERANCE:
        return Orientation(mirror_columns=matrix[0] < 0, mirror_rows=matrix[4] < 0)
    if abs(theta - 270) < _TOLERANCE:
        return Orientation(transpose=True, mirror_rows=True, mirror_columns=matrix[3] < 0)
    if abs(theta) > _TOLERANCE:
        return Orientation(angle=theta)
    return Orientation(mirror_rows=matrix[4] < 0)


def _angle(matrix: tuple[int, ...]) -> float | None:
    """Clockwise angle (degrees, 0 to 360) of a display matrix (av_display_rotation_get); None for a degenerate one."""
    scale = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(scale):
        return None
    counterclockwise = -math.degrees(math.atan2(matrix[1] / scale[1], matrix[0] / scale[0]))
    theta = -round(counterclockwise)
    return theta - 360 * math.floor(theta / 360 + 0.9 / 360)
