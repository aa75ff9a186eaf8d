"""Packets of a video stream, found without decoding them.

A scan of the file, or the sample tables of a long MP4 file, give the number of frames, their display times and the
packets that they are decoded from.

Notation: P packets in decoding order, n frames in display order. *Position*: index of a packet in decoding order.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator

import av
import numpy as np
from av import Packet
from av.container import InputContainer
from av.video.stream import VideoStream

from slowfast.datasets.decode.container import open_any_metadata
from slowfast.datasets.decode.display_order import (
    UNTIMED,
    PacketList,
    order_by_groups,
    order_by_output,
    order_by_pictures,
    order_by_times,
    times_at,
)
from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets
from slowfast.datasets.decode.packet_table import PacketTable, build_table, scan_packets
from slowfast.datasets.decode.reader import Deadline, DecodeError
from slowfast.datasets.decode.sample_tables import VERIFIED, Samples, check_keys, matching, read_samples

# Packets of smaller streams are kept in memory between scan and decoding.
MAX_CACHED_BYTES = 64 * 2**20
# Shorter MP4 files are scanned, which is as fast as reading sample tables and keeps the packets in memory.
MIN_SAMPLES = 512
# Decodes only packets first .. last and yields the positions of the packets whose frames are output.
Decode = Callable[[int, int], Iterator[int]]


class PacketSource:
    """Packets of a stream, accessible by position.

    Args:
        container: Open file.
        stream: Video stream of the file.
        deadline: Time limit for reading.

    Raises:
        DecodeError: If the time limit is exceeded.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, deadline: Deadline) -> None:
        self._container, self._stream, self._deadline = container, stream, deadline
        self._cached: list[Packet] | None = None
        self.error: av.FFmpegError | None = None  # error that ended the scan early
        self._positions: dict[tuple[int | None, int | None, int], int] = {}
        codec, extradata = stream.codec_context.name, stream.codec_context.extradata or b""
        self.nal = NalFormat(codec, extradata) if NalFormat.supports(codec) else None
        self.sets = ParameterSets(self.nal, extradata) if self.nal is not None else None
        self._durations: list[int | None] = []
        self._first_key: Packet | bytes | None = None
        self.ends_early = self._changes_size = False
        self._path = container.name.removeprefix("file:")
        self._samples: Samples | None = None
        samples = self._tabled_samples()
        if samples is None:
            self._scan(container)
        else:
            self._use_samples(samples)

    def _tabled_samples(self) -> Samples | None:
        """Return the samples of an MP4 file by its tables; None if the packets must be scanned."""
        if self.nal is None or self.sets is None:
            return None
        samples = read_samples(self._path, self._stream, MIN_SAMPLES)
        first_key = None if samples is None else check_keys(samples, self._path, self._stream, self.nal, self.sets)
        if samples is None or first_key is None:
            self._forget_keys()
            return None
        self._first_key = first_key
        return samples

    def _use_samples(self, samples: Samples) -> None:
        """Use samples if they begin with the first packets, otherwise scan the file."""
        found = matching(samples, list(itertools.islice(self._demux(self._container), VERIFIED)))
        if found is None:
            self.scan()
            return
        self._samples = found
        self._use(PacketList(found.pts, found.dts, found.key, np.ones(len(found), bool), []))

    def _forget_keys(self) -> None:
        """Discard the results of key packets before a scan."""
        self._first_key = None
        if self.nal is not None:
            self.sets = ParameterSets(self.nal, self._stream.codec_context.extradata or b"")

    def _use(self, listed: PacketList) -> None:
        self._listed = listed
        self._keys: list[int] = np.flatnonzero(np.asarray(listed.key, bool)).tolist()

    def _scan(self, container: InputContainer) -> None:
        """Read all packets of the stream, and keep them in memory if they are small enough."""
        scan = scan_packets(self._demux(container), self._stream, self.nal, self.sets, MAX_CACHED_BYTES)
        self._cached, self._first_key, self._durations = scan.cached, scan.first_key, scan.durations
        self._positions = {place: position for position, place in enumerate(scan.places)}
        self.ends_early, self._changes_size = scan.ends_early, scan.changes_size
        self._use(scan.listed)

    @property
    def is_scanned(self) -> bool:
        """False if the packets come from sample tables."""
        return self._samples is None

    def scan(self) -> None:
        """Fall back to scanning the file."""
        self._forget_keys()
        self._samples = None
        with self._opened_again() as again:
            self._scan(again)

    def build(self, decode: Decode) -> tuple[PacketTable, np.ndarray | None]:
        """Find the display order of the frames, by decoding as a last resort.

        Returns:
            The table, and the display times, int64 (n,) in units of the stream, or None if unknown.
        """
        if not self.is_scanned:
            built = self._build_from_samples()
            if built is not None:
                return built
            self.scan()
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

    def _build_from_samples(self) -> tuple[PacketTable, np.ndarray] | None:
        """Build the table from sample tables; None if frames at the start may not be decodable."""
        rank = order_by_times(self._listed, self._stream)
        if rank is None or rank[0] != 0:
            return None
        table = build_table(rank, self._listed.key, self._listed.shown, [])
        times = times_at(self._listed.pts, table.packet_of)
        return None if times is None else (table, times)

    def build_by_decoding(self, decode: Decode) -> tuple[PacketTable, np.ndarray | None]:
        """Build the table by decoding the file: frames in output order."""
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
            known = times_at(stored, table.packet_of)
            if known is None:
                continue
            times = np.sort(known)
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
        """Return whether a packet may contain a display orientation, apart from that of the container."""
        if self.nal is None:
            return position > 0
        if position == 0:
            return self._first_key is not None and self.nal.sets_orientation(memoryview(self._first_key))
        if self._samples is not None:
            [head] = self._samples.heads(self._path, np.array([position]), self.nal.HEAD)
            return self.nal.sets_orientation(memoryview(head))
        return self._cached is None or self.nal.sets_orientation(memoryview(self._cached[position]))

    def last_duration(self, table: PacketTable) -> int:
        """Return the duration of the last frame in units of the stream; 0 if unknown."""
        position = int(table.packet_of[-1])
        if self._samples is not None:
            return int(self._samples.durations[position])
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
            time = time if self._samples is None else self._listed.dts[start]  # MP4 files are indexed by decoding time
            if time is None:
                break
            try:
                self._container.seek(int(time), stream=self._stream)
            except av.FFmpegError:
                break  # the format does not support seeking
            packets = self._demux(self._container)
            landed = next(packets, None)
            position = None if landed is None else self._position_of(landed)
            if landed is not None and position is not None and position <= first:
                yield position, landed
                yield from enumerate(packets, start=position + 1)
                return

    def _position_of(self, packet: Packet) -> int | None:
        """Return the position of a packet after a seek; None if it is unknown."""
        if self._samples is not None:
            return self._samples.position_of(packet)
        return self._positions.get((packet.pos, packet.pts, packet.size))

    def _read_again(self) -> Iterator[Packet]:
        """Yield all packets from a newly opened file."""
        with self._opened_again() as again:
            yield from self._demux(again)

    def _opened_again(self) -> InputContainer:
        options, limit = self._container.options, self._deadline.seconds
        return open_any_metadata(self._container.name, options, limit)
