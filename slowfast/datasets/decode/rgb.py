"""Conversion of decoded frames to upright RGB."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av import VideoFrame
from av.filter import Graph
from av.filter.context import FilterContext
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from slowfast.datasets.decode.reader import DecodeError, scaled_down
from slowfast.errors import system_reason

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


_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
# Color matrices (ITU-T H.273, table 4) that FFmpeg's scaler converts from. It refuses others, which are mostly wrong
# tags on ordinary files; FFmpeg's programs took them for unspecified, and constant luminance for its usual kin.
_CONVERTIBLE = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 9})
_STAND_INS = {10: 9}
# Interpolation of FFmpeg's programs where frames are scaled or chroma is not simply repeated.
_INTERPOLATION = Interpolation.BICUBIC


class RgbConverter:
    """Converter of a video's frames to RGB, each turned by its own display matrix, all scaled to one upright size.

    One conversion context serves all frames and uses no threads: PyAV's `to_rgb()` starts threads for every frame.

    Args:
        size: Width and height of upright frames (pixels); None for those of the first frame that is converted, scaled
            down to `short_side`.
        short_side: Frames with a longer short side (pixels) are scaled by area averaging, in the same pass that
            converts them; None to scale all frames with bicubic interpolation.
    """

    def __init__(self, size: tuple[int, int] | None = None, short_side: int | None = None) -> None:
        self._reformatter = VideoReformatter()
        self._size = size
        self._short_side = short_side
        self._filters: FilterChain | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Convert a frame.

        Returns:
            The upright picture, uint8 (H, W, 3): a view that keeps the frame's memory alive.

        Raises:
            DecodeError: If FFmpeg cannot convert the frame.
        """
        orientation = orientation_of(frame_matrix(frame))
        if self._size is None:
            self._size = scaled_down(*orientation.size(frame.width, frame.height), self._short_side)
        width, height = orientation.size(*self._size)  # before it is turned
        make_convertible(frame)
        try:
            if self._averages(frame, width, height):
                # Scaled first: fewer pixels are turned, and what the scaler knows of the chroma samples holds.
                turn = orientation.filters() if orientation.angle else []
                return orientation.apply(_rgb_array(self._filtered(frame, turn, f"{width}:{height}:flags=area")))
            if orientation.angle or _places_chroma(frame, width, height):
                scale = f"{self._size[0]}:{self._size[1]}:flags=bicubic"
                return _rgb_array(self._filtered(frame, orientation.filters(), scale))
            rgb = self._reformatter.reformat(
                frame, width, height, format="rgb24", interpolation=_INTERPOLATION, threads=1
            )
        except (av.FFmpegError, ValueError) as error:
            reason = system_reason(error)
            raise DecodeError(f"frames cannot be converted to RGB ({reason.lower()})") from error
        return orientation.apply(_rgb_array(rgb))

    def _averages(self, frame: VideoFrame, width: int, height: int) -> bool:
        """Return whether a frame is scaled by area averaging to `width` x `height` pixels."""
        if self._short_side is None or (frame.width, frame.height) == (width, height):
            return False
        return min(frame.width, frame.height) > self._short_side

    def _filtered(self, frame: VideoFrame, turn: list[tuple[str, str]], scale: str) -> VideoFrame:
        """Turn a frame with FFmpeg's filters, then scale it with these arguments while it is converted to RGB."""
        steps = [*turn, ("scale", scale), ("format", "rgb24")]
        if self._filters is None or not self._filters.fit(frame, steps):
            self._filters = FilterChain(frame, steps)
        return self._filters(frame)


def make_convertible(frame: VideoFrame) -> None:
    """Replace a frame's color matrix where FFmpeg's scaler refuses it."""
    if frame.colorspace not in _CONVERTIBLE:
        frame.colorspace = _STAND_INS.get(frame.colorspace, _UNSPECIFIED)


def _rgb_array(rgb: VideoFrame) -> np.ndarray:
    plane: Any = rgb.planes[0]  # has the buffer protocol, which its type does not tell
    lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return lines[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)


def _places_chroma(frame: VideoFrame, width: int, height: int) -> bool:
    """Return whether the result depends on where chroma samples lie, which FFmpeg handles in its scale filter.

    It is so for subsampled chroma, but for progressive 8-bit frames that keep their size: there samples are repeated.
    """
    kind = frame.format
    if kind.name in ("yuv420p", "yuvj420p") and (frame.width, frame.height) == (width, height):
        return frame.interlaced_frame
    return len(kind.components) >= 3 and kind.chroma_width(64) < 64


class FilterChain:
    """A chain of FFmpeg's filters for frames of one size and format.

    Args:
        frame: A frame of the kind that is to be filtered.
        steps: Names and arguments of the filters.
    """

    def __init__(self, frame: VideoFrame, steps: list[tuple[str, str]]) -> None:
        self._kind, self._steps = _kind(frame), steps
        self._graph = Graph()
        self._graph.threads = 1
        width, height, name, matrix, color_range = self._kind
        source = f"video_size={width}x{height}:pix_fmt={name}:time_base=1/1:colorspace={matrix}:range={color_range}"
        last: FilterContext = self._graph.add("buffer", source)
        for step, arguments in [*steps, ("buffersink", "")]:
            following = self._graph.add(step, arguments or None)
            last.link_to(following)
            last = following
        self._graph.configure()

    def fit(self, frame: VideoFrame, steps: list[tuple[str, str]]) -> bool:
        """Return whether this is the chain for a frame."""
        return _kind(frame) == self._kind and steps == self._steps

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Filter a frame."""
        self._graph.vpush(frame)
        return self._graph.vpull()


def _kind(frame: VideoFrame) -> tuple[int, int, str, int, int]:
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)
