"""Video decoding with PyAV: packets are scanned once, then only the required ones are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from slowfast.datasets.decode.container import (
    best_stream,
    frame_rate,
    header_duration,
    missing_bytes,
    open_file,
    reason,
    why_not_decodable,
)
from slowfast.datasets.decode.packet_table import PacketDecoder, Run, all_packets, plan_runs
from slowfast.datasets.decode.packets import PacketSource
from slowfast.datasets.decode.reader import (
    Deadline,
    Decoded,
    DecodeError,
    FrameReader,
    check_frame_size,
    check_read_size,
    fill_missing,
    scaled_down,
)
from slowfast.datasets.decode.rgb import RgbConverter, frame_matrix, orientation_of

# A file is truncated if its last frame ends earlier than its header states by more than this share, and a second.
_TRUNCATION_TOLERANCE = 0.05


class PyAVReader(FrameReader):
    """Open video file; for the arguments see :func:`slowfast.datasets.decode.open_video`.

    The frames equal those of the ffmpeg program: in the order in which a decoder of the complete file outputs them,
    each rotated by its display matrix, all scaled to the upright size of the first.

    Attributes:
        fps: Frame rate in frames/s.
        truncation: Description of the missing end of a truncated file, or None.
    """

    def __init__(
        self, path: Path, threads: int = 1, timeout: float | None = None, short_side: int | None = None
    ) -> None:
        deadline = Deadline(timeout)
        self._short_side = short_side
        self._container = open_file(path, deadline)
        try:
            self._stream = best_stream(self._container)
            context = self._stream.codec_context
            context.thread_count = threads
            context.thread_type = "NONE" if threads == 1 else "AUTO"
            self._coded_size = context.width, context.height
            check_frame_size(*self._coded_size)
            self._unconverted: str | None = None  # reason why a frame could not be converted to RGB
            self._corrupt = 0  # frames of the current read that FFmpeg marks as corrupt
            self._source = PacketSource(self._container, self._stream, deadline)
            self._decoder = PacketDecoder(context, self._source.packets, deadline)
            self._by_decoding = False
            self._build()
            if self.truncation is not None and not self._source.is_scanned:
                self._source.scan()
                self._build()
        except BaseException:
            self._container.close()
            raise

    def _build(self) -> None:
        """Find the frames."""
        self._table, self._times = self._source.build(self._decoder.output_positions)
        if not self.num_frames:
            raise DecodeError(f"no video frames in the file: {why_not_decodable(self._stream, self._source.error)}")
        self.fps = frame_rate(self._stream, self._times)
        self.truncation = self._truncation()

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width of a pixel divided by its height, before rotation; None if the file does not state it."""
        return self._stream.sample_aspect_ratio

    @property
    def num_frames(self) -> int:
        """Number of frames, counted from the packets and not taken from the header."""
        return len(self._table.packet_of)

    def _decode(self, wanted: np.ndarray, rows: np.ndarray) -> Decoded:
        frames, valid = self._collect(wanted)
        if not self._decoder.in_order and self._correct_order():
            frames, valid = self._collect(wanted)
        if valid.all():
            return Decoded(frames, rows, self._damage(len(wanted)) or self._unreferenced(wanted) or self.truncation)
        why = "; ".join(filter(None, (self._failure(), self.truncation)))
        if valid.any():
            return fill_missing(frames[valid], rows, wanted, valid, why)
        frames = self._nearest_decodable(int(wanted[0]))
        missing = f"none of {len(wanted)} frames could be decoded: {why}"
        return Decoded(frames, np.zeros_like(rows), missing)

    def times(self) -> np.ndarray:
        """Return the display time of each frame in seconds after the first, float64 (n,).

        If the file does not store them, frames are assumed to be evenly spaced.
        """
        if self._times is None or self._stream.time_base is None:
            return np.arange(self.num_frames) / self.fps
        return (self._times - self._times[0]) * float(self._stream.time_base)

    def every_frame(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the index of each decodable frame and the frame as decoded, neither rotated nor converted.

        Indices are ascending: frames that a damaged file outputs out of order are skipped.
        """
        self._decoder.reset()
        self._corrupt, last = 0, -1
        for number, frame in self._decoder.decode(self._table, [all_packets(self._table)]):
            if number > last:
                last = number
                self._corrupt += frame.is_corrupt
                yield number, frame

    @property
    def error(self) -> str | None:
        """Description of the first error in reading the file or in the last decoding, or None."""
        error = self._source.error or self._decoder.error
        return self._damage(self.num_frames) if error is None else reason(error)

    def _failure(self) -> str:
        """Return the reason why frames of the current read could not be decoded."""
        return self._unconverted or why_not_decodable(self._stream, self._decoder.error or self._source.error)

    def _damage(self, count: int) -> str | None:
        """Describe the damage of `count` decoded frames that FFmpeg marks as corrupt or that depend on lost frames."""
        if self._corrupt:
            return f"{self._corrupt} of {count} frames are damaged (marked by the decoder)"
        if self._decoder.lost:
            why = reason(self._decoder.error)
            return f"{self._decoder.lost} frames that others may depend on could not be decoded: {why}"
        return None

    def _unreferenced(self, wanted: np.ndarray) -> str | None:
        """Describe frames before the first key frame of a raw MPEG-4 stream, which its decoder does not mark."""
        if self._container.format.name != "m4v":
            return None
        first = self._table.keys[0] if len(self._table.keys) else len(self._table.rank)
        early = int((self._table.packet_of[wanted] < first).sum())
        return f"{early} of {len(wanted)} frames come before the first key frame" if early else None

    def _collect(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode frames; return them, uint8 (U, H, W, 3) or empty, and a mask of the valid ones, bool (U,)."""
        self._decoder.reset()
        self._unconverted, self._corrupt = None, 0
        collected = _FrameBuffer(wanted)
        for again in (False, True):
            left = collected.remaining()
            if not len(left):
                break
            self._decoder.lost = 0
            only = None if again else set(left.tolist())
            if not self._fill(collected, left, plan_runs(self._table, left, again), only):
                self._size = self._first_size()
                self._fill(collected, left, plan_runs(self._table, left, again), only)
        self._corrupt = len(collected.corrupt)
        return collected.frames, collected.valid

    def _fill(self, collected: _FrameBuffer, left: np.ndarray, runs: list[Run], only: set[int] | None) -> bool:
        """Decode the remaining frames; return False, doing nothing, if the size of the first frame must be known."""
        waiting = set(left.tolist())
        convert: RgbConverter | None = None
        for index, frame in self._decoder.decode(self._table, runs, only):
            if index not in waiting:
                continue
            if convert is None:
                self._size = self._size or self._certain_size(index, frame)
                if self._size is None:
                    return False
                check_read_size(len(collected.valid), self._size[1], self._size[0])
                convert = RgbConverter(self._size, self._short_side)
            try:
                collected.add(index, convert(frame), frame.is_corrupt)
            except DecodeError as error:
                self._unconverted = str(error)
                continue
            waiting.remove(index)
            if not waiting:
                break
        return True

    def _certain_size(self, index: int, frame: av.VideoFrame) -> tuple[int, int] | None:
        """Return the scaled width and height of the first upright frame; None unless this frame determines them."""
        orientation = orientation_of(frame_matrix(frame))
        if index != 0:
            if (frame.width, frame.height) != self._coded_size or self._source.changes_parameters:
                return None
            own = int(self._table.packet_of[index])
            if (
                self._source.may_set_orientation(0)
                or not orientation.is_identity
                and self._source.may_set_orientation(own)
            ):
                return None
        check_frame_size(frame.width, frame.height)
        return scaled_down(*orientation.size(frame.width, frame.height), self._short_side)

    def _first_size(self) -> tuple[int, int]:
        """Return the scaled width and height of the first upright frame that can be decoded."""
        for run in (*plan_runs(self._table, np.array([0])), all_packets(self._table)):
            for _, frame in self._decoder.decode(self._table, [run]):
                check_frame_size(frame.width, frame.height)
                upright = orientation_of(frame_matrix(frame)).size(frame.width, frame.height)
                return scaled_down(*upright, self._short_side)
        raise DecodeError(f"no frame can be decoded: {self._failure()}")

    def _nearest_decodable(self, wanted: int) -> np.ndarray:
        """Return the decodable frame of the file that is nearest to a frame, uint8 (1, H, W, 3)."""
        everything = self._decoder.decode(self._table, [all_packets(self._table)])
        best = min(everything, key=lambda found: abs(found[0] - wanted), default=None)
        if best is None:
            raise DecodeError(f"no frame can be decoded: {self._failure()}")
        return RgbConverter(self._size, self._short_side)(best[1])[None]

    def _correct_order(self) -> bool:
        """Find the display order by decoding the file, after frames were output in an unexpected order.

        Returns:
            Whether the order was corrected; False if the number of frames would change.
        """
        self._decoder.in_order = True
        if self._by_decoding or self._decoder.error is not None:
            return False
        self._by_decoding = True
        table, times = self._source.build_by_decoding(self._decoder.output_positions)
        if len(table.packet_of) != self.num_frames:
            return False
        self._table, self._times = table, times
        return True

    def _truncation(self) -> str | None:
        """Describe the missing end of a truncated file; None if it is complete or that is unknown."""
        within = "the file ends in the middle of a frame" if self._source.ends_early else None
        within = missing_bytes(self._container, self._stream, self.num_frames) or within
        stream, times = self._stream, self._times
        if times is None or stream.time_base is None:
            return within
        unit = float(stream.time_base)
        # If the duration of the last frame is unknown, assume the longest one of all frames.
        usual = max(1 / self.fps, float(np.diff(times).max(initial=0)) * unit)
        end = float(times[-1]) * unit + max(self._source.last_duration(self._table) * unit, usual)
        expected = header_duration(stream, int(times[0]))
        if expected is None or expected - end <= max(1.0, _TRUNCATION_TOLERANCE * expected):
            return within
        return f"the file ends after {end:.1f} of its {expected:.1f} seconds"

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class _FrameBuffer:
    """Buffer for the U frames of a read."""

    def __init__(self, wanted: np.ndarray) -> None:
        self._rows = {int(index): row for row, index in enumerate(wanted)}
        self.frames = np.empty((0, 0, 0, 3), np.uint8)  # (U, H, W, 3), allocated with the first frame
        self.valid = np.zeros(len(wanted), dtype=bool)
        self.corrupt: set[int] = set()  # frames that FFmpeg marks as corrupt

    def add(self, index: int, image: np.ndarray, is_corrupt: bool) -> None:
        """Store a frame; an intact one replaces a corrupt one."""
        row = self._rows[index]
        if is_corrupt and self.valid[row]:
            return
        if not len(self.frames):
            self.frames = np.empty((len(self.valid), *image.shape), np.uint8)
        self.frames[row], self.valid[row] = image, True
        (self.corrupt.add if is_corrupt else self.corrupt.discard)(index)

    def remaining(self) -> np.ndarray:
        """Return the frames that are missing or corrupt, ascending."""
        return np.array(
            [index for index, row in self._rows.items() if not self.valid[row] or index in self.corrupt], dtype=np.int64
        )
