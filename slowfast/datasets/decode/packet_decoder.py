"""Decoding of runs of packets with PyAV."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.video.codeccontext import VideoCodecContext

from slowfast.datasets.decode.packet_table import PacketTable, Run
from slowfast.datasets.decode.packets import PacketSource
from slowfast.datasets.decode.reader import Deadline, DecodeError

# Codecs whose unreferenced frames can be skipped without changing any other frame. H.264 marks them per picture
# (nal_ref_idc, 7.4.1), H.265 only within a temporal layer, so its frames are all decoded.
_SKIPS_EXACTLY = frozenset({"h264"})


class PacketDecoder:
    """Decoder of runs of packets; errors are recorded and decoding continues.

    Args:
        context: Codec context of the stream.
        source: Packets of the stream.
        deadline: Time limit for reading.

    Attributes:
        error: First error since the last :meth:`reset`.
        lost: Number of frames that could not be decoded, requested or not.
        in_order: False once frames were output in an order that contradicts the packet table.
    """

    def __init__(self, context: VideoCodecContext, source: PacketSource, deadline: Deadline) -> None:
        self._context, self._source, self._deadline = context, source, deadline
        self._errors = 0  # number of errors in all reads
        self.error: av.FFmpegError | None = None
        self.lost = 0
        self.in_order = True

    def reset(self) -> None:
        """Clear the errors of the last read."""
        self.error, self.lost = None, 0

    def output_positions(self, first: int, last: int) -> Iterator[int]:
        """Decode packets first..last and yield the positions of the packets whose frames are output, in that order."""
        self._context.skip_frame = "DEFAULT"
        try:
            for position, packet in self._source.packets(first, last):
                packet.pts = position
                yield from (frame.pts for frame in self._frames(packet) if frame.pts is not None)
            yield from (frame.pts for frame in self._frames(None) if frame.pts is not None)
        finally:
            self._context.flush_buffers()

    def decode(
        self, table: PacketTable, runs: list[Run], only: set[int] | None = None
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the index and the frame for runs of packets; frames that are not in `only` may be skipped."""
        for run in runs:
            before = -1
            try:
                for frame in self._decode_run(table, run, only):
                    index = int(table.frame_of[frame.pts])
                    if index < 0:
                        continue
                    self.in_order = self.in_order and index > before
                    before = index
                    yield index, frame
            finally:
                self._context.flush_buffers()

    def _decode_run(self, table: PacketTable, run: Run, only: set[int] | None) -> Iterator[av.VideoFrame]:
        """Yield all frames of a run, with the position of their packet as ``pts``."""
        context = self._context
        may_skip = only is not None and context.name in _SKIPS_EXACTLY
        for position, packet in self._source.packets(run.first, run.last):
            unwanted = may_skip and int(table.frame_of[position]) not in (only or ())
            context.skip_frame = "NONREF" if unwanted else "DEFAULT"
            packet.pts = position
            errors = self._errors
            yield from self._frames(packet)
            # Frames shown before the first one of the run refer to packets that were not decoded.
            if (
                self._errors > errors
                and table.frame_of[position] >= 0
                and table.rank[position] >= table.rank[run.first]
            ):
                self.lost += 1
        yield from self._frames(None)

    def _frames(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Decode a packet, or flush the decoder (None); errors are recorded and decoding continues."""
        if self._deadline.is_over:
            raise DecodeError(self._deadline.message)
        try:
            return [frame for frame in self._context.decode(packet) if frame.pts is not None]
        except av.FFmpegError as error:
            self.error = self.error or error
            self._errors += 1
            return []
