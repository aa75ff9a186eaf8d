"""Conversion of decoded frames to upright RGB images."""

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
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
# Color matrices (ITU-T H.273, table 4) that FFmpeg's scaler supports. It refuses others, which are mostly wrong tags:
# the ffmpeg program treats them as unspecified, and constant luminance as non-constant luminance.
_CONVERTIBLE = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 9})
_STAND_INS = {10: 9}
# Interpolation of the ffmpeg program for scaling and chroma upsampling.
_INTERPOLATION = Interpolation.BICUBIC


class RgbConverter:
    """Converter of the frames of a video to RGB, each rotated by its display matrix, all scaled to one upright size.

    All frames share a conversion context without threads: PyAV's ``to_rgb()`` starts threads for every frame.

    Args:
        size: Width and height of upright frames (pixels); None for those of the first converted frame, scaled down to
            `short_side`.
        short_side: Frames with a longer short side (pixels) are scaled by area averaging, in the same pass as the
            conversion; None to scale all frames with bicubic interpolation.
    """

    def __init__(self, size: tuple[int, int] | None = None, short_side: int | None = None) -> None:
        self._reformatter = VideoReformatter()
        self._size = size
        self._short_side = short_side
        self._filters: FilterChain | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Convert a frame.

        Returns:
            The upright image, uint8 (H, W, 3): a view that keeps the memory of the frame alive.

        Raises:
            DecodeError: If FFmpeg cannot convert the frame.
        """
        orientation = orientation_of(frame_matrix(frame))
        if self._size is None:
            self._size = scaled_down(*orientation.size(frame.width, frame.height), self._short_side)
        width, height = orientation.size(*self._size)  # before the rotation
        make_convertible(frame)
        try:
            if self._averages(frame, width, height):
                # Scale first: fewer pixels are rotated, and the chroma location remains valid for the scaler.
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
            raise DecodeError(f"frames cannot be converted to RGB: {reason.lower()}") from error
        return orientation.apply(_rgb_array(rgb))

    def _averages(self, frame: VideoFrame, width: int, height: int) -> bool:
        """Return whether a frame is scaled to `width` x `height` pixels by area averaging."""
        if self._short_side is None or (frame.width, frame.height) == (width, height):
            return False
        return min(frame.width, frame.height) > self._short_side

    def _filtered(self, frame: VideoFrame, turn: list[tuple[str, str]], scale: str) -> VideoFrame:
        """Rotate a frame with FFmpeg filters, then scale and convert it to RGB."""
        steps = [*turn, ("scale", scale), ("format", "rgb24")]
        if self._filters is None or not self._filters.fit(frame, steps):
            self._filters = FilterChain(frame, steps)
        return self._filters(frame)


def _rgb_array(rgb: VideoFrame) -> np.ndarray:
    plane: Any = rgb.planes[0]  # supports the buffer protocol, which the type stub does not declare
    lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return lines[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)


def _places_chroma(frame: VideoFrame, width: int, height: int) -> bool:
    """Return whether the result depends on the chroma location, which only FFmpeg's scale filter supports.

    It does for subsampled chroma, except in progressive 8-bit frames of unchanged size, whose samples are repeated.
    """
    kind = frame.format
    if kind.name in ("yuv420p", "yuvj420p") and (frame.width, frame.height) == (width, height):
        return frame.interlaced_frame
    return len(kind.components) >= 3 and kind.chroma_width(64) < 64


def make_convertible(frame: VideoFrame) -> None:
    """Replace the color matrix of a frame if FFmpeg's scaler does not support it."""
    if frame.colorspace not in _CONVERTIBLE:
        frame.colorspace = _STAND_INS.get(frame.colorspace, _UNSPECIFIED)


class FilterChain:
    """Chain of FFmpeg filters for frames of one size and format.

    Args:
        frame: Frame of that size and format.
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


@dataclass(frozen=True)
class Orientation:
    """Transform that makes a stored image upright: transpose, then mirror; or rotate by any other angle.

    ``angle`` is clockwise in degrees, and 0 for the eight orientations that keep the pixel grid.
    """

    transpose: bool = False
    mirror_columns: bool = False  # left-right, after transposing
    mirror_rows: bool = False  # up-down, after transposing
    angle: float = 0.0

    @property
    def is_identity(self) -> bool:
        """True if stored images are upright."""
        return self == UPRIGHT

    @property
    def is_mirrored(self) -> bool:
        """True if upright images are mirrored, not only rotated."""
        return (self.transpose + self.mirror_columns + self.mirror_rows) % 2 == 1

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return an upright view of an image (H, W, 3), without the rotation by ``angle``."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.mirror_rows else 1, :: -1 if self.mirror_columns else 1]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of the upright image."""
        return (height, width) if self.transpose else (width, height)

    def filters(self) -> list[tuple[str, str]]:
        """Return the FFmpeg filters (name, arguments) that make an image upright."""
        chosen = [("transpose", "0")] if self.transpose else []  # counterclockwise and vertical flip: a transpose
        chosen += [("hflip", "")] if self.mirror_columns else []
        chosen += [("vflip", "")] if self.mirror_rows else []
        return chosen + ([("rotate", repr(math.radians(self.angle)))] if self.angle else [])


UPRIGHT = Orientation()


def frame_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """Return the display matrix of a frame, 9 integers in row-major order; None without one."""
    data: Any = frame.side_data  # the type stub only declares motion vectors
    if not len(data):
        return None
    for number in range(len(data)):
        if data[number].type == Type.DISPLAYMATRIX:
            return struct.unpack("=9i", bytes(data[number])[:36])
    return None


def orientation_of(matrix: tuple[int, ...] | None) -> Orientation:
    """Interpret a display matrix as the ffmpeg program does (``autorotate``)."""
    if matrix is None:
        return UPRIGHT
    theta = _angle(matrix)
    if theta is None:
        return UPRIGHT
    if abs(theta - 90) < _TOLERANCE:  # clockwise; the sign distinguishes mirrored images
        return Orientation(transpose=True, mirror_columns=matrix[3] <= 0)
    if abs(theta - 180) < _TOLERANCE:
        return Orientation(mirror_columns=matrix[0] < 0, mirror_rows=matrix[4] < 0)
    if abs(theta - 270) < _TOLERANCE:
        return Orientation(transpose=True, mirror_rows=True, mirror_columns=matrix[3] < 0)
    if abs(theta) > _TOLERANCE:
        return Orientation(angle=theta)
    return Orientation(mirror_rows=matrix[4] < 0)


def _angle(matrix: tuple[int, ...]) -> float | None:
    """Return the clockwise angle of a display matrix in degrees (av_display_rotation_get), or None if singular."""
    scale = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(scale):
        return None
    counterclockwise = -math.degrees(math.atan2(matrix[1] / scale[1], matrix[0] / scale[0]))
    theta = -round(counterclockwise)
    return theta - 360 * math.floor(theta / 360 + 0.9 / 360)
