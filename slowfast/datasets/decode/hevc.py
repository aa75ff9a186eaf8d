"""Display order of H.265 pictures, read from slice headers (ITU-T H.265)."""

from __future__ import annotations

from slowfast.datasets.decode.nal_units import Bits, NalFormat

_SLICE_BYTES = 64  # sufficient for a slice header up to the picture order count
_SEQUENCE_SET, _PICTURE_SET = 33, 34
_RANDOM_ACCESS = range(16, 24)
_RESTARTS = range(16, 21)  # BLA and IDR pictures restart the picture order count
_IDR = (19, 20)
_LEADING = range(6, 10)


class HevcOrder:
    """Picture order count of pictures in decoding order (8.3.1).

    Args:
        nal: NAL unit format of the stream.
    """

    def __init__(self, nal: NalFormat) -> None:
        self._nal = nal
        self._sequences: dict[int, tuple[bool, int]] = {}  # separate color planes, bits of the order count
        self._pictures: dict[int, tuple[int, bool, int]] = {}  # sequence, output flag present, extra bits
        self._group = 0  # number of restarts so far
        self._previous = 0  # order count to which the next one is relative

    def learn(self, sets: tuple[bytes, ...]) -> None:
        """Parse and store parameter sets."""
        for unit in sets:
            bits = Bits(unit[2:])
            try:
                if self._nal.type_of(unit) == _SEQUENCE_SET:
                    number, *sequence = _read_sequence(bits)
                    self._sequences[number] = bool(sequence[0]), sequence[1]
                elif self._nal.type_of(unit) == _PICTURE_SET:
                    number, sequence_number = bits.ue(), bits.ue()
                    bits.flag()  # dependent_slice_segments_enabled_flag
                    self._pictures[number] = sequence_number, bits.flag(), bits.u(3)
            except IndexError:  # truncated
                continue

    def key(self, packet: memoryview) -> tuple[int, int] | None:
        """Return the sort key of a picture, its group and picture order count; None for a damaged header."""
        for unit in self._nal.units(bytes(packet[: self._nal.HEAD])):
            if self._nal.is_slice(unit):
                return self._read(unit)
        return None

    def _read(self, unit: bytes) -> tuple[int, int] | None:
        """Parse the first slice header of a picture up to the picture order count (7.3.6.1)."""
        kind, temporal_id = self._nal.type_of(unit), (unit[1] & 7) - 1
        bits = Bits(unit[2:_SLICE_BYTES])
        try:
            bits.flag()  # first_slice_segment_in_pic_flag
            if kind in _RANDOM_ACCESS:
                bits.flag()
            number, has_output_flag, extra = self._pictures[bits.ue()]
            separate_planes, order_bits = self._sequences[number]
            bits.u(extra), bits.ue()  # reserved, slice_type
            bits.u(has_output_flag + 2 * separate_planes)
            lsb = 0 if kind in _IDR else bits.u(order_bits)
        except (IndexError, KeyError):
            return None
        if kind in _RESTARTS:
            self._group, self._previous = self._group + 1, 0
            count = lsb
        else:
            size = 1 << order_bits
            count = self._previous + (lsb - self._previous + size // 2) % size - size // 2
        if not temporal_id and kind not in _LEADING and (kind > 15 or kind % 2):
            self._previous = count
        return self._group, count


def _read_sequence(bits: Bits) -> tuple[int, bool, int]:
    """Parse a sequence parameter set (7.3.2.2): number, separate planes, bits of the order count."""
    bits.u(4)
    layers = bits.u(3)
    bits.u(1 + 88 + 8)  # nesting, general profile and level
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    bits.u(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.u(88 * profile + 8 * level)
    number = bits.ue()
    separate_planes = bits.ue() == 3 and bits.flag()
    bits.ue(), bits.ue()  # width, height
    if bits.flag():
        for _ in range(4):
            bits.ue()
    bits.ue(), bits.ue()  # bit depths
    return number, separate_planes, bits.ue() + 4
