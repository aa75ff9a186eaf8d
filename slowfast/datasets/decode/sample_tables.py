"""Packets of MP4 and QuickTime files, from their sample tables (ISO/IEC 14496-12) instead of a scan of the file.

The tables are used only if they describe the packets completely and FFmpeg's own index agrees with them. For everything
unusual the result is None, and the packets are scanned.

P samples of a track, in decoding order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from av import Packet
from av.video.stream import VideoStream

from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets
from slowfast.datasets.decode.packet_table import field_pairs

_CODECS = frozenset({"h264", "hevc"})
_FORMATS = frozenset({b"avc1", b"avc3", b"hvc1", b"hev1"})
# Known boxes that do not change the meaning of others; for `stbl`, those that are read, sdtp and cslg.
_TOP_LEVEL = frozenset({b"ftyp", b"free", b"skip", b"wide", b"mdat", b"moov", b"udta", b"meta", b"uuid", b"pdin"})
_TABLES = frozenset({b"stsd", b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stco", b"co64", b"sdtp", b"cslg"})
_MOST_BOXES = 64  # limit of the boxes at the top level
_LARGEST = 512 * 2**20  # bytes of the moov box
_LONGEST = 2**28  # ticks between two samples, and of a composition offset
_CHECKED = 16  # number of entries of FFmpeg's index to compare
_DISCARD = 2  # AVINDEX_DISCARD_FRAME: outside the edit list
VERIFIED = 8  # packets compared with the sample tables
_MAX_GROUP = 600  # maximum interval of sync samples for using the sample tables
_START = 16  # bytes of a key packet needed to recognize a leading slice


class _Unusual(Exception):
    """Raised for tables that are incomplete, contradictory, or use unsupported features."""


@dataclass(frozen=True)
class Samples:
    """Samples of a video track.

    Attributes:
        places: Position of each sample in the file in bytes, int64 (P,).
        sizes: Size of each sample in bytes, int64 (P,).
        pts: Presentation timestamps, int64 (P,).
        dts: Decoding timestamps, int64 (P,), ascending.
        key: Sync samples, bool (P,).
        durations: Ticks to the next sample in decoding order, int64 (P,).
    """

    places: np.ndarray
    sizes: np.ndarray
    pts: np.ndarray
    dts: np.ndarray
    key: np.ndarray
    durations: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def shifted(self, dts: int, pts: int) -> Samples:
        """Return the samples with shifted decoding and presentation timestamps."""
        return replace(self, dts=self.dts + dts, pts=self.pts + pts)

    def position_of(self, packet: Packet) -> int | None:
        """Return the index of the sample of a packet; None if there is none."""
        at = int(np.searchsorted(self.dts, packet.dts)) if packet.dts is not None else len(self)
        return at if at < len(self) and self.is_sample(at, packet) else None

    def is_sample(self, at: int, packet: Packet) -> bool:
        """Return whether a packet is a sample, apart from its key flag."""
        found = packet.pos, packet.size, packet.pts, packet.dts
        return found == (self.places[at], self.sizes[at], self.pts[at], self.dts[at])

    def heads(self, path: str, positions: np.ndarray, size: int) -> list[bytes]:
        """Return the first bytes of some samples, at most `size` of each."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            places, sizes = self.places[positions].tolist(), np.minimum(self.sizes[positions], size).tolist()
            return [os.pread(file, count, place) for place, count in zip(places, sizes, strict=True)]
        finally:
            os.close(file)


def read_samples(path: str, stream: VideoStream, fewest: int) -> Samples | None:
    """Return the samples of a stream with FFmpeg's decoding timestamps; None if they are uncertain.

    Args:
        path: The file.
        stream: Its video stream.
        fewest: Minimum number of samples; shorter files are scanned.
    """
    if stream.codec_context.name not in _CODECS or not stream.container.format.name.startswith("mov,"):
        return None
    if len(stream.index_entries) < fewest or stream.frames != len(stream.index_entries):
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        samples = _track_samples(_movie_box(file), stream.id, os.fstat(file).st_size)
        return samples.shifted(*[_offset_of_index(samples, stream)] * 2)
    except (_Unusual, OSError, struct.error, ValueError):  # ValueError: a table is longer than its box
        return None
    finally:
        os.close(file)


def _offset_of_index(samples: Samples, stream: VideoStream) -> int:
    """Return the difference of decoding timestamps to FFmpeg's index, which must contain the same samples."""
    entries = stream.index_entries
    _require(len(entries) == len(samples))
    offset = entries[0].timestamp - int(samples.dts[0])
    for at in np.unique(np.linspace(0, len(samples) - 1, _CHECKED).astype(int)).tolist():
        entry = entries[at]
        found = entry.pos, entry.size, entry.timestamp - offset, entry.is_keyframe, entry.flags & _DISCARD
        _require(found == (samples.places[at], samples.sizes[at], samples.dts[at], samples.key[at], 0))
    return offset


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
    if np.diff(np.append(keys, len(samples))).max() > _MAX_GROUP:
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


# ------------------------------------------------------------------ boxes
def _require(condition: object) -> None:
    if not condition:
        raise _Unusual


def _movie_box(file: int) -> bytes:
    """Return the content of the only moov box; the file must not be fragmented."""
    size, at, movies = os.fstat(file).st_size, 0, list[bytes]()
    for _ in range(_MOST_BOXES):
        if at == size:
            break
        head = os.pread(file, 16, at)
        length, kind = struct.unpack_from(">I4s", head)
        start = 16 if length == 1 else 8
        length = struct.unpack_from(">Q", head, 8)[0] if length == 1 else length
        _require(kind in _TOP_LEVEL and start <= length <= size - at)
        if kind == b"moov":
            _require(length <= _LARGEST)
            movies.append(os.pread(file, length - start, at + start))
        at += length
    _require(at == size and len(movies) == 1)
    return movies[0]


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the boxes in a box: type and content."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        _require(8 <= length <= len(data) - at)
        yield kind, data[at + 8 : at + length]
        at += length


def _children(data: memoryview) -> dict[bytes, memoryview]:
    """Return the boxes in a box by their types, each of which occurs once."""
    found = list(_boxes(data))
    _require(len({kind for kind, _ in found}) == len(found))
    return dict(found)


def _inner(data: dict[bytes, memoryview], kind: bytes) -> memoryview:
    _require(kind in data)
    return data[kind]


def _numbers(data: memoryview, kind: str, columns: int, header: int = 4) -> np.ndarray:
    """Return the entries of a table, int64 (entries, columns); their number follows `header` bytes."""
    count = struct.unpack_from(">I", data, header)[0]
    start = header + 4
    return np.frombuffer(data, kind, count * columns, start).astype(np.int64).reshape(-1, columns)


# ------------------------------------------------------------------ tables
def _track_samples(movie: bytes, track: int, file_size: int) -> Samples:
    boxes = list(_boxes(memoryview(movie)))
    _require(b"mvex" not in dict(boxes))
    tracks = [_children(content) for kind, content in boxes if kind == b"trak"]
    [chosen] = [one for one in tracks if _after_times(_inner(one, b"tkhd")) == track]
    media = _children(_inner(chosen, b"mdia"))
    tables = _children(_inner(_children(_inner(media, b"minf")), b"stbl"))
    _require(set(tables) <= _TABLES)
    _require_plain_entry(_inner(tables, b"stsd"))
    samples = _samples(tables)
    _require((samples.places + samples.sizes).max() <= file_size and samples.places.min() > 0)
    if b"edts" in chosen:
        scales = _after_times(_inner(dict(boxes), b"mvhd")), _after_times(_inner(media, b"mdhd"))
        _require_whole_edit(_inner(_children(chosen[b"edts"]), b"elst"), samples.pts, *scales)
    return samples


def _after_times(header: memoryview) -> int:
    """Return the number that follows the creation and modification times: a track's number, or a time scale."""
    return int(struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0])


def _require_plain_entry(data: memoryview) -> None:
    """Check that there is one sample description, of a supported format without encryption."""
    count, _, kind = struct.unpack_from(">II4s", data, 4)
    _require(count == 1 and kind in _FORMATS)


def _require_whole_edit(data: memoryview, pts: np.ndarray, movie_scale: int, media_scale: int) -> None:
    """Check that the edit list shows every sample once and at normal speed, optionally after an empty edit."""
    form = ">Qqhh" if data[0] == 1 else ">Iihh"
    size, count = struct.calcsize(form), struct.unpack_from(">I", data, 4)[0]
    edits = [struct.unpack_from(form, data, 8 + at * size) for at in range(min(count, 3))]
    if len(edits) == 2 and edits[0][1] == -1:
        edits = edits[1:]
    _require(len(edits) == 1 and count <= 2 and movie_scale > 0)
    duration, start, rate, fraction = edits[0]
    _require(start >= 0 and (rate, fraction) == (1, 0))
    end = start + duration * media_scale // movie_scale
    _require(pts.min() >= start and pts.max() < end)


def _samples(tables: dict[bytes, memoryview]) -> Samples:
    constant, count = struct.unpack_from(">II", _inner(tables, b"stsz"), 4)
    _require(constant == 0 and count > 0)
    sizes = _numbers(tables[b"stsz"], ">u4", 1, header=8)[:, 0]
    durations = _repeated(_numbers(_inner(tables, b"stts"), ">u4", 2), count)
    offsets = np.zeros(count, np.int64)
    if b"ctts" in tables:
        runs = np.column_stack((_numbers(tables[b"ctts"], ">u4", 2)[:, 0], _numbers(tables[b"ctts"], ">i4", 2)[:, 1]))
        offsets = _repeated(runs, count)
    _require(sizes.min() > 0 and 0 < durations.min() and durations.max() < _LONGEST and abs(offsets).max() < _LONGEST)
    key = np.ones(count, bool)
    if b"stss" in tables:
        sync = _numbers(tables[b"stss"], ">u4", 1)[:, 0]
        _require(len(sync) and sync[0] == 1 and (np.diff(sync) > 0).all() and sync[-1] <= count)
        key[:] = False
        key[sync - 1] = True
    dts = np.cumsum(durations) - durations
    return Samples(_places(tables, sizes), sizes, dts + offsets, dts, key, durations)


def _repeated(runs: np.ndarray, count: int) -> np.ndarray:
    """Expand runs of (number of samples, value) to all samples."""
    _require(runs[:, 0].sum() == count)
    return np.repeat(runs[:, 1], runs[:, 0])


def _places(tables: dict[bytes, memoryview], sizes: np.ndarray) -> np.ndarray:
    """Return the position of each sample in the file: samples of a chunk are contiguous."""
    _require((b"stco" in tables) != (b"co64" in tables))
    wide = b"co64" in tables
    chunks = _numbers(tables[b"co64" if wide else b"stco"], ">i8" if wide else ">u4", 1)[:, 0]
    runs = _numbers(_inner(tables, b"stsc"), ">u4", 3)  # first chunk, samples per chunk, sample description
    _require(len(runs) and runs[0, 0] == 1 and (runs[:, 2] == 1).all() and runs[-1, 0] <= len(chunks))
    lengths = np.diff(np.append(runs[:, 0], len(chunks) + 1))
    _require((lengths > 0).all())
    per_chunk = np.repeat(runs[:, 1], lengths)
    _require(per_chunk.sum() == len(sizes))
    ends = np.cumsum(sizes)
    first = np.cumsum(per_chunk) - per_chunk  # sample of each chunk
    return np.repeat(chunks - (ends - sizes)[np.minimum(first, len(sizes) - 1)], per_chunk) + ends - sizes
