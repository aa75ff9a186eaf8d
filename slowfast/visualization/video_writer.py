"""Draws lines of text on the frames of a video and writes them as H.264 in .mp4."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from slowfast.datasets.decode.timing import Timing
from slowfast.utils.files import written_whole

FONT = cv2.FONT_HERSHEY_SIMPLEX
NAME_ROOM = 40  # characters of a class name
WIDTH_SHARE, HEIGHT_SHARE = 0.6, 0.35  # of a frame that the text takes at most
LARGEST = 1.0  # font scale
_X264 = {"preset": "veryfast", "crf": "20"}
_BT709 = 1  # FFmpeg's AVCOL_SPC_BT709, AVCOL_PRI_BT709 and AVCOL_TRC_BT709


class VideoFile:
    """A new H.264 file in .mp4, which appears whole when it is left, or not at all after an error or without a frame.

    rate: frames a second, nominal; time_base: seconds of a tick.
    """

    def __init__(self, target: Path, rate: Fraction, time_base: Fraction) -> None:
        self.target, self.rate, self.time_base, self.count = target, rate, time_base, 0
        with ExitStack() as stack:
            part = stack.enter_context(written_whole(target))
            self._out = av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"})
            self._end = stack.pop_all()
        self._stream: VideoStream | None = None
        self._convert = VideoReformatter()

    def write(self, image: np.ndarray, tick: int) -> None:
        """The next frame uint8 (H, W, 3), R G B, sides even, all of one size; shown from `tick` on."""
        self._stream = self._stream or self._add_stream(image.shape[0], image.shape[1])
        frame = self._convert.reformat(
            av.VideoFrame.from_ndarray(image, format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        frame.pts, frame.time_base = tick, self.time_base
        self._out.mux(self._stream.encode(frame))
        self.count += 1

    def _add_stream(self, height: int, width: int) -> VideoStream:
        stream = self._out.add_stream("libx264", rate=self.rate, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = self.time_base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        return stream

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with suppress(_NothingWritten), self._end:
            try:
                if kind is None and self._stream is not None:
                    self._out.mux(self._stream.encode(None))
            finally:
                self._out.close()
            if kind is not None or not self.count:
                raise _NothingWritten


class _NothingWritten(Exception):
    """The file is to be deleted."""


def write_annotated(
    frames: Iterable[tuple[int, np.ndarray]], timing: Timing, lines: Sequence[str], target: Path
) -> int:
    """Write frames (number, uint8 (H, W, 3), R G B) with `lines` drawn on each; the number written.

    Frame k is shown from `timing.ticks[k]` on. Odd sides get one more line of pixels, which H.264 in 4:2:0 needs.
    `target` appears whole or not at all.
    """
    with VideoFile(target, timing.rate, timing.time_base) as out:
        for number, image in frames:
            out.write(draw_lines(even_sides(image), lines), int(timing.ticks[number]))
    return out.count


def even_sides(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) whose odd sides have their last line of pixels twice; a copy."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def draw_lines(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """The image (H, W, 3) with lines of text in white at its top left, on a dark ground; drawn over `image`."""
    lines = [drawable(line) for line in lines]
    height, width = image.shape[:2]
    sizes = [cv2.getTextSize(line, FONT, 1.0, 1)[0] for line in lines]
    text_width, text_height = max(w for w, _ in sizes), 1.6 * sum(h for _, h in sizes)
    scale = min(WIDTH_SHARE * width / text_width, HEIGHT_SHARE * height / text_height, LARGEST)
    step = max(round(scale * text_height / len(lines)), 1)
    box_height, box_width = min(step * len(lines) + step // 2, height), min(round(scale * text_width) + step, width)
    box = image[:box_height, :box_width]
    box[:] = box // 3
    for place, line in enumerate(lines):
        at = (step // 2, (place + 1) * step - step // 5)
        cv2.putText(image, line, at, FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def drawable(text: str) -> str:
    """The text in the characters that OpenCV's font has: accents left out, `?` for other letters than Latin ones."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)
