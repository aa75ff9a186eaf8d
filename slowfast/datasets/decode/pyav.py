"""Video reading with PyAV: packets are scanned once, then only what the wanted frames need is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from slowfast.datasets.decode.container import best_stream, frame_rate, open_file, reason, said_duration
from slowfast.datasets.decode.packets import PacketSource, Run, plan_runs, whole
from slowfast.datasets.decode.reader import (
    Deadline,
    Decoded,
    DecodeError,
    check_frame_size,
    check_read_size,
    distinct_frames,
    scaled_down,
    stand_in,
)
from slowfast.datasets.decode.rgb import RgbConverter, frame_matrix, orientation_of

# A file whose last frame ends earlier than its header says by more than this share, and a second, was cut off.
_CUT_OFF = 0.05
# Codecs whose unreferenced frames can be left out without changing any other frame. H.264 states it per picture
# (nal_ref_idc, 7.4.1); H.265 only within one temporal layer, so its frames are all decoded.
_SKIPS_EXACTLY = frozenset({"h264"})


class PyAVReader:
    """One open video file; see `open_video`.

    Frames are those of FFmpeg's programs: in the order in which a decoder that reads the whole file puts them out, each
    turned by its own display matrix, all scaled to the upright size of the first. A longer short side than `short_side`
    is scaled down to it by area averaging.
    """

    def __init__(
        self, path: Path, threads: int = 1, timeout: float | None = None, short_side: int | None = None
    ) -> None:
        self._deadline = Deadline(timeout)
        self._short_side = short_side
        self._container = open_file(path, self._deadline)
        try:
            self._stream = best_stream(self._container)
            self._context = self._stream.codec_context
            self._context.thread_count = threads
            self._context.thread_type = "NONE" if threads == 1 else "AUTO"
            self._coded_size = self._context.width, self._context.height
            check_frame_size(*self._coded_size)
            self._error: av.FFmpegError | None = None  # the first one of the current read
            self._unconverted: str | None = None  # why a frame could not be converted to RGB
            self._errors = 0  # of all reads
            self._marked = 0  # frames of the current read that FFmpeg marks corrupt
            self._lost = 0  # frames of the current read that could not be decoded, wanted or not
            self._source = PacketSource(self._container, self._stream, self._deadline)
            self._table, self._times = self._source.build(self._places_of_output)
            self._ascends, self._by_decoding = True, False
            if not self.num_frames:
                raise DecodeError(f"no video frames in the file ({reason(self._source.error)})")
            self.fps = frame_rate(self._stream, self._times)
            self.cut_off = self._cut_off()  # what its end lacks, None: nothing
        except BaseException:
            self._container.close()
            raise
        self._size: tuple[int, int] | None = None  # (W, H) of all upright frames, scaled

    @property
    def num_frames(self) -> int:
        """Frames that can be asked for, counted from the packets, whatever the header says."""
        return len(self._table.packet_of)

    @property
    def height(self) -> int:
        """Height of the upright frames that `read` returns (pixels)."""
        return self._upright_size()[1]

    @property
    def width(self) -> int:
        """Width of the upright frames that `read` returns (pixels)."""
        return self._upright_size()[0]

    def _upright_size(self) -> tuple[int, int]:
        """(W, H); known only from a decoded frame."""
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(self, indices: Any) -> Decoded:
        """Decode the frames at `indices`.

        Args:
            indices: Frame numbers from 0, of any shape and order, repeats allowed.

        Raises:
            DecodeError: If neither one of them nor any other frame can be decoded, or a limit is exceeded.
        """
        wanted, rows = distinct_frames(indices, self.num_frames)
        if not len(wanted):
            return Decoded(np.zeros((0, self.height, self.width, 3), np.uint8), rows, None)
        frames, got = self._collect(wanted)
        if not self._ascends and self._correct_order():
            frames, got = self._collect(wanted)
        if got.all():
            return Decoded(frames, rows, self._damage(len(wanted)) or self.cut_off)
        if got.any():
            return stand_in(frames[got], rows, wanted, got, self._failure())
        frames = self._rescue(int(wanted[0]))
        missing = f"none of {len(wanted)} frames could be decoded ({self._failure()})"
        return Decoded(frames, np.zeros_like(rows), missing)

    def times(self) -> np.ndarray:
        """Return when each frame is shown in seconds from the first, float64 (n,).

        Where the file does not say, frames follow one another at the frame rate.
        """
        if self._times is None or self._stream.time_base is None:
            return np.arange(self.num_frames) / self.fps
        return (self._times - self._times[0]) * float(self._stream.time_base)

    def every_frame(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield all frames that can be decoded, with their number, as the decoder gives them: not turned or converted.

        Numbers ascend: a frame that a damaged file gives later than another that is shown later is left out.
        """
        self._error, self._marked, self._lost, last = None, 0, 0, -1
        for number, frame in self._decode([whole(self._table)]):
            if number > last:
                last = number
                self._marked += frame.is_corrupt
                yield number, frame

    @property
    def error(self) -> str | None:
        """The first thing that went wrong in reading the file's packets and in the last decoding."""
        error = self._source.error or self._error
        return self._damage(self.num_frames) if error is None else reason(error)

    def _failure(self) -> str:
        """Why frames of the current read did not come out."""
        return self._unconverted or reason(self._error or self._source.error)

    def _damage(self, count: int) -> str | None:
        """What to report of frames that came out: those that FFmpeg marks corrupt, or that build on lost ones."""
        if self._marked:
            return f"{self._marked} of {count} frames are damaged (marked by the decoder)"
        if self._lost:
            return f"{self._lost} frames that others may build on could not be decoded ({reason(self._error)})"
        return None

    def _collect(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The wanted frames, uint8 (U, H, W, 3) or empty when there are none, and which came out, bool (U,)."""
        self._error, self._unconverted, self._marked, self._lost = None, None, 0, 0
        collected = _Collected(wanted)
        for again in (False, True):
            left = collected.left()
            if not len(left):
                break
            self._lost = 0
            only = None if again else set(left.tolist())
            if not self._fill(collected, left, plan_runs(self._table, left, again), only):
                self._size = self._first_size()
                self._fill(collected, left, plan_runs(self._table, left, again), only)
        self._marked = len(collected.marked)
        return collected.frames, collected.got

    def _fill(self, collected: _Collected, left: np.ndarray, runs: list[Run], only: set[int] | None) -> bool:
        """Decode what is left of a read; False, with nothing done, where the size of the first frame must be known."""
        waiting = set(left.tolist())
        convert: RgbConverter | None = None
        for index, frame in self._decode(runs, only):
            if index not in waiting:
                continue
            if convert is None:
                self._size = self._size or self._certain_size(index, frame)
                if self._size is None:
                    return False
                check_read_size(len(collected.got), self._size[1], self._size[0])
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
        """Width and height of the first upright frame, scaled; None unless this frame determines them."""
        orientation = orientation_of(frame_matrix(frame))
        if index != 0:
            if (frame.width, frame.height) != self._coded_size or self._source.changes_parameters:
                return None
            own = int(self._table.packet_of[index])
            if self._source.may_turn_picture(0) or not orientation.is_identity and self._source.may_turn_picture(own):
                return None
        check_frame_size(frame.width, frame.height)
        return scaled_down(*orientation.size(frame.width, frame.height), self._short_side)

    def _first_size(self) -> tuple[int, int]:
        """Width and height of the first upright frame that can be decoded, scaled."""
        for run in (*plan_runs(self._table, np.array([0])), whole(self._table)):
            for _, frame in self._decode([run]):
                check_frame_size(frame.width, frame.height)
                upright = orientation_of(frame_matrix(frame)).size(frame.width, frame.height)
                return scaled_down(*upright, self._short_side)
        raise DecodeError(f"no frame can be decoded ({self._failure()})")

    def _rescue(self, wanted: int) -> np.ndarray:
        """The decodable frame of the whole file nearest to the wanted one, uint8 (1, H, W, 3)."""
        everything = self._decode([whole(self._table)])
        best = min(everything, key=lambda found: abs(found[0] - wanted), default=None)
        if best is None:
            raise DecodeError(f"no frame can be decoded ({self._failure()})")
        return RgbConverter(self._size, self._short_side)(best[1])[None]

    def _correct_order(self) -> bool:
        """Learn the order of the frames by decoding the file; whether that gives another one for as many frames.

        Called where frames came out in another order than the packets promised.
        """
        self._ascends = True
        if self._by_decoding or self._error is not None:
            return False
        self._by_decoding = True
        table, times = self._source.build_by_decoding(self._places_of_output)
        if len(table.packet_of) != self.num_frames:
            return False
        self._table, self._times = table, times
        return True

    def _places_of_output(self, first: int, last: int) -> Iterator[int]:
        """Places of the packets whose frames come out when packets first..last are decoded, in the order of output."""
        self._context.skip_frame = "DEFAULT"
        try:
            for place, packet in self._source.packets(first, last):
                packet.pts = place
                yield from (frame.pts for frame in self._frames(packet) if frame.pts is not None)
            yield from (frame.pts for frame in self._frames(None) if frame.pts is not None)
        finally:
            self._context.flush_buffers()

    def _decode(self, runs: list[Run], only: set[int] | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their number, from runs of packets; those not in `only` may be left out."""
        frame_of = self._table.frame_of
        for run in runs:
            before = -1
            try:
                for frame in self._decode_run(run, only):
                    index = int(frame_of[frame.pts])
                    if index < 0:
                        continue
                    self._ascends = self._ascends and index > before
                    before = index
                    yield index, frame
            finally:
                self._context.flush_buffers()

    def _decode_run(self, run: Run, only: set[int] | None = None) -> Iterator[av.VideoFrame]:
        """All frames of a run of packets, each with its packet's place as `pts`."""
        context, table = self._context, self._table
        may_skip = only is not None and context.name in _SKIPS_EXACTLY
        for place, packet in self._source.packets(run.first, run.last):
            unwanted = may_skip and int(table.frame_of[place]) not in (only or ())
            context.skip_frame = "NONREF" if unwanted else "DEFAULT"
            packet.pts = place
            errors = self._errors
            yield from self._frames(packet)
            # Frames shown before the one where decoding starts refer to what was left out.
            if self._errors > errors and table.frame_of[place] >= 0 and table.rank[place] >= table.rank[run.first]:
                self._lost += 1
        yield from self._frames(None)

    def _frames(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Frames that come out for a packet (None: what is left); an error is kept and decoding goes on."""
        if self._deadline.is_over:
            raise DecodeError(self._deadline.message)
        try:
            return [frame for frame in self._context.decode(packet) if frame.pts is not None]
        except av.FFmpegError as error:
            self._error = self._error or error
            self._errors += 1
            return []

    def _cut_off(self) -> str | None:
        """What is missing at the end of a file, in words; None where all is there or nobody knows."""
        within = "the file ends in the middle of a frame" if self._source.ends_early else None
        stream, times = self._stream, self._times
        if times is None or stream.time_base is None:
            return within
        unit = float(stream.time_base)
        # The last frame is shown for its own duration; where that is unknown, for as long as any other may have been.
        usual = max(1 / self.fps, float(np.diff(times).max(initial=0)) * unit)
        there = float(times[-1]) * unit + max(self._source.last_duration(self._table) * unit, usual)
        said = said_duration(stream, int(times[0]))
        if said is None or said - there <= max(1.0, _CUT_OFF * said):
            return within
        return f"the file ends after {there:.1f} of its {said:.1f} seconds"

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> PyAVReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Collected:
    """Frames of one read. U wanted frames."""

    def __init__(self, wanted: np.ndarray) -> None:
        self._rows = {int(index): row for row, index in enumerate(wanted)}
        self.frames = np.empty((0, 0, 0, 3), np.uint8)  # (U, H, W, 3) once there is one
        self.got = np.zeros(len(wanted), dtype=bool)
        self.marked: set[int] = set()  # frames that FFmpeg marks corrupt

    def add(self, index: int, image: np.ndarray, is_corrupt: bool) -> None:
        """Take a frame; an intact one replaces a damaged one."""
        row = self._rows[index]
        if is_corrupt and self.got[row]:
            return
        if not len(self.frames):
            self.frames = np.empty((len(self.got), *image.shape), np.uint8)
        self.frames[row], self.got[row] = image, True
        (self.marked.add if is_corrupt else self.marked.discard)(index)

    def left(self) -> np.ndarray:
        """Frames that are missing or damaged, ascending."""
        return np.array(
            [index for index, row in self._rows.items() if not self.got[row] or index in self.marked], dtype=np.int64
        )
