"""Scan of all packets of a video stream, checks of sample tables in place of a scan, and the table of packets.

Sample tables are checked against the packets that decoding depends on: the key packets and the first ones. The table
says which packets to decode for some frames.

Notation: P packets in decoding order, n frames in display order, U wanted frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from av import Packet
from av.video.stream import VideoStream

from slowfast.datasets.decode.display_order import NOT_CODED, Mpeg2FieldPairs, PacketList, sequence_size
from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets
from slowfast.datasets.decode.sample_tables import Samples
from slowfast.datasets.decode.slice_headers import H264FieldPairs, H264Slices

# Packets that are not shown, by codec: mask of the first byte and value. VP8: show_frame is 0 (RFC 6386, 9.1); Theora:
# header packets, as at the start of a concatenated file (specification, 6.1).
_HIDDEN = {"vp8": (0x10, 0), "theora": (0x80, 0x80)}
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE
VERIFIED = 8  # packets compared with the sample tables
MAX_GROUP = 600  # maximum interval of sync samples for using the sample tables
_START = 16  # bytes of a key packet needed to recognize a leading slice
# Additional packets that a second attempt decodes: an H.264 decoder outputs the frame in which it recovers from a start
# within a group only when others follow.
_MORE_PACKETS = 16


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


def check_keys(samples: Samples, path: str, stream: VideoStream, nal: NalFormat, sets: ParameterSets) -> bytes | None:
    """Check that the sync samples are key packets as a scan finds them, with the same parameter sets.

    Args:
        samples: Samples of the stream.
        path: The file.
        stream: The stream.
        nal: NAL unit format of the stream.
        sets: Parameter sets of the stream, updated with the sync samples.

    Returns:
        The beginning of the first one; None if the stream must be scanned.
    """
    keys = np.flatnonzero(samples.key)
    if not nal.length_size or field_pairs(stream, nal, sets) is not None:
        return None
    if np.diff(np.append(keys, len(samples))).max() > MAX_GROUP:
        return None  # recovery points are not in the tables, and decoding would start too early
    first = b""
    for at, start in zip(keys.tolist(), samples.heads(path, keys, _START), strict=True):
        if at and nal.begins_with_key_slice(start):
            continue  # no parameter sets, and an IDR picture in H.264
        [head] = samples.heads(path, np.array([at]), nal.HEAD)
        sets.observe_head(at, memoryview(head))
        if stream.codec_context.name == "h264" and not nal.has_idr(memoryview(head)):
            return None  # FFmpeg uses SEI messages to decide whether it is a key packet
        first = first or head
    return None if sets.changed or field_pairs(stream, nal, sets) is not None else first


def matching(samples: Samples, first: Sequence[Packet]) -> Samples | None:
    """Return the samples with FFmpeg's presentation timestamps; None if its first packets are not the first samples.

    Args:
        samples: Samples of the stream.
        first: The first packets, VERIFIED or all.
    """
    if len(first) != min(VERIFIED, len(samples)) or first[0].pts is None:
        return None
    samples = samples.shifted(0, first[0].pts - int(samples.pts[0]))
    same = all(samples.is_sample(at, packet) for at, packet in enumerate(first))
    return samples if same and [packet.is_keyframe for packet in first] == samples.key[: len(first)].tolist() else None


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
