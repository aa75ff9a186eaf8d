"""Scan of all packets of a video stream.

Notation: P packets in decoding order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from av import Packet
from av.video.stream import VideoStream

from slowfast.datasets.decode.display_order import PacketList
from slowfast.datasets.decode.h264 import H264FieldPairs, H264Slices
from slowfast.datasets.decode.mpeg import NOT_CODED, Mpeg2FieldPairs, sequence_size
from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets

# Packets that are not shown, by codec: mask of the first byte and value. VP8: show_frame is 0 (RFC 6386, 9.1); Theora:
# header packets, as at the start of a concatenated file (specification, 6.1).
_HIDDEN = {"vp8": (0x10, 0), "theora": (0x80, 0x80)}
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE


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
