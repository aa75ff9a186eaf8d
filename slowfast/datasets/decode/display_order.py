"""Order in which the packets of a stream are shown.

Presentation times tell it where a container stores them. AVI, ASF and elementary streams do not, other files lack them
or have decoding times in their place: there the pictures themselves tell, or in the end the decoder's output.
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

# Containers without presentation times, for which FFmpeg fills in what cannot be right for reordered pictures.
UNTIMED = frozenset({"avi", "asf", "h264", "hevc", "vvc", "m4v", "mpegvideo", "obu"})


@dataclass
class PacketList:
    """Packets of a stream in decoding order, as they were scanned."""

    pts: list[int | None]
    dts: list[int | None]
    key: list[bool]
    shown: np.ndarray  # bool (P,), whether the packet begins a frame that is shown
    second: list[int]  # packets that complete the frame of the packet before (second fields), ascending

    def shown_times(self) -> np.ndarray | None:
        """Presentation times of the packets that begin a frame, int64; None where some have none."""
        known = self.pts if self.shown.all() else [self.pts[place] for place in np.flatnonzero(self.shown)]
        return None if None in known else np.array(known, dtype=np.int64)


def order_by_times(packets: PacketList, stream: VideoStream) -> np.ndarray | None:
    """Return the rank of each packet by its presentation time, int64 (P,), equal times by decoding order.

    None where the times cannot be right: some are missing, or the codec reorders pictures and the times are those of
    decoding, repeat, or start again.
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


def _without_gaps(times: list[int | None]) -> np.ndarray:
    """Times, int64 (P,), those that are missing as 0."""
    return np.array([time if time is not None else 0 for time in times], dtype=np.int64)


def _keys_are_latest(times: np.ndarray, keys: np.ndarray) -> bool:
    """Return whether each key packet is shown after all that is decoded before it, as in every codec.

    Where not, timestamps are broken, or start again as in files joined end to end.
    """
    return bool((times[keys] >= np.maximum.accumulate(times)[keys]).all())


def order_by_groups(packets: PacketList, stream: VideoStream) -> np.ndarray | None:
    """Return ranks by presentation time within each stretch of ascending key packets, for files joined end to end.

    Without any times, decoding order is display order where the codec does not reorder pictures.
    """
    if stream.codec_context.has_b_frames:
        return None
    if packets.shown_times() is None:
        return np.arange(len(packets.pts))
    latest, stretch, stretches = None, 0, []
    for time, key in zip(packets.pts, packets.key, strict=True):
        time = time if time is not None else latest or 0
        if key and latest is not None and time < latest:
            stretch, latest = stretch + 1, time
        latest = time if latest is None else max(latest, time)
        stretches.append(stretch)
    return _ranks(_without_gaps(packets.pts), np.array(stretches))


def order_by_pictures(
    packets: Iterable[Packet],
    stream: VideoStream,
    listed: PacketList,
    nal: NalFormat | None,
    sets: ParameterSets | None,
) -> np.ndarray | None:
    """Return the rank of each packet by what its picture says; None where the codec is another or data is damaged.

    Args:
        packets: The stream's packets.
        stream: The stream.
        listed: The same packets as they were scanned.
        nal: NAL unit format of an H.264 or H.265 stream.
        sets: Its parameter sets.
    """
    codec = stream.codec_context.name
    if nal is not None and sets is not None:
        order: _H264Keys | HevcOrder = _H264Keys(nal) if codec == "h264" else HevcOrder(nal)
        return _by_order_count(packets, order, sets)
    pictures = MpegPictures.of(stream)
    return None if pictures is None else _order_one_back(packets, pictures, set(listed.second))


def _order_one_back(packets: Iterable[Packet], pictures: MpegPictures, second: set[int]) -> np.ndarray | None:
    """Ranks where B-pictures are shown at once and others after the B-pictures that follow them."""
    places: list[int] = []
    waiting: int | None = None
    for place, packet in enumerate(packets):
        is_b = pictures.is_b(bytes(packet))
        if is_b is None:
            return None
        if is_b or place in second:
            places.append(place)
        else:
            places += [] if waiting is None else [waiting]
            waiting = place
    places += [] if waiting is None else [waiting]
    ranks = np.empty(len(places), dtype=np.int64)
    ranks[places] = np.arange(len(places))
    return ranks


class _H264Keys:
    """H.264's slice reader and order behind the interface of H.265's."""

    def __init__(self, nal: NalFormat) -> None:
        self._slices, self._order = H264Slices(nal), H264Order()
        self.learn = self._slices.learn

    def key(self, packet: memoryview) -> tuple[int, int] | None:
        picture = self._slices.first(packet)
        return None if picture is None else self._order.key(picture)


def _by_order_count(packets: Iterable[Packet], order: _H264Keys | HevcOrder, sets: ParameterSets) -> np.ndarray | None:
    """Ranks by picture order count."""
    counts: list[tuple[int, int]] = []
    known: tuple[bytes, ...] = ()
    for place, packet in enumerate(packets):
        if sets.at(place) is not known:
            known = sets.at(place)
            order.learn(known)
        count = order.key(memoryview(packet))
        if count is None:
            return None
        counts.append(count)
    groups, times = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    return _ranks(times, groups)


def order_by_output(output: list[int], count: int) -> np.ndarray:
    """Return ranks by the order in which a decoder put out the frames of `output` (places); others follow the last."""
    ranks = np.full(count, -1, dtype=np.int64)
    ranks[output] = np.arange(len(output))
    return _ranks(np.where(ranks >= 0, ranks, np.maximum.accumulate(ranks)))


def _ranks(times: np.ndarray, stretches: np.ndarray | None = None) -> np.ndarray:
    """Rank of each packet by (stretch, time), equal ones by decoding order, int64 (P,)."""
    order = np.argsort(times, kind="stable") if stretches is None else np.lexsort((times, stretches))
    ranks = np.empty(len(times), dtype=np.int64)
    ranks[order] = np.arange(len(times))
    return ranks
