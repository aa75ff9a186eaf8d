"""Display order of the packets of a stream.

It follows from the presentation timestamps if the container stores them. AVI, ASF and elementary streams do not, and
other files lack them or contain decoding timestamps instead. Then the order is read from the picture headers or, as a
last resort, from the output of the decoder.

Notation: P packets in decoding order. *Position*: index of a packet in decoding order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from av import Packet
from av.video.stream import VideoStream

from slowfast.datasets.decode.h264 import H264Order, H264Slices
from slowfast.datasets.decode.hevc import HevcOrder
from slowfast.datasets.decode.mpeg import MpegPictures
from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets

# Containers without presentation timestamps. FFmpeg's derived ones are wrong for reordered pictures.
UNTIMED = frozenset({"avi", "asf", "h264", "hevc", "vvc", "m4v", "mpegvideo", "obu"})


@dataclass
class PacketList:
    """Properties of the packets of a stream in decoding order; timestamps are arrays if none is missing."""

    pts: list[int | None] | np.ndarray
    dts: list[int | None] | np.ndarray
    key: list[bool] | np.ndarray
    shown: np.ndarray  # bool (P,): packets that begin a displayed frame
    second: list[int]  # positions of second fields, which complete the frame of the previous packet, ascending

    def shown_times(self) -> np.ndarray | None:
        """Return the presentation timestamps of the packets that begin a frame, int64; None if any is missing."""
        return times_at(self.pts, np.flatnonzero(self.shown))


def times_at(times: list[int | None] | np.ndarray, positions: np.ndarray) -> np.ndarray | None:
    """Return the timestamps of some packets, int64; None if any is missing."""
    if isinstance(times, np.ndarray):
        return np.asarray(times[positions])
    known = [times[position] for position in positions.tolist()]
    return None if None in known else np.array(known, dtype=np.int64)


def order_by_times(packets: PacketList, stream: VideoStream) -> np.ndarray | None:
    """Rank the packets by presentation timestamp, equal ones by decoding order.

    Returns:
        The ranks, int64 (P,), or None if the timestamps are wrong: some are missing, or the codec reorders pictures and
        they are decoding timestamps, repeat, or restart.
    """
    reorders = stream.codec_context.has_b_frames
    if reorders and stream.container.format.name in UNTIMED:
        return None
    of_frames = packets.shown_times()
    if of_frames is None:
        return None
    steps = np.diff(of_frames)
    if reorders and len(steps) and ((steps > 0).all() or not np.diff(np.sort(of_frames)).all()):
        return None
    times = of_frames if packets.shown.all() else _without_gaps(packets.pts)
    if not _keys_are_latest(times, np.flatnonzero(packets.key)):
        return None
    return _ranks(times)


def _without_gaps(times: list[int | None] | np.ndarray) -> np.ndarray:
    """Replace missing timestamps by 0: int64 (P,)."""
    return np.array([time if time is not None else 0 for time in times], dtype=np.int64)


def _keys_are_latest(times: np.ndarray, keys: np.ndarray) -> bool:
    """Check that every key packet is shown after all packets that are decoded before it, as in every codec.

    Otherwise the timestamps are broken, or restart as in concatenated files.
    """
    return bool((times[keys] >= np.maximum.accumulate(times)[keys]).all())


def order_by_groups(packets: PacketList, stream: VideoStream) -> np.ndarray | None:
    """Rank the packets of concatenated files by presentation timestamp within each segment of ascending key packets.

    Without timestamps, display order is decoding order.

    Returns:
        The ranks, int64 (P,), or None if the codec reorders pictures.
    """
    if stream.codec_context.has_b_frames:
        return None
    if packets.shown_times() is None:
        return np.arange(len(packets.pts))
    latest, segment, segments = None, 0, []
    for time, key in zip(packets.pts, packets.key, strict=True):
        time = time if time is not None else latest or 0
        if key and latest is not None and time < latest:
            segment, latest = segment + 1, time
        latest = time if latest is None else max(latest, time)
        segments.append(segment)
    return _ranks(_without_gaps(packets.pts), np.array(segments))


def order_by_pictures(
    packets: Iterable[Packet],
    stream: VideoStream,
    listed: PacketList,
    nal: NalFormat | None,
    sets: ParameterSets | None,
) -> np.ndarray | None:
    """Rank the packets by their picture headers.

    Args:
        packets: Packets of the stream.
        stream: The stream.
        listed: Properties of the packets.
        nal: NAL unit format of an H.264 or H.265 stream.
        sets: Parameter sets of an H.264 or H.265 stream.

    Returns:
        The ranks, int64 (P,), or None if the codec is not supported or a header is damaged.
    """
    codec = stream.codec_context.name
    if nal is not None and sets is not None:
        order: _H264Keys | HevcOrder = _H264Keys(nal) if codec == "h264" else HevcOrder(nal)
        return _by_order_count(packets, order, sets)
    pictures = MpegPictures.of(stream)
    return None if pictures is None else _order_one_back(packets, pictures, set(listed.second))


def _order_one_back(packets: Iterable[Packet], pictures: MpegPictures, second: set[int]) -> np.ndarray | None:
    """Rank B-pictures in decoding order, and every other picture after the B-pictures that follow it."""
    positions: list[int] = []
    waiting: int | None = None
    for position, packet in enumerate(packets):
        is_b = pictures.is_b(bytes(packet))
        if is_b is None:
            return None
        if is_b or position in second:
            positions.append(position)
        else:
            positions += [] if waiting is None else [waiting]
            waiting = position
    positions += [] if waiting is None else [waiting]
    ranks = np.empty(len(positions), dtype=np.int64)
    ranks[positions] = np.arange(len(positions))
    return ranks


class _H264Keys:
    """Order of H.264 pictures with the interface of :class:`HevcOrder`."""

    def __init__(self, nal: NalFormat) -> None:
        self._slices, self._order = H264Slices(nal), H264Order()
        self.learn = self._slices.learn

    def key(self, packet: memoryview) -> tuple[int, int] | None:
        picture = self._slices.first(packet)
        return None if picture is None else self._order.key(picture)


def _by_order_count(packets: Iterable[Packet], order: _H264Keys | HevcOrder, sets: ParameterSets) -> np.ndarray | None:
    """Rank the packets by picture order count."""
    counts: list[tuple[int, int]] = []
    known: tuple[bytes, ...] = ()
    for position, packet in enumerate(packets):
        if sets.at(position) is not known:
            known = sets.at(position)
            order.learn(known)
        count = order.key(memoryview(packet))
        if count is None:
            return None
        counts.append(count)
    groups, times = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    return _ranks(times, groups)


def order_by_output(output: list[int], count: int) -> np.ndarray:
    """Rank the packets by their positions in the decoder's output; packets without output follow their predecessor."""
    ranks = np.full(count, -1, dtype=np.int64)
    ranks[output] = np.arange(len(output))
    return _ranks(np.where(ranks >= 0, ranks, np.maximum.accumulate(ranks)))


def _ranks(times: np.ndarray, segments: np.ndarray | None = None) -> np.ndarray:
    """Rank the packets by (segment, time), equal ones by decoding order: int64 (P,)."""
    order = np.argsort(times, kind="stable") if segments is None else np.lexsort((times, segments))
    ranks = np.empty(len(times), dtype=np.int64)
    ranks[order] = np.arange(len(times))
    return ranks
