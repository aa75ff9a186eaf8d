"""A video stream's packets, read without decoding them: how many frames there are, when each is shown,
which packet it comes from, and how to get at that packet again.

P packets in decoding order, n frames in display order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

# Packets of smaller streams stay in memory between the scan and the decoding.
HELD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PacketTable:
    """Which packet gives which frame."""

    pts: np.ndarray  # int64 (P,) presentation time in stream units; 0 where there is none
    keys: np.ndarray  # int64 (K,) packets at which decoding can start, ascending
    frame_of: np.ndarray  # int64 (P,) display index of the packet's frame, -1 when it shows none
    packet_of: np.ndarray  # int64 (n,) packet of each frame in display order
    timed: bool  # False: no usable timestamps, frames are known only by decoding from the start


def build_table(pts: list[int | None], key: list[bool], shown: list[bool]) -> PacketTable:
    """Order frames by presentation time (equal times by decoding order).

    What comes before the first key packet, in decoding or in display, can't be decoded and is not counted.
    """
    visible = np.array(shown, dtype=bool)
    keys = np.flatnonzero(np.array(key, dtype=bool))
    times = np.array([time if time is not None else 0 for time in pts], dtype=np.int64)
    timed = all(time is not None for time in pts) and _keys_are_latest(times, keys)
    if len(keys):
        visible[: keys[0]] = False
        if timed and visible[keys[0]]:
            visible &= times >= times[keys[0]]
    packet_of = np.flatnonzero(visible)
    if timed:
        packet_of = packet_of[np.argsort(times[packet_of], kind="stable")]
    frame_of = np.full(len(times), -1, dtype=np.int64)
    frame_of[packet_of] = np.arange(len(packet_of))
    return PacketTable(times, keys, frame_of, packet_of, timed)


def _keys_are_latest(times: np.ndarray, keys: np.ndarray) -> bool:
    """Whether each key packet is shown after all that is decoded before it, as in every codec.

    Where not, timestamps are broken, or start again as in files joined end to end.
    """
    return bool((times[keys] >= np.maximum.accumulate(times)[keys]).all())


class PacketSource:
    """The packets of one stream: scanned once, then given out by their place in decoding order."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._held: list[av.Packet] | None = []
        self.error: av.FFmpegError | None = None  # what ended the scan early
        self._places: dict[tuple[int | None, int | None, int | None], int] = {}
        self.table = self._scan()

    def _scan(self) -> PacketTable:
        """Read every packet of the stream, keeping them while they are small enough."""
        pts: list[int | None] = []
        key: list[bool] = []
        shown: list[bool] = []
        size, cut_off = 0, False
        # AVI stores no presentation times; with reordered frames FFmpeg's guesses are wrong.
        guessed = self._container.format.name == "avi" and self._stream.codec_context.has_b_frames
        may_hide = self._stream.codec_context.name == "vp8"
        for packet in self._demux(self._container):
            pts.append(None if guessed else packet.pts)
            key.append(packet.is_keyframe)
            shown.append(not (packet.is_discard or (may_hide and _is_hidden(packet))))
            cut_off = packet.is_corrupt
            size += packet.size
            if self._held is not None:
                self._held.append(packet)
                if size > HELD_BYTES:
                    self._places = {_identity(old): place for place, old in enumerate(self._held)}
                    self._held = None
            else:
                self._places[_identity(packet)] = len(pts) - 1
        if cut_off:  # the last packet ends with the file, in the middle of a frame
            shown[-1] = False
        return build_table(pts, key, shown)

    def _demux(self, container: InputContainer) -> Iterator[av.Packet]:
        """Packets up to the end of the file or to where it can't be read any further."""
        try:
            for packet in container.demux(container.streams[self._stream.index]):
                if packet.size:  # empty ones end the stream or repeat a frame
                    yield packet
        except av.FFmpegError as error:
            self.error = self.error or error

    def packets(self, first: int, last: int) -> Iterator[tuple[int, av.Packet]]:
        """Packets first..last with their place. `first` is a key packet or 0."""
        if self._held is not None:
            yield from enumerate(self._held[first : last + 1], start=first)
            return
        for place, packet in self._seek(first):
            if place > last:
                return
            if place >= first:
                yield place, packet

    def _seek(self, first: int) -> Iterator[tuple[int, av.Packet]]:
        """Packets from `first` or earlier on. Where a seek lands is checked: it may be late, or nowhere known."""
        before = self.table.keys[self.table.keys < first][-1:]
        for time in self.table.pts[[first, *before]] if self.table.timed else ():
            try:
                self._container.seek(int(time), stream=self._stream)
            except av.FFmpegError:
                break  # a format without seeking
            packets = self._demux(self._container)
            landed = next(packets, None)
            place = None if landed is None else self._places.get(_identity(landed))
            if landed is not None and place is not None and place <= first:
                yield place, landed
                yield from enumerate(packets, start=place + 1)
                return
        with av.open(self._container.name, options=self._container.options) as again:
            yield from enumerate(self._demux(again))


def _identity(packet: av.Packet) -> tuple[int | None, int | None, int | None]:
    """What tells a packet from all others of its stream."""
    return packet.pos, packet.pts, packet.size


def _is_hidden(packet: av.Packet) -> bool:
    """Whether a VP8 packet is a reference that is never shown (RFC 6386, 9.1: bit 4 of the frame tag)."""
    return not memoryview(packet)[0] & 0x10
