"""NAL units of H.264 and HEVC, their bits and parameter sets."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from av import Packet


class Bits:
    """Bits of a NAL unit's payload, read from the front; every method raises IndexError at its end.

    Args:
        data: The payload, with emulation prevention bytes.
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


_START_CODE = b"\0\0\1"
_IDR = 5  # H.264
_DISPLAY_ORIENTATION = 47  # payload type of the SEI message in both standards (D.1)


@dataclass(frozen=True)
class _Syntax:
    """NAL unit types of a standard."""

    header: int  # bytes before the payload
    parameters: frozenset[int]
    sequence: int  # the sequence parameter set
    messages: int  # supplemental enhancement information before the picture
    slices: frozenset[int]


_SYNTAX = {
    "h264": _Syntax(1, frozenset({7, 8, 13, 15}), 7, 6, frozenset(range(1, 6))),  # ITU-T H.264, table 7-1
    "hevc": _Syntax(2, frozenset({32, 33, 34}), 33, 39, frozenset(range(32))),  # ITU-T H.265, table 7-1
}


class NalFormat:
    """How a stream stores its NAL units: behind start codes (Annex B) or behind their lengths (MP4, Matroska, FLV).

    Args:
        codec: FFmpeg's name of the codec, a key of the supported ones (see `supports`).
        extradata: Global header of the stream, a configuration record or parameter sets in Annex B.
    """

    HEAD = 4096  # bytes of a packet that are searched: parameter sets and messages come before the first slice

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._syntax, self._codec = _SYNTAX[codec], codec
        self.length_size = _length_size(codec, extradata)  # bytes; 0 for start codes

    @staticmethod
    def supports(codec: str) -> bool:
        """Return whether the codec's NAL units are known here."""
        return codec in _SYNTAX

    def type_of(self, unit: bytes) -> int:
        """Return the type of a NAL unit."""
        return unit[0] & 31 if self._codec == "h264" else unit[0] >> 1 & 63

    def is_slice(self, unit: bytes) -> bool:
        """Return whether a NAL unit holds a part of a picture."""
        return self.type_of(unit) in self._syntax.slices

    def is_sequence(self, unit: bytes) -> bool:
        """Return whether a NAL unit is a sequence parameter set."""
        return self.type_of(unit) == self._syntax.sequence

    def units(self, data: bytes) -> Iterator[bytes]:
        """Yield the NAL units in (the start of) a packet; one that is cut off at the end is shortened."""
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
        """Return the parameter sets before a packet's first slice."""
        return tuple(unit for unit in self.head(packet) if self.type_of(unit) in self._syntax.parameters)

    def has_idr(self, packet: memoryview) -> bool:
        """Return whether the first slice of an H.264 packet is one of an IDR picture."""
        types = (self.type_of(unit) for unit in self.units(bytes(packet[: self.HEAD])) if self.is_slice(unit))
        return next(types, None) == _IDR

    def turns_picture(self, packet: memoryview) -> bool:
        """Return whether a packet has a message that says how to turn its picture for display."""
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
        """Return NAL units as the stream's packets store them."""
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
    """Types of the SEI messages in a NAL unit's payload (7.3.2.3.1)."""
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

    A decoder keeps the sets that it got last. Where a stream changes them (a recording that was interrupted, files
    joined end to end, several sample descriptions), decoding that starts elsewhere needs those in effect there.

    Args:
        nal: NAL unit format of the stream.
        extradata: Global header of the stream.
    """

    def __init__(self, nal: NalFormat, extradata: bytes) -> None:
        self._nal = nal
        self._places, self._sets = [0], [nal.global_sets(extradata)]
        self._keys = 0

    @property
    def current(self) -> tuple[bytes, ...]:
        """Sets in effect after the last packet that was seen."""
        return self._sets[-1]

    @property
    def change(self) -> bool:
        """Return whether more than one group of sets is in use."""
        return len(self._places) > 1

    def see_key(self, place: int, packet: Packet) -> bool:
        """Note the sets of a key packet, or of one with a new global header; places ascend.

        Returns:
            Whether other sets are in effect from here on.
        """
        self._keys += 1
        before = self.current
        if packet.has_sidedata("new_extradata"):
            self._note(place, self._nal.global_sets(bytes(packet.get_sidedata("new_extradata"))))
        sets = self._nal.parameter_sets(memoryview(packet))
        if sets and not set(sets) <= set(self.current):
            complete = any(map(self._nal.is_sequence, sets))
            self._note(place, sets if complete else self.current + sets)
        return self.current is not before

    def _note(self, place: int, sets: tuple[bytes, ...]) -> None:
        if self._keys == 1:  # nothing was decoded with the sets before
            self._sets = [sets]
        elif set(sets) != set(self.current):
            self._places.append(place)
            self._sets.append(sets)

    def at(self, place: int) -> tuple[bytes, ...]:
        """Return the sets in effect at a packet."""
        return self._sets[bisect.bisect_right(self._places, place) - 1]

    def prepend(self, place: int, packet: Packet) -> Packet:
        """Return a packet at which decoding can start: with the sets in effect in front of it, if they ever change."""
        if not self.change:
            return packet
        start = Packet(self._nal.join(self.at(place)) + bytes(packet))
        start.pts, start.dts, start.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
        if packet.time_base:
            start.time_base = packet.time_base
        return start
