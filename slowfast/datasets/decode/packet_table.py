"""Packets of a video stream: their scan, the table that assigns them to frames, and the decoding of runs of them.

Notation: P packets in decoding order, n frames in display order, U wanted frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import av
import numpy as np
from av import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from slowfast.datasets.decode.display_order import NOT_CODED, Mpeg2FieldPairs, PacketList, sequence_size
from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets
from slowfast.datasets.decode.reader import Deadline, DecodeError
from slowfast.datasets.decode.slice_headers import H264FieldPairs, H264Slices

# Packets that are not shown, by codec: mask of the first byte and value. VP8: show_frame is 0 (RFC 6386, 9.1); Theora:
# header packets, as at the start of a concatenated file (specification, 6.1).
_HIDDEN = {"vp8": (0x10, 0), "theora": (0x80, 0x80)}
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE
# Additional packets that a second attempt decodes: an H.264 decoder outputs the frame in which it recovers from a start
# within a group only when others follow.
_MORE_PACKETS = 16
# Codecs whose unreferenced frames can be skipped without changing any other frame. H.264 marks them per picture
# (nal_ref_idc, 7.4.1), H.265 only within a temporal layer, so its frames are all decoded.
_SKIPS_EXACTLY = frozenset({"h264"})


# ------------------------------------------------------------------ scan
@dataclass(frozen=True)
class Scan:
    """Result of a scan.

    Attributes:
        listed: Properties of the packets.
        cached: The packets; None if they are too large to keep in memory.
        places: Position in the file, presentation timestamp and size that identify each packet, in
            the order of the packets; empty if they are in memory.
        durations: Duration of each packet in units of the stream; empty if they are in memory.
        first_key: First key packet.
        ends_early: Whether the file ends within the last packet.
        changes_size: Whether the frame size of an MPEG-1 or MPEG-2 stream changes.
    """

    listed: PacketList
    cached: list[Packet] | None
    places: list[tuple[int | None, int | None, int]]
    durations: list[int | None]
    first_key: Packet | None
    ends_early: bool
    changes_size: bool


def field_pairs(
    stream: VideoStream, nal: NalFormat | None, sets: ParameterSets | None
) -> H264FieldPairs | Mpeg2FieldPairs | None:
    """Return the detector of second fields; None if every frame has one packet."""
    if stream.codec_context.name == "mpeg2video":
        return Mpeg2FieldPairs()
    if nal is None or sets is None or stream.codec_context.name != "h264":
        return None
    if stream.codec_context.field_order == _PROGRESSIVE and not sets.changed:
        return None
    slices = H264Slices(nal)
    slices.learn(sets.current)
    return H264FieldPairs(slices) if slices.may_be_fields else None


def scan_packets(
    packets: Iterable[Packet], stream: VideoStream, nal: NalFormat | None, sets: ParameterSets | None, most_bytes: int
) -> Scan:
    """Read all packets of a stream.

    Args:
        packets: The packets.
        stream: The stream.
        nal: NAL unit format of an H.264 or H.265 stream.
        sets: Parameter sets of an H.264 or H.265 stream, which observe the packets.
        most_bytes: Size up to which the packets are kept in memory.
    """
    # This loop takes most of the time of opening a file: it is optimized for speed.
    pts, dts = list[int | None](), list[int | None]()
    key, hidden, second = list[bool](), list[int](), list[int]()
    places: list[tuple[int | None, int | None, int]] = []
    durations: list[int | None] = []
    size, corrupt, position = 0, False, -1
    cached: list[Packet] | None = []
    first_key: Packet | None = None
    codec = stream.codec_context.name
    may_hide, hides = _HIDDEN.get(codec, (0, 0))
    empty = NOT_CODED if codec == "mpeg4" else 0  # largest size of a packet without a picture
    is_flv = stream.container.format.name == "flv"
    is_mpeg, sizes = codec in ("mpeg1video", "mpeg2video"), set[bytes]()
    fields = field_pairs(stream, nal, sets)
    for packet in packets:
        position += 1
        pts.append(packet.pts)
        dts.append(packet.dts)
        is_key = packet.is_keyframe and packet.size > empty
        key.append(is_key)
        if is_key:
            first_key = first_key or packet
            if is_mpeg:
                sizes.add(sequence_size(bytes(packet)))
        if sets is not None and (is_key or is_flv) and sets.observe(position, packet):
            fields = field_pairs(stream, nal, sets)
        if fields is not None and fields.is_second(memoryview(packet)):
            second.append(position)
        elif packet.is_discard or (may_hide and memoryview(packet)[0] & may_hide == hides):
            hidden.append(position)
        corrupt = packet.is_corrupt
        size += packet.size
        if cached is None:
            places.append((packet.pos, packet.pts, packet.size))
            durations.append(packet.duration)
            continue
        cached.append(packet)
        if size > most_bytes:
            places = [(old.pos, old.pts, old.size) for old in cached]
            durations = [old.duration for old in cached]
            cached = None
    if corrupt:  # the file ends within the last packet
        hidden.append(position)
    shown = np.ones(len(pts), dtype=bool)
    shown[hidden + second] = False
    listed = PacketList(pts, dts, key, shown, second)
    return Scan(listed, cached, places, durations, first_key, corrupt, len(sizes - {b""}) > 1)


# ------------------------------------------------------------------ table
@dataclass(frozen=True)
class PacketTable:
    """Assignment of packets to frames."""

    rank: np.ndarray  # int64 (P,): display order of the packets
    keys: np.ndarray  # int64 (K,): packets at which decoding can start, ascending
    frame_of: np.ndarray  # int64 (P,): display index of the frame of a packet, -1 if it is not shown
    packet_of: np.ndarray  # int64 (n,): first packet of each frame
    last_of: np.ndarray  # int64 (n,): last packet of each frame; a different one if fields have separate packets


def build_table(rank: np.ndarray, key: list[bool] | np.ndarray, shown: np.ndarray, second: list[int]) -> PacketTable:
    """Build the table of the displayed frames.

    Args:
        rank: Display order of the packets, int64 (P,).
        key: Key packets, (P,).
        shown: Packets that begin a frame that is shown, bool (P,).
        second: Positions of the packets that complete the frame of the previous packet.
    """
    completes = np.zeros(len(rank) + 1, dtype=bool)
    completes[second] = True
    keys = np.flatnonzero(np.array(key, dtype=bool) & ~completes[:-1])
    packet_of = np.flatnonzero(shown & ~completes[:-1])
    packet_of = packet_of[np.argsort(rank[packet_of], kind="stable")]
    frame_of = np.full(len(rank), -1, dtype=np.int64)
    frame_of[packet_of] = np.arange(len(packet_of))
    seconds = np.array(second, dtype=np.int64)
    frame_of[seconds] = frame_of[seconds - 1]
    last_of = packet_of + completes[packet_of + 1]
    return PacketTable(rank, keys, frame_of, packet_of, last_of)


@dataclass(frozen=True)
class Run:
    """Consecutive packets first..last to decode."""

    first: int
    last: int


def plan_runs(table: PacketTable, wanted: np.ndarray, again: bool = False) -> list[Run]:
    """Find the runs of packets to decode for given frames.

    A run starts at the last key packet that is neither decoded nor shown after the frame (a picture that is shown
    before its key packet refers to the previous group), and ends at the last packet of the frame.

    Args:
        table: Table of the packets.
        wanted: Display indices of the frames, (U,).
        again: Plan a second attempt, one key packet earlier and some packets longer: a packet marked as a key packet
            may depend on earlier ones.

    Returns:
        Disjoint runs in ascending order.
    """
    if not len(wanted):
        return []
    runs: list[Run] = []
    for packet, last in sorted(zip(table.packet_of[wanted].tolist(), table.last_of[wanted].tolist(), strict=True)):
        first = _start(table, packet, int(again))
        while runs and first <= runs[-1].last + 1:
            first = min(first, runs.pop().first)
        runs.append(Run(first, min(last + _MORE_PACKETS * again, len(table.rank) - 1)))
    return runs


def all_packets(table: PacketTable) -> Run:
    """Return the run of all packets."""
    return Run(0, len(table.rank) - 1)


def _start(table: PacketTable, packet: int, keys_back: int) -> int:
    """Return the key packet at which decoding of a packet's frame starts; 0 before the first one."""
    at = int(np.searchsorted(table.keys, packet, side="right")) - 1
    while at > 0 and table.rank[table.keys[at]] > table.rank[packet]:
        at -= 1
    return int(table.keys[max(at - keys_back, 0)]) if at >= 0 else 0


# ------------------------------------------------------------------ decoding
# Yields packets first..last with their positions.
Packets = Callable[[int, int], Iterator[tuple[int, Packet]]]


class PacketDecoder:
    """Decoder of runs of packets; errors are recorded and decoding continues.

    Args:
        context: Codec context of the stream.
        packets: Function that yields the packets first..last with their positions.
        deadline: Time limit for reading.

    Attributes:
        error: First error since the last :meth:`reset`.
        lost: Number of frames that could not be decoded, requested or not.
        in_order: False once frames were output in an order that contradicts the packet table.
    """

    def __init__(self, context: VideoCodecContext, packets: Packets, deadline: Deadline) -> None:
        self._context, self._packets, self._deadline = context, packets, deadline
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
            for position, packet in self._packets(first, last):
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
        for position, packet in self._packets(run.first, run.last):
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

    def _frames(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Decode a packet, or flush the decoder (None); errors are recorded and decoding continues."""
        if self._deadline.is_over:
            raise DecodeError(self._deadline.message)
        try:
            return [frame for frame in self._context.decode(packet) if frame.pts is not None]
        except av.FFmpegError as error:
            self.error = self.error or error
            self._errors += 1
            return []
