"""Display order of the packets of a stream, and picture headers of MPEG-1, MPEG-2 and MPEG-4.

The order follows from the presentation timestamps if the container stores them. AVI, ASF and elementary streams do not,
and other files lack them or contain decoding timestamps instead. Then the order is read from the picture headers or, as
a last resort, from the output of the decoder. The picture headers also tell which packets are field pairs.

Notation: P packets in decoding order. *Position*: index of a packet in decoding order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from av import Packet
from av.video.stream import VideoStream

from slowfast.datasets.decode.nal_units import Bits, NalFormat, ParameterSets
from slowfast.datasets.decode.slice_headers import H264Order, HevcOrder

_PICTURE, _SEQUENCE, _EXTENSION, _VOP = b"\0\0\1\0", b"\0\0\1\xb3", b"\0\0\1\xb5", b"\0\0\1\xb6"
NOT_CODED = 19  # largest size in bytes of a packet without a picture (MAX_NVOP_SIZE of FFmpeg)
# Containers without presentation timestamps. FFmpeg's derived ones are wrong for reordered pictures.
UNTIMED = frozenset({"avi", "asf", "h264", "hevc", "vvc", "m4v", "mpegvideo", "obu"})


class MpegPictures:
    """Reader of picture headers.

    Args:
        codec: FFmpeg's name of the codec.
        increment_bits: Size of vop_time_increment in MPEG-4; None if unknown.
    """

    def __init__(self, codec: str, increment_bits: int | None = None) -> None:
        self._codec, self._increment_bits = codec, increment_bits
        # Packed bitstreams (DivX): a packet contains a second picture, which FFmpeg decodes with the next packet; the
        # last packet of a series is empty. Whether the waiting picture is a B-picture.
        self._waiting: bool | None = None

    @classmethod
    def of(cls, stream: VideoStream) -> MpegPictures | None:
        """Return the reader for a stream; None for other codecs."""
        context = stream.codec_context
        if context.name == "mpeg4":
            return cls(context.name, _increment_bits(context.extradata or b""))
        return cls(context.name) if context.name in ("mpeg1video", "mpeg2video") else None

    def is_b(self, data: bytes) -> bool | None:
        """Return whether the next packet in decoding order is a B-picture, shown before the picture it follows.

        Returns:
            None if it may contain no picture, or if that is unknown.
        """
        if self._codec != "mpeg4":  # picture_coding_type: ISO/IEC 13818-2, 6.3.9
            at = data.find(_PICTURE)
            return data[at + 5] >> 3 & 7 == 3 if 0 <= at < len(data) - 5 else None
        last = data.rfind(_VOP)
        if not 0 <= last < len(data) - 4:
            return None
        before, first = self._waiting, data.find(_VOP)
        self._waiting = None
        if first != last or (before is not None and len(data) > 7):
            self._waiting = data[last + 4] >> 6 == 2  # vop_coding_type: ISO/IEC 14496-2, 6.3.5
        if before is not None:
            return before
        if len(data) <= NOT_CODED and not self._is_coded(data[last + 4 :]):
            return None
        return data[first + 4] >> 6 == 2

    def _is_coded(self, header: bytes) -> bool:
        """Return whether a video object plane contains a picture (vop_coded)."""
        if self._increment_bits is None:
            return False
        bits = Bits(header)
        try:
            bits.u(2)
            while bits.flag():  # modulo_time_base
                continue
            bits.u(1 + self._increment_bits + 1)
            return bits.flag()
        except IndexError:
            return False


def _increment_bits(extradata: bytes) -> int | None:
    """Return the size of vop_time_increment from the video object layer header (ISO/IEC 14496-2, 6.2.3), or None."""
    at = extradata.find(b"\0\0\1")
    while at >= 0 and not 0x20 <= (extradata[at + 3] if at + 3 < len(extradata) else 0) <= 0x2F:
        at = extradata.find(b"\0\0\1", at + 3)
    if at < 0:
        return None
    bits = Bits(extradata[at + 4 : at + 64])
    try:
        bits.u(9)
        bits.u(7 if bits.flag() else 0)  # is_object_layer_identifier
        bits.u(16 if bits.u(4) == 15 else 0)  # aspect_ratio_info
        if bits.flag():  # vol_control_parameters
            bits.u(3)
            bits.u(79 if bits.flag() else 0)
        if bits.u(2):  # video_object_layer_shape other than rectangular
            return None
        bits.u(1)
        return max((bits.u(16) - 1).bit_length(), 1)  # vop_time_increment_resolution
    except IndexError:
        return None


class Mpeg2FieldPairs:
    """Detector of second fields in MPEG-2, by the picture_structure of the extension (ISO/IEC 13818-2, 6.2.3.1)."""

    def __init__(self) -> None:
        self._open = 0  # structure of a first field whose second field has not been found yet

    def is_second(self, packet: memoryview) -> bool:
        """Return whether a packet completes the frame of the previous packet."""
        data = bytes(packet)
        structure = _mpeg2_structure(data)
        before, self._open = self._open, 0
        if structure == 3:
            return False
        if before and before != structure:
            return True
        if data.count(_PICTURE) == 1:  # unless both fields are in one packet
            self._open = structure
        return False


def _mpeg2_structure(data: bytes) -> int:
    """Return 1 for a top field, 2 for a bottom field, 3 for a frame."""
    at = data.find(_EXTENSION)
    while at >= 0 and at + 6 < len(data):
        if data[at + 4] >> 4 == 8:
            return data[at + 6] & 3 or 3
        at = data.find(_EXTENSION, at + 4)
    return 3


def sequence_size(data: bytes) -> bytes:
    """Return the coded size in the first sequence header of an MPEG-1 or MPEG-2 packet; empty without one."""
    at = data.find(_SEQUENCE)
    return data[at + 4 : at + 7] if at >= 0 else b""


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
        order = H264Order(nal) if codec == "h264" else HevcOrder(nal)
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


def _by_order_count(packets: Iterable[Packet], order: H264Order | HevcOrder, sets: ParameterSets) -> np.ndarray | None:
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
