"""Video reading with PyAV: packets are scanned once, then only what the wanted frames need is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from slowfast.datasets.decode.packets import PacketSource, PacketTable
from slowfast.datasets.decode.plan import Run, plan_runs, whole
from slowfast.datasets.decode.reader import (
    Decoded,
    DecodeError,
    believable_rate,
    check_file,
    distinct_frames,
    stand_in,
)
from slowfast.datasets.decode.rgb import RgbConverter

# A file whose last frame comes earlier than its header says by more than this share, and a second, was cut off.
_CUT_OFF = 0.05
# Codecs whose unreferenced frames can be left out without changing any other frame. H.264 states it per picture
# (nal_ref_idc, 7.4.1); H.265 only within one temporal layer, so its frames are all decoded.
_SKIPS_EXACTLY = frozenset({"h264"})


class PyAVReader:
    """One open video file; see `open_video`."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._container = _open(path)
        try:
            self._stream = _best_stream(self._container)
            self._context = self._stream.codec_context
            self._context.thread_count = threads
            self._context.thread_type = "NONE" if threads == 1 else "AUTO"
            self._source = PacketSource(self._container, self._stream)
            if not self.num_frames:
                raise DecodeError(f"no video frames in the file ({_reason(self._source.error)})")
            self.fps = _frame_rate(self._stream, self._source.table)
            self.cut_off = _cut_off(self._stream, self._source.table)  # what its end lacks, None: nothing
        except BaseException:
            self._container.close()
            raise
        self._size: tuple[int, int] | None = None  # (H, W), upright
        self._error: av.FFmpegError | None = None  # the first one of the current read

    @property
    def num_frames(self) -> int:
        """Frames that can be asked for, counted from the packets, whatever the header says."""
        return len(self._source.table.packet_of)

    @property
    def height(self) -> int:
        """Height of the upright frames (pixels)."""
        return self._upright_size()[0]

    @property
    def width(self) -> int:
        """Width of the upright frames (pixels)."""
        return self._upright_size()[1]

    def _upright_size(self) -> tuple[int, int]:
        """(H, W); the turn is known only from a decoded frame."""
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(self, indices: Any) -> Decoded:
        """Decode the frames at `indices` (any shape, any order, repeats allowed).

        Raises DecodeError when neither one of them nor any other frame can be decoded.
        """
        wanted, rows = distinct_frames(indices, self.num_frames)
        if not len(wanted):
            return Decoded(np.zeros((0, self.height, self.width, 3), np.uint8), rows, None)
        self._error = None
        frames, got = self._collect(wanted)
        if got.all():
            decoded = Decoded(frames, rows, self.cut_off)
        elif got.any():
            decoded = stand_in(frames[got], rows, wanted, got, _reason(self._error))
        else:
            frames = self._rescue(int(wanted[0]))
            missing = f"none of {len(wanted)} frames could be decoded ({_reason(self._error)})"
            decoded = Decoded(frames, np.zeros_like(rows), missing)
        self._size = (decoded.frames.shape[1], decoded.frames.shape[2])
        return decoded

    def times(self) -> np.ndarray:
        """When each frame is shown, float64 (n,), seconds from the first; from the rate where the file does not say."""
        table = self._source.table
        if not table.timed or self._stream.time_base is None:
            return np.arange(self.num_frames) / self.fps
        shown = table.pts[table.packet_of]
        return (shown - shown[0]) * float(self._stream.time_base)

    def every_frame(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """All frames that can be decoded, with their number, as the decoder gives them: not converted, not turned.

        Numbers ascend: a frame that a damaged file gives later than another that is shown later is left out.
        """
        self._error, last = None, -1
        for number, frame in self._decode([whole(self._source.table)]):
            if number > last:
                last = number
                yield number, frame

    @property
    def error(self) -> str | None:
        """The first thing that went wrong in reading the file's packets and in the last decoding."""
        error = self._source.error or self._error
        return None if error is None else _reason(error)

    def _collect(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The wanted frames, uint8 (U, H, W, 3) or empty when there are none, and which came out, bool (U,)."""
        table = self._source.table
        convert = RgbConverter()
        frames = np.empty((0, 0, 0, 3), np.uint8)
        slots = {int(index): row for row, index in enumerate(wanted)}
        # A second time from one key packet further back: what is marked as one may need what is before it.
        for keys_back in (0, 1):
            left = np.array(sorted(slots), dtype=np.int64)
            only = set(slots) if keys_back == 0 else None
            for index, frame in self._decode(plan_runs(table, left, keys_back), only):
                if index not in slots:
                    continue
                image = convert(frame)
                if not len(frames):
                    frames = np.empty((len(wanted), *image.shape), np.uint8)
                frames[slots.pop(index)] = image
                if not slots:
                    break
        got = np.ones(len(wanted), dtype=bool)
        got[list(slots.values())] = False
        return frames, got

    def _rescue(self, wanted: int) -> np.ndarray:
        """The decodable frame of the whole file nearest to the wanted one, uint8 (1, H, W, 3)."""
        everything = self._decode([whole(self._source.table)])
        best = min(everything, key=lambda found: abs(found[0] - wanted), default=None)
        if best is None:
            raise DecodeError(f"no frame can be decoded ({_reason(self._error or self._source.error)})")
        return RgbConverter()(best[1])[None]

    def _decode(self, runs: list[Run], only: set[int] | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their number, from runs of packets; those not in `only` may be left out."""
        table = self._source.table
        for run in runs:
            output = -1  # place in the order of output, all that is known where there are no timestamps
            try:
                for frame in self._decode_run(run, only):
                    index = int(table.frame_of[frame.pts])
                    if index < 0:
                        continue
                    output += 1
                    yield (index if table.timed else output), frame
            finally:
                self._context.flush_buffers()

    def _decode_run(self, run: Run, only: set[int] | None) -> Iterator[av.VideoFrame]:
        """All frames of a run of packets, each with its packet's place as `pts`."""
        table, context = self._source.table, self._context
        may_skip = only is not None and table.timed and context.name in _SKIPS_EXACTLY
        for place, packet in self._source.packets(run.first, run.last):
            unwanted = may_skip and int(table.frame_of[place]) not in (only or ())
            context.skip_frame = "NONREF" if unwanted else "DEFAULT"
            packet.pts = place
            yield from self._frames(packet)
        yield from self._frames(None)

    def _frames(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Frames that come out for a packet (None: what is left); an error is kept and decoding goes on."""
        try:
            return [frame for frame in self._context.decode(packet) if frame.pts is not None]
        except av.FFmpegError as error:
            self._error = self._error or error
            return []

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> PyAVReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(path: Path) -> InputContainer:
    """Open a local file; DecodeError with FFmpeg's reason when it is no medium."""
    check_file(path)
    name = f"file:{path}"  # the prefix keeps names with a colon from being taken for a protocol
    options = {"protocol_whitelist": "file"}
    try:
        return av.open(name, options=options)
    except av.FFmpegError:
        # FFmpeg's own words, such as "moov atom not found", go only to its log: once more with the log on.
        level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        try:
            with av.logging.Capture() as log:
                return av.open(name, options=options)
        except av.FFmpegError as error:
            detail = f": {log[0][2].strip()}" if log else ""
            raise DecodeError(f"not a video that FFmpeg can read ({_reason(error)}{detail})") from error
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips)


def _best_stream(container: InputContainer) -> VideoStream:
    """FFmpeg's choice among the video streams, cover pictures left out."""
    best = container.streams.best("video")
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        covers = " (only a cover picture)" if container.streams.video else ""
        raise DecodeError(f"no video stream{covers}")
    stream = best if best in moving else moving[0]
    if stream.codec_context is None:
        raise DecodeError("no decoder for its video codec")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def _frame_rate(stream: VideoStream, table: PacketTable) -> float:
    """Frames a second, from the header or else as (n - 1) / duration."""
    header = stream.average_rate or stream.guessed_rate or stream.base_rate
    times = table.pts[table.packet_of]
    ticks = int(times[-1] - times[0]) if table.timed else 0
    measured = None
    if ticks > 0 and stream.time_base is not None:
        measured = (len(times) - 1) / (ticks * float(stream.time_base))
    return believable_rate(float(header) if header else None, measured)


def _cut_off(stream: VideoStream, table: PacketTable) -> str | None:
    """What is missing at the end of a file by its own header, in words; None where all is there or nobody knows."""
    if not table.timed or stream.time_base is None:
        return None
    there = float(int(table.pts[table.packet_of][-1]) * stream.time_base)  # counted from 0, as Matroska's tag is
    said = _tagged_duration(stream)
    if stream.duration:
        said = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    if stream.container.format.name == "avi" and stream.frames and stream.average_rate:
        said = float(stream.frames / stream.average_rate)  # its duration FFmpeg takes from what is there
    if said is None or said - there <= max(1.0, _CUT_OFF * said):
        return None
    return f"the file ends after {there:.1f} of its {said:.1f} seconds"


def _tagged_duration(stream: VideoStream) -> float | None:
    """The duration (s) in a Matroska tag such as 00:00:10.333000000."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _reason(error: av.FFmpegError | None) -> str:
    """An FFmpeg error in a few words."""
    return error.strerror.lower() if error is not None and error.strerror else "the decoder gave no error"
