"""H.264 videos in .mp4 files, with lines of text drawn on the frames."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from slowfast.datasets.decode.container import Timing
from slowfast.datasets.types import Record, failure_reason
from slowfast.utils.files import atomic_path
from slowfast.utils.logging import get_logger

FONT = cv2.FONT_HERSHEY_SIMPLEX
NAME_LENGTH = 40  # characters of a class name
MAX_WIDTH, MAX_HEIGHT = 0.6, 0.35  # limits of the text, as fractions of the frame
MAX_SCALE = 1.0  # limit of the font scale
# x264 without lookahead, which reads memory that was not initialized: the same frames would give different files.
NO_LOOKAHEAD = "b-adapt=0:mbtree=0:weightp=0:scenecut=0:rc-lookahead=0"
_X264 = {"preset": "veryfast", "crf": "20", "x264-params": NO_LOOKAHEAD}
_WRITE_ERRORS = (av.FFmpegError, OSError)
_BT709 = 1  # FFmpeg's AVCOL_SPC_BT709, AVCOL_PRI_BT709 and AVCOL_TRC_BT709


class VideoWriter:
    """Context manager that writes an H.264 video to an .mp4 file.

    The file appears when the context is left; not after an error or without frames.

    Args:
        target: File to write.
        rate: Nominal frame rate in frames per second.
        time_base: Duration of a tick in seconds.
    """

    def __init__(self, target: Path, rate: Fraction, time_base: Fraction) -> None:
        self.target, self.rate, self.time_base, self.count = target, rate, time_base, 0
        with ExitStack() as stack:
            part = stack.enter_context(atomic_path(target))
            self._out = av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"})
            self._end = stack.pop_all()
        self._stream: VideoStream | None = None
        self._convert = VideoReformatter()

    def write(self, image: np.ndarray, tick: int) -> None:
        """Write the next frame.

        Args:
            image: uint8 (H, W, 3) RGB; H and W are even. It is scaled to the size of the first frame.
            tick: Presentation time in ticks.
        """
        self._stream = self._stream or self._add_stream(image.shape[0], image.shape[1])
        size = self._stream.width, self._stream.height
        if size != (image.shape[1], image.shape[0]):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
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

    def __enter__(self) -> VideoWriter:
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
    """Discard the file."""


class SourceVideos:
    """Context manager that writes one annotated video per source; one that fails is discarded with a warning.

    Args:
        targets: File to write by the index of a source; empty to write none.
    """

    def __init__(self, targets: dict[int, Path]) -> None:
        self.targets = targets
        self._open: dict[int, tuple[Record, VideoWriter]] = {}

    def begin(self, record: Record, rate: Fraction, time_base: Fraction) -> None:
        """Begin the video of a source, if it has a file; see :class:`VideoWriter`."""
        if record.index in self.targets:
            with self.attempt(record):
                self._open[record.index] = record, VideoWriter(self.targets[record.index], rate, time_base)

    def is_open(self, record: Record) -> bool:
        """Return whether the video of a source is being written."""
        return record.index in self._open

    def add(self, record: Record, image: np.ndarray, tick: int) -> None:
        """Write the next frame of a source, if its video is open; see :meth:`VideoWriter.write`."""
        if self.is_open(record):
            with self.attempt(record):
                self._open[record.index][1].write(image, tick)

    def end(self, record: Record) -> None:
        """Finish the video of a source."""
        if self.is_open(record):
            with self.attempt(record):
                self._open.pop(record.index)[1].__exit__(None)

    @contextmanager
    def attempt(self, record: Record) -> Iterator[None]:
        """Discard the video of a source if a block cannot write it."""
        try:
            yield
        except _WRITE_ERRORS as error:
            get_logger().warning(f"Could not write the annotated video of {record.name}: {failure_reason(error)}")
            self._discard(record)

    def _discard(self, record: Record) -> None:
        if self.is_open(record):
            with suppress(*_WRITE_ERRORS):
                self._open.pop(record.index)[1].__exit__(RuntimeError)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        end = self.end if error is None else self._discard  # after a normal stop, files written so far are complete
        for record, _file in list(self._open.values()):
            end(record)


def write_annotated(
    frames: Iterable[tuple[int, np.ndarray]],
    timing: Timing,
    lines: Sequence[str] | Callable[[int], Sequence[str]],
    target: Path,
) -> int:
    """Write frames with lines of text drawn on each.

    Args:
        frames: Pairs of frame number and uint8 (H, W, 3) RGB. Odd sides are padded by a pixel, as H.264 in 4:2:0 needs.
        timing: Timestamps; frame k is shown from `timing.ticks[k]` on.
        lines: Lines of text, or a function that returns those of a frame number.
        target: File to write, completely or not at all.

    Returns:
        The number of frames.
    """
    with VideoWriter(target, timing.rate, timing.time_base) as out:
        for number, image in frames:
            text = lines(number) if callable(lines) else lines
            out.write(draw_lines(pad_to_even(image), text), int(timing.ticks[number]))
    return out.count


def class_lines(best: Iterable[tuple[str, float]]) -> list[str]:
    """Return the line of text of each (class name, score)."""
    return [f"{100 * score:5.1f} %  {name[:NAME_LENGTH]}" for name, score in best]


def pad_to_even(image: np.ndarray) -> np.ndarray:
    """Return a copy of an image (H, W, 3), padded to an even height and width by repeating the last row or column."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def draw_lines(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Draw lines of white text on a dark box in the top left corner of an image (H, W, 3), in place, and return it."""
    if not lines:
        return image
    lines = [to_drawable(line) for line in lines]
    height, width = image.shape[:2]
    sizes = [cv2.getTextSize(line, FONT, 1.0, 1)[0] for line in lines]
    text_width, text_height = max(w for w, _ in sizes), 1.6 * sum(h for _, h in sizes)
    scale = min(MAX_WIDTH * width / text_width, MAX_HEIGHT * height / text_height, MAX_SCALE)
    step = max(round(scale * text_height / len(lines)), 1)
    box_height, box_width = min(step * len(lines) + step // 2, height), min(round(scale * text_width) + step, width)
    box = image[:box_height, :box_width]
    box[:] = box // 3
    for place, line in enumerate(lines):
        at = (step // 2, (place + 1) * step - step // 5)
        cv2.putText(image, line, at, FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def to_drawable(text: str) -> str:
    """Replace the characters that OpenCV's font lacks: accents are removed, other letters become ``?``."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)
