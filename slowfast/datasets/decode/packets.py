"""Packets of a video stream, read without decoding them: how many frames there are, when each is shown, which packet
it comes from, and how to get at that packet again.

P packets in decoding order, n frames in display order.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
from slowfast.datasets.decode.reader import Deadline, DecodeError

# Packets of smaller streams stay in memory between the scan and the decoding.
HELD_BYTES = 64 * 2**20

# Packets that show no picture, by codec: bits of the first byte and their value. VP8: show_frame is 0 (RFC 6386, 9.1);
# Theora: a header packet, as at the start of a joined file (specification, 6.1).
_HIDDEN = {"vp8": (0x10, 0), "theora": (0x80, 0x80)}

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE

# Decodes packets first .. last with nothing before them; gives the places of the packets whose frames come out.
Decode = Callable[[int, int], Iterator[int]]


@dataclass(frozen=True)
class PacketTable:
    """Which packet gives which frame."""

    rank: np.ndarray  # int64 (P,) order in which packets are shown
    keys: np.ndarray  # int64 (K,) packets at which decoding can start, ascending
    frame_of: np.ndarray  # int64 (P,) display index of the packet's frame, -1 when it shows none
    packet_of: np.ndarray  # int64 (n,) first packet of each frame in display order
    last_of: np.ndarray  # int64 (n,) last packet of each frame: another one where fields have packets of their own


def build_table(rank: np.ndarray, key: list[bool], shown: np.ndarray, second: list[int]) -> PacketTable:
    """Build the table of the frames that are shown, in order of rank.

    Args:
        rank: Display order of the packets, int64 (P,).
        key: Whether each packet is a key packet.
        shown: Whether each packet begins a frame that is shown, bool (P,).
        second: Packets that complete the frame of the packet before.
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


class PacketSource:
    """The packets of one stream: scanned once, then given out by their place in decoding order.

    Args:
        container: Open file.
        stream: Its video stream.
        deadline: Time limit for reading.

    Raises:
        DecodeError: If the deadline passes.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, deadline: Deadline) -> None:
        self._container, self._stream, self._deadline = container, stream, deadline
        self._held: list[Packet] | None = []
        self.error: av.FFmpegError | None = None  # what ended the scan early
        self._places: dict[tuple[int | None, int | None, int | None], int] = {}
        codec, extradata = stream.codec_context.name, stream.codec_context.extradata or b""
        self.nal = NalFormat(codec, extradata) if NalFormat.supports(codec) else None
        self.sets = ParameterSets(self.nal, extradata) if self.nal is not None else None
        self._durations: list[int | None] = []
        self._first_key: Packet | None = None
        self.ends_early = self._changes_size = False
        self._listed = self._scan()
        self._keys = [place for place, key in enumerate(self._listed.key) if key]

    def _scan(self) -> PacketList:
        """Read every packet of the stream, keeping them while they are small enough."""
        # Opening is mostly this loop: it is written for speed.
        pts: list[int | None] = []
        dts: list[int | None] = []
        key: list[bool] = []
        hidden: list[int] = []
        second: list[int] = []
        size, corrupt, place = 0, False, -1
        held: list[Packet] | None = []
        may_hide, hides = _HIDDEN.get(self._stream.codec_context.name, (0, 0))
        empty = NOT_CODED if self._stream.codec_context.name == "mpeg4" else 0  # bytes of a packet without a picture
        is_flv = self._container.format.name == "flv"
        is_mpeg, sizes = self._stream.codec_context.name in ("mpeg1video", "mpeg2video"), set[bytes]()
        sets, fields = self.sets, self._fields()
        for packet in self._demux(self._container):
            place += 1
            pts.append(packet.pts)
            dts.append(packet.dts)
            is_key = packet.is_keyframe and packet.size > empty
            key.append(is_key)
            if is_key:
                self._first_key = self._first_key or packet
                if is_mpeg:
                    sizes.add(sequence_size(bytes(packet)))
            if sets is not None and (is_key or is_flv) and sets.see_key(place, packet):
                fields = self._fields()
            if fields is not None and fields.is_second(memoryview(packet)):
                second.append(place)
            elif packet.is_discard or (may_hide and memoryview(packet)[0] & may_hide == hides):
                hidden.append(place)
            corrupt = packet.is_corrupt
            size += packet.size
            if held is None:
                self._note(place, packet)
                continue
            held.append(packet)
            if size > HELD_BYTES:
                for number, old in enumerate(held):
                    self._note(number, old)
                held = None
        self._changes_size = len(sizes - {b""}) > 1
        self.ends_early = corrupt  # the last packet ends with the file, in the middle of a frame
        if corrupt:
            hidden.append(place)
        self._held = held
        shown = np.ones(len(pts), dtype=bool)
        shown[hidden + second] = False
        return PacketList(pts, dts, key, shown, second)

    def _fields(self) -> H264FieldPairs | Mpeg2FieldPairs | None:
        """What finds second fields; None where frames have one packet each."""
        if self._stream.codec_context.name == "mpeg2video":
            return Mpeg2FieldPairs()
        if self.nal is None or self.sets is None or self._stream.codec_context.name != "h264":
            return None
        if self._stream.codec_context.field_order == _PROGRESSIVE and not self.sets.change:
            return None
        slices = H264Slices(self.nal)
        slices.learn(self.sets.current)
        return H264FieldPairs(slices) if slices.may_be_fields else None

    def _note(self, place: int, packet: Packet) -> None:
        """Note how to find a packet again that is not held."""
        self._places[packet.pos, packet.pts, packet.size] = place
        self._durations.append(packet.duration)

    def build(self, decode: Decode) -> tuple[PacketTable, np.ndarray | None]:
        """Find the display order of the frames, by decoding where nothing else tells.

        Returns:
            The table, and when each frame is shown, int64 (n,) in stream units; None where the file does not say.
        """
        listed, stream = self._listed, self._stream
        if self._changes_size:  # FFmpeg's decoder drops the last picture before another size
            return self.build_by_decoding(decode)
        rank = order_by_times(listed, stream) if listed.pts else np.zeros(0, dtype=np.int64)
        by_times = rank is not None
        if rank is None:
            rank = order_by_groups(listed, stream)
        if rank is None:
            rank = order_by_pictures(self._held or self._read_again(), stream, listed, self.nal, self.sets)
        if rank is None:
            return self.build_by_decoding(decode)
        table = build_table(rank, listed.key, self._without_lost_start(rank, decode), listed.second)
        return table, self._times(table, by_times)

    def build_by_decoding(self, decode: Decode) -> tuple[PacketTable, np.ndarray | None]:
        """Build the table of the frames that come out when everything is decoded, in the order of output."""
        count = len(self._listed.pts)
        seconds = set(self._listed.second)
        output = list(dict.fromkeys(place for place in decode(0, count - 1) if place not in seconds)) if count else []
        shown = np.zeros(count, dtype=bool)
        shown[output] = True
        table = build_table(order_by_output(output, count), self._listed.key, shown, self._listed.second)
        return table, self._times(table, by_times=False)

    def _without_lost_start(self, rank: np.ndarray, decode: Decode) -> np.ndarray:
        """Leave out frames at the start of a recording that began within a group and that do not come out, bool (P,).

        These are frames decoded or shown before the first key packet, and in H.264 those before the picture has
        recovered from a start that is no IDR picture.
        """
        shown = self._listed.shown
        if not self._keys:
            return shown
        first = self._keys[0]
        early = shown & ((rank < rank[first]) | (np.arange(len(rank)) < first))
        recovers = self._begins_within_group
        if not early.any() and not recovers:
            return shown
        come_out = np.zeros(len(rank), dtype=bool)
        last = max(int(np.flatnonzero(early)[-1]) if early.any() else 0, first)
        for place in decode(0, len(rank) - 1 if recovers else last):
            come_out[place] = True
            if recovers and place >= last:
                early |= shown & (rank < rank[place])
                break
        return shown & (come_out | ~early)

    def _times(self, table: PacketTable, by_times: bool) -> np.ndarray | None:
        """When each frame is shown, int64 (n,); from decoding times where the container stores no others."""
        stores = [self._listed.pts, self._listed.dts]
        if self._container.format.name in UNTIMED:
            by_times, stores = False, stores[::-1]
        for stored in stores:
            known = [stored[place] for place in table.packet_of.tolist()]
            if None in known:
                continue
            times = np.sort(np.array(known, dtype=np.int64))
            if by_times or ((np.diff(times) > 0).all() and self._is_one_stretch()):
                return times
        return None

    def _is_one_stretch(self) -> bool:
        """Return whether decoding times do not start again, as in files joined end to end."""
        known = [time for time in self._listed.dts if time is not None]
        return all(a <= b for a, b in zip(known, known[1:], strict=False))

    @property
    def changes_parameters(self) -> bool:
        """Return whether parameter sets, and with them perhaps the size of frames, change within the stream."""
        return self.sets is not None and self.sets.change

    @property
    def _begins_within_group(self) -> bool:
        """Return whether an H.264 stream starts at a key packet other than an IDR picture."""
        if self.nal is None or self._stream.codec_context.name != "h264" or self._first_key is None:
            return False
        return not self.nal.has_idr(memoryview(self._first_key))

    def may_turn_picture(self, place: int) -> bool:
        """Return whether a packet itself may say how its picture is turned, apart from what the container says."""
        if self.nal is None:
            return place > 0
        if place == 0:
            return self._first_key is not None and self.nal.turns_picture(memoryview(self._first_key))
        return self._held is None or self.nal.turns_picture(memoryview(self._held[place]))

    def last_duration(self, table: PacketTable) -> int:
        """Duration of the frame shown last in stream units; 0 where the file does not say."""
        place = int(table.packet_of[-1])
        return (self._held[place].duration if self._held is not None else self._durations[place]) or 0

    def _demux(self, container: InputContainer) -> Iterator[Packet]:
        """Yield packets up to the end of the file or to where it can't be read any further."""
        try:
            limited = self._deadline.seconds is not None
            for packet in container.demux(container.streams[self._stream.index]):
                if limited and self._deadline.is_over:
                    raise DecodeError(self._deadline.message)
                if packet.size:  # empty ones end the stream or repeat a frame
                    yield packet
        except av.FFmpegError as error:
            if self._deadline.is_over:
                raise DecodeError(self._deadline.message) from error
            self.error = self.error or error

    def packets(self, first: int, last: int) -> Iterator[tuple[int, Packet]]:
        """Yield packets first..last with their place. `first` is a key packet or 0."""
        for place, packet in self._from(first, last):
            if place == first and self.sets is not None:
                packet = self.sets.prepend(place, packet)
            yield place, packet

    def _from(self, first: int, last: int) -> Iterator[tuple[int, Packet]]:
        if self._held is not None:
            yield from enumerate(self._held[first : last + 1], start=first)
            return
        following = first
        for packets in (self._seek(first), enumerate(self._read_again())):
            for place, packet in packets:
                if place >= following:
                    yield place, packet
                    following = place + 1
                if place >= last:
                    return
            # Files joined end to end may end early after a seek.

    def _seek(self, first: int) -> Iterator[tuple[int, Packet]]:
        """Packets from `first` or earlier on. Where a seek lands is checked: it may be late, or nowhere known."""
        at = bisect.bisect_left(self._keys, first)
        for start in [first, *self._keys[max(at - 1, 0) : at]]:
            time = self._listed.pts[start] if self._listed.pts[start] is not None else self._listed.dts[start]
            if time is None:
                break
            try:
                self._container.seek(int(time), stream=self._stream)
            except av.FFmpegError:
                break  # a format without seeking
            packets = self._demux(self._container)
            landed = next(packets, None)
            place = None if landed is None else self._places.get((landed.pos, landed.pts, landed.size))
            if landed is not None and place is not None and place <= first:
                yield place, landed
                yield from enumerate(packets, start=place + 1)
                return

    def _read_again(self) -> Iterator[Packet]:
        """All packets, from the file opened once more."""
        name, options, limit = self._container.name, self._container.options, self._deadline.seconds
        with av.open(name, options=options, metadata_errors="replace", timeout=limit) as again:
            yield from self._demux(again)


@dataclass(frozen=True)
class Run:
    """Packets first..last, in decoding order, to decode without a gap."""

    first: int
    last: int


# Packets after a frame's own that a second attempt decodes, too: the frame in which an H.264 decoder recovers from
# a start within a group comes out only when others follow.
_MORE_PACKETS = 16


def plan_runs(table: PacketTable, wanted: np.ndarray, again: bool = False) -> list[Run]:
    """Return the runs of packets that give the wanted frames, ascending and disjoint.

    Each starts at the last key packet that is decoded and shown no later than the frame (a picture shown before its
    key packet refers to the group before) and ends at the frame's last packet.

    Args:
        table: The packets.
        wanted: Display indices of the frames (U,).
        again: Plan a second attempt, one key packet earlier and some packets longer: what is marked as a key packet
            may need what is before it.
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


def whole(table: PacketTable) -> Run:
    """Return the run of all packets."""
    return Run(0, len(table.rank) - 1)


def _start(table: PacketTable, packet: int, keys_back: int) -> int:
    """The key packet to start at for one packet's frame; 0 before the first."""
    at = int(np.searchsorted(table.keys, packet, side="right")) - 1
    while at > 0 and table.rank[table.keys[at]] > table.rank[packet]:
        at -= 1
    return int(table.keys[max(at - keys_back, 0)]) if at >= 0 else 0
