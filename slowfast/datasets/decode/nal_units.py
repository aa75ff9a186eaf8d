"""NAL units and parameter sets of H.264 and H.265 streams."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from av import Packet

_START_CODE = b"\0\0\1"
_IDR = 5  # H.264
_DISPLAY_ORIENTATION = 47  # payload type of the SEI message in both standards (D.1)


@dataclass(frozen=True)
class _Syntax:
    """NAL unit types of a codec."""

    header: int  # bytes before the payload
    parameters: frozenset[int]
    sequence: int  # the sequence parameter set
    messages: int  # supplemental enhancement information (SEI) before the picture
    slices: frozenset[int]


_SYNTAX = {
    "h264": _Syntax(1, frozenset({7, 8, 13, 15}), 7, 6, frozenset(range(1, 6))),  # ITU-T H.264, table 7-1
    "hevc": _Syntax(2, frozenset({32, 33, 34}), 33, 39, frozenset(range(32))),  # ITU-T H.265, table 7-1
}


class NalFormat:
    """Storage format of the NAL units of a stream: start codes (Annex B) or length prefixes (MP4, Matroska, FLV).

    Args:
        codec: FFmpeg's name of a supported codec (see :meth:`supports`).
        extradata: Global header of the stream: a configuration record or parameter sets in Annex B.
    """

    HEAD = 4096  # bytes of a packet to search; parameter sets and messages precede the first slice

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._syntax, self._codec = _SYNTAX[codec], codec
        self.length_size = _length_size(codec, extradata)  # in bytes; 0 for start codes

    @staticmethod
    def supports(codec: str) -> bool:
        """Return whether a codec is supported."""
        return codec in _SYNTAX

    def type_of(self, unit: bytes) -> int:
        """Return the type of a NAL unit."""
        return unit[0] & 31 if self._codec == "h264" else unit[0] >> 1 & 63

    def is_slice(self, unit: bytes) -> bool:
        """Return whether a NAL unit contains a part of a picture."""
        return self.type_of(unit) in self._syntax.slices

    def is_sequence(self, unit: bytes) -> bool:
        """Return whether a NAL unit is a sequence parameter set."""
        return self.type_of(unit) == self._syntax.sequence

    def units(self, data: bytes) -> Iterator[bytes]:
        """Yield the NAL units at the beginning of a packet; the last one may be truncated."""
        return _by_length(data, self.length_size) if self.length_size else _by_start_code(data)

    def head(self, packet: memoryview) -> list[bytes]:
        """Return the NAL units before the first slice."""
        units = []
        for unit in self.units(bytes(packet[: self.HEAD])):
            if self.is_slice(unit):
                break
            units.append(unit)
        return units

    def parameter_sets(self, packet: memoryview) -> tuple[bytes, ...]:
        """Return the parameter sets before the first slice of a packet."""
        return tuple(unit for unit in self.head(packet) if self.type_of(unit) in self._syntax.parameters)

    def has_idr(self, packet: memoryview) -> bool:
        """Return whether the first slice of an H.264 packet belongs to an IDR picture."""
        types = (self.type_of(unit) for unit in self.units(bytes(packet[: self.HEAD])) if self.is_slice(unit))
        return next(types, None) == _IDR

    def begins_with_key_slice(self, head: bytes) -> bool:
        """Return whether a key packet (stored by length) begins with a slice NAL unit; in H.264, of an IDR picture."""
        kind = self.type_of(head[self.length_size :] or b"\0")
        return kind == _IDR if self._codec == "h264" else kind in self._syntax.slices

    def sets_orientation(self, packet: memoryview) -> bool:
        """Return whether a packet has a display orientation message."""
        start = self._syntax.header
        return any(
            _DISPLAY_ORIENTATION in _payload_types(unit[start:])
            for unit in self.head(packet)
            if self.type_of(unit) == self._syntax.messages
        )

    def global_sets(self, extradata: bytes) -> tuple[bytes, ...]:
        """Return the parameter sets of a global header."""
        if not _is_record(extradata):
            return self.parameter_sets(memoryview(extradata))
        read = _avc_record if self._codec == "h264" else _hevc_record
        return tuple(unit for unit in read(extradata) if unit)

    def join(self, units: tuple[bytes, ...]) -> bytes:
        """Join NAL units in the storage format of the stream."""
        if not self.length_size:
            return b"".join(b"\0" + _START_CODE + unit for unit in units)
        return b"".join(len(unit).to_bytes(self.length_size, "big") + unit for unit in units)


def _is_record(extradata: bytes) -> bool:
    """Return whether a global header is a configuration record, not Annex B."""
    return len(extradata) > 6 and extradata[0] == 1


def _length_size(codec: str, extradata: bytes) -> int:
    if not _is_record(extradata):
        return 0
    at = 4 if codec == "h264" else 21  # ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1
    return (extradata[at] & 3) + 1 if len(extradata) > at else 4


def _by_length(data: bytes, size: int) -> Iterator[bytes]:
    at = 0
    while at + size < len(data):
        length = int.from_bytes(data[at : at + size], "big")
        if length:
            yield data[at + size : at + size + length]
        at += size + length


def _by_start_code(data: bytes) -> Iterator[bytes]:
    at = data.find(_START_CODE)
    while at >= 0:
        start = at + len(_START_CODE)
        at = data.find(_START_CODE, start)
        unit = data[start : at if at >= 0 else len(data)].rstrip(b"\0") if at >= 0 else data[start:]
        if unit:
            yield unit


def _avc_record(data: bytes) -> Iterator[bytes]:
    at = 6
    for count in (data[5] & 31, None):
        if count is None:
            count, at = (data[at] if at < len(data) else 0), at + 1
        for _ in range(count):
            length = int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : at + 2 + length]
            at += 2 + length


def _hevc_record(data: bytes) -> Iterator[bytes]:
    arrays, at = (data[22] if len(data) > 22 else 0), 23
    for _ in range(arrays):
        count, at = int.from_bytes(data[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            length = int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : at + 2 + length]
            at += 2 + length
            if at > len(data):
                return


def _payload_types(messages: bytes) -> list[int]:
    """Return the types of the SEI messages in the payload of a NAL unit (7.3.2.3.1)."""
    data, at, types = messages.replace(b"\0\0\3", b"\0\0"), 0, []
    while at + 1 < len(data):
        values = []
        for _ in range(2):  # type, size
            value = 0
            while at < len(data) and data[at] == 255:
                value, at = value + 255, at + 1
            value, at = value + (data[at] if at < len(data) else 0), at + 1
            values.append(value)
        types.append(values[0])
        at += values[1]
    return types


class ParameterSets:
    """Parameter sets in effect at each packet of a stream.

    A decoder uses the last sets that it has received. If a stream changes them (interrupted recordings, concatenated
    files, several sample descriptions), decoding that starts in the middle needs those in effect there.

    Args:
        nal: NAL unit format of the stream.
        extradata: Global header of the stream.
    """

    def __init__(self, nal: NalFormat, extradata: bytes) -> None:
        self._nal = nal
        self._positions, self._sets = [0], [nal.global_sets(extradata)]
        self._keys = 0

    @property
    def current(self) -> tuple[bytes, ...]:
        """Sets in effect after the last observed packet."""
        return self._sets[-1]

    @property
    def changed(self) -> bool:
        """True if the sets change within the stream."""
        return len(self._positions) > 1

    def observe(self, position: int, packet: Packet) -> bool:
        """Record the sets of a key packet, or of a packet with a new global header, in ascending order of positions.

        Returns:
            Whether the sets have changed.
        """
        extradata = bytes(packet.get_sidedata("new_extradata")) if packet.has_sidedata("new_extradata") else b""
        return self.observe_head(position, memoryview(packet), extradata)

    def observe_head(self, position: int, head: memoryview, extradata: bytes = b"") -> bool:
        """Record the sets at the beginning of a packet, and in a new global header; see `observe`."""
        self._keys += 1
        before = self.current
        if extradata:
            self._add(position, self._nal.global_sets(extradata))
        sets = self._nal.parameter_sets(head)
        if sets and not set(sets) <= set(self.current):
            complete = any(map(self._nal.is_sequence, sets))
            self._add(position, sets if complete else self.current + sets)
        return self.current is not before

    def _add(self, position: int, sets: tuple[bytes, ...]) -> None:
        if self._keys == 1:  # nothing was decoded with the previous sets
            self._sets = [sets]
        elif set(sets) != set(self.current):
            self._positions.append(position)
            self._sets.append(sets)

    def at(self, position: int) -> tuple[bytes, ...]:
        """Return the sets in effect at a position."""
        return self._sets[bisect.bisect_right(self._positions, position) - 1]

    def prepend(self, position: int, packet: Packet) -> Packet:
        """Prepend the sets in effect to a packet, if they ever change, so that decoding can start there."""
        if not self.changed:
            return packet
        start = Packet(self._nal.join(self.at(position)) + bytes(packet))
        start.pts, start.dts, start.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
        if packet.time_base:
            start.time_base = packet.time_base
        return start


class Bits:
    """Bit reader for the payload of a NAL unit; every method raises IndexError at the end.

    Args:
        data: Payload with emulation prevention bytes.
    """

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def u(self, count: int) -> int:
        """Read an unsigned number of `count` bits."""
        if count > self._left:
            raise IndexError("end of the NAL unit")
        self._left -= count
        number = self._value >> self._left
        self._value &= (1 << self._left) - 1
        return number

    def flag(self) -> bool:
        """Read one bit."""
        return bool(self.u(1))

    def ue(self) -> int:
        """Read an unsigned Exp-Golomb code (ITU-T H.264, 9.1)."""
        zeros = self._left - self._value.bit_length()
        return self.u(2 * zeros + 1) - 1

    def se(self) -> int:
        """Read a signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)
