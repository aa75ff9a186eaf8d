"""Packets of a video stream, scanned without decoding them.

The scan finds the number of frames, their display times and the packets that they are decoded from.

Notation: P packets in decoding order, n frames in display order. *Position*: index of a packet in decoding order.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator

import av
import numpy as np
from av import Packet
from av.container import InputContainer
from av.video.stream import VideoStream

from slowfast.datasets.decode.display_order import (
    UNTIMED,
    PacketList,
    order_by_groups,
    order_by_output,
    order_by_pictures,
    order_by_times,
)
from slowfast.datasets.decode.h264 import H264FieldPairs, H264Slices
from slowfast.datasets.decode.mpeg import NOT_CODED, Mpeg2FieldPairs, sequence_size
from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets
from slowfast.datasets.decode.packet_table import PacketTable, build_table
from slowfast.datasets.decode.reader import Deadline, DecodeError

# The packets of smaller streams are kept in memory between the scan and decoding.
MAX_CACHED_BYTES = 64 * 2**20
# Packets that are not shown, by codec: mask of the first byte and value. VP8: show_frame is 0 (RFC 6386, 9.1); Theora:
# header packets, as at the start of a concatenated file (specification, 6.1).
_HIDDEN = {"vp8": (0x10, 0), "theora": (0x80, 0x80)}
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE
# Decodes packets first .. last alone and yields the positions of the packets whose frames are output.
Decode = Callable[[int, int], Iterator[int]]


class PacketSource:
    """Packets of a stream, accessible by position after a scan.

    Args:
        container: Open file.
        stream: Video stream of the file.
        deadline: Time limit for reading.

    Raises:
        DecodeError: If the time limit is exceeded.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, deadline: Deadline) -> None:
        self._container, self._stream, self._deadline = container, stream, deadline
        self._cached: list[Packet] | None = []
        self.error: av.FFmpegError | None = None  # error that ended the scan early
        self._positions: dict[tuple[int | None, int | None, int | None], int] = {}
        codec, extradata = stream.codec_context.name, stream.codec_context.extradata or b""
        self.nal = NalFormat(codec, extradata) if NalFormat.supports(codec) else None
        self.sets = ParameterSets(self.nal, extradata) if self.nal is not None else None
        self._durations: list[int | None] = []
        self._first_key: Packet | None = None
        self.ends_early = self._changes_size = False
        self._listed = self._scan()
        self._keys = [position for position, key in enumerate(self._listed.key) if key]

    def _scan(self) -> PacketList:
        """Read all packets of the stream, and keep them in memory if they are small enough."""
        # This loop takes most of the time of opening a file: it is optimized for speed.
        pts: list[int | None] = []
        dts: list[int | None] = []
        key: list[bool] = []
        hidden: list[int] = []
        second: list[int] = []
        size, corrupt, position = 0, False, -1
        cached: list[Packet] | None = []
        may_hide, hides = _HIDDEN.get(self._stream.codec_context.name, (0, 0))
        empty = (
            NOT_CODED if self._stream.codec_context.name == "mpeg4" else 0
        )  # largest size of a packet without a picture
        is_flv = self._container.format.name == "flv"
        is_mpeg, sizes = self._stream.codec_context.name in ("mpeg1video", "mpeg2video"), set[bytes]()
        sets, fields = self.sets, self._fields()
        for packet in self._demux(self._container):
            position += 1
            pts.append(packet.pts)
            dts.append(packet.dts)
            is_key = packet.is_keyframe and packet.size > empty
            key.append(is_key)
            if is_key:
                self._first_key = self._first_key or packet
                if is_mpeg:
                    sizes.add(sequence_size(bytes(packet)))
            if sets is not None and (is_key or is_flv) and sets.observe(position, packet):
                fields = self._fields()
            if fields is not None and fields.is_second(memoryview(packet)):
                second.append(position)
            elif packet.is_discard or (may_hide and memoryview(packet)[0] & may_hide == hides):
                hidden.append(position)
            corrupt = packet.is_corrupt
            size += packet.size
            if cached is None:
                self._note(position, packet)
                continue
            cached.append(packet)
            if size > MAX_CACHED_BYTES:
                for number, old in enumerate(cached):
                    self._note(number, old)
                cached = None
        self._changes_size = len(sizes - {b""}) > 1
        self.ends_early = corrupt  # the file ends within the last packet
        if corrupt:
            hidden.append(position)
        self._cached = cached
        shown = np.ones(len(pts), dtype=bool)
        shown[hidden + second] = False
        return PacketList(pts, dts, key, shown, second)

    def _fields(self) -> H264FieldPairs | Mpeg2FieldPairs | None:
        """Return the detector of second fields; None if every frame has one packet."""
        if self._stream.codec_context.name == "mpeg2video":
            return Mpeg2FieldPairs()
        if self.nal is None or self.sets is None or self._stream.codec_context.name != "h264":
            return None
        if self._stream.codec_context.field_order == _PROGRESSIVE and not self.sets.changed:
            return None
        slices = H264Slices(self.nal)
        slices.learn(self.sets.current)
        return H264FieldPairs(slices) if slices.may_be_fields else None

    def _note(self, position: int, packet: Packet) -> None:
        """Record how to find a packet again that is not kept in memory."""
        self._positions[packet.pos, packet.pts, packet.size] = position
        self._durations.append(packet.duration)

    def build(self, decode: Decode) -> tuple[PacketTable, np.ndarray | None]:
        """Find the display order of the frames, by decoding if there is no other way.

        Returns:
            The table, and the display times, int64 (n,) in units of the stream, or None if unknown.
        """
        listed, stream = self._listed, self._stream
        if self._changes_size:  # FFmpeg's decoder drops the last picture before a change of size
            return self.build_by_decoding(decode)
        rank = order_by_times(listed, stream) if listed.pts else np.zeros(0, dtype=np.int64)
        by_times = rank is not None
        if rank is None:
            rank = order_by_groups(listed, stream)
        if rank is None:
            rank = order_by_pictures(self._cached or self._read_again(), stream, listed, self.nal, self.sets)
        if rank is None:
            return self.build_by_decoding(decode)
        table = build_table(rank, listed.key, self._without_lost_start(rank, decode), listed.second)
        return table, self._times(table, by_times)

    def build_by_decoding(self, decode: Decode) -> tuple[PacketTable, np.ndarray | None]:
        """Build the table by decoding the file: the frames that are output, in that order."""
        count = len(self._listed.pts)
        seconds = set(self._listed.second)
        output = (
            list(dict.fromkeys(position for position in decode(0, count - 1) if position not in seconds))
            if count
            else []
        )
        shown = np.zeros(count, dtype=bool)
        shown[output] = True
        table = build_table(order_by_output(output, count), self._listed.key, shown, self._listed.second)
        return table, self._times(table, by_times=False)

    def _without_lost_start(self, rank: np.ndarray, decode: Decode) -> np.ndarray:
        """Exclude frames at the start that cannot be decoded because the recording began within a group: bool (P,).

        These are frames decoded or shown before the first key packet and, in H.264, those before decoding has recovered
        from a start without an IDR picture.
        """
        shown = self._listed.shown
        if not self._keys:
            return shown
        first = self._keys[0]
        early = shown & ((rank < rank[first]) | (np.arange(len(rank)) < first))
        recovers = self._begins_within_group
        if not early.any() and not recovers:
            return shown
        decodable = np.zeros(len(rank), dtype=bool)
        last = max(int(np.flatnonzero(early)[-1]) if early.any() else 0, first)
        for position in decode(0, len(rank) - 1 if recovers else last):
            decodable[position] = True
            if recovers and position >= last:
                early |= shown & (rank < rank[position])
                break
        return shown & (decodable | ~early)

    def _times(self, table: PacketTable, by_times: bool) -> np.ndarray | None:
        """Return the display times, int64 (n,), from decoding timestamps if the container stores no others."""
        stores = [self._listed.pts, self._listed.dts]
        if self._container.format.name in UNTIMED:
            by_times, stores = False, stores[::-1]
        for stored in stores:
            known = [stored[position] for position in table.packet_of.tolist()]
            if None in known:
                continue
            times = np.sort(np.array(known, dtype=np.int64))
            if by_times or ((np.diff(times) > 0).all() and self._is_one_stretch()):
                return times
        return None

    def _is_one_stretch(self) -> bool:
        """Check that decoding timestamps do not restart, as in concatenated files."""
        known = [time for time in self._listed.dts if time is not None]
        return all(a <= b for a, b in zip(known, known[1:], strict=False))

    @property
    def changes_parameters(self) -> bool:
        """True if parameter sets, and with them possibly the frame size, change within the stream."""
        return self.sets is not None and self.sets.changed

    @property
    def _begins_within_group(self) -> bool:
        """True if an H.264 stream starts at a key packet without an IDR picture."""
        if self.nal is None or self._stream.codec_context.name != "h264" or self._first_key is None:
            return False
        return not self.nal.has_idr(memoryview(self._first_key))

    def may_set_orientation(self, position: int) -> bool:
        """Check if a packet may contain a display orientation, apart from that of the container."""
        if self.nal is None:
            return position > 0
        if position == 0:
            return self._first_key is not None and self.nal.sets_orientation(memoryview(self._first_key))
        return self._cached is None or self.nal.sets_orientation(memoryview(self._cached[position]))

    def last_duration(self, table: PacketTable) -> int:
        """Return the duration of the last frame in units of the stream; 0 if unknown."""
        position = int(table.packet_of[-1])
        return (self._cached[position].duration if self._cached is not None else self._durations[position]) or 0

    def _demux(self, container: InputContainer) -> Iterator[Packet]:
        """Yield packets to the end of the file, or to the first one that cannot be read."""
        try:
            limited = self._deadline.seconds is not None
            for packet in container.demux(container.streams[self._stream.index]):
                if limited and self._deadline.is_over:
                    raise DecodeError(self._deadline.message)
                if packet.size:  # empty packets end the stream or repeat a frame
                    yield packet
        except av.FFmpegError as error:
            if self._deadline.is_over:
                raise DecodeError(self._deadline.message) from error
            self.error = self.error or error

    def packets(self, first: int, last: int) -> Iterator[tuple[int, Packet]]:
        """Yield packets first..last with their positions; `first` is a key packet or 0."""
        for position, packet in self._from(first, last):
            if position == first and self.sets is not None:
                packet = self.sets.prepend(position, packet)
            yield position, packet

    def _from(self, first: int, last: int) -> Iterator[tuple[int, Packet]]:
        if self._cached is not None:
            yield from enumerate(self._cached[first : last + 1], start=first)
            return
        following = first
        for packets in (self._seek(first), enumerate(self._read_again())):
            for position, packet in packets:
                if position >= following:
                    yield position, packet
                    following = position + 1
                if position >= last:
                    return
            # Concatenated files may end early after a seek.

    def _seek(self, first: int) -> Iterator[tuple[int, Packet]]:
        """Yield packets from `first` or an earlier one on. A seek may land late or at an unknown packet."""
        at = bisect.bisect_left(self._keys, first)
        for start in [first, *self._keys[max(at - 1, 0) : at]]:
            time = self._listed.pts[start] if self._listed.pts[start] is not None else self._listed.dts[start]
            if time is None:
                break
            try:
                self._container.seek(int(time), stream=self._stream)
            except av.FFmpegError:
                break  # the format does not support seeking
            packets = self._demux(self._container)
            landed = next(packets, None)
            position = None if landed is None else self._positions.get((landed.pos, landed.pts, landed.size))
            if landed is not None and position is not None and position <= first:
                yield position, landed
                yield from enumerate(packets, start=position + 1)
                return

    def _read_again(self) -> Iterator[Packet]:
        """Yield all packets from a newly opened file."""
        name, options, limit = self._container.name, self._container.options, self._deadline.seconds
        with av.open(name, options=options, metadata_errors="replace", timeout=limit) as again:
            yield from self._demux(again)
