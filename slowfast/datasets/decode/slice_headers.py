"""Display order of H.264 and H.265 pictures and field pairs of H.264, read from slice headers (ITU-T H.264, H.265).

Transport streams of H.264 store one field per packet; decoders output one frame per pair.
"""

from __future__ import annotations

from dataclasses import dataclass

from slowfast.datasets.decode.nal_units import Bits, NalFormat

FRAME, TOP, BOTTOM = 0, 1, 2
_SLICE_BYTES = 64  # sufficient for a slice header up to the picture order count
# Types of NAL units of H.264.
_SLICES = frozenset({1, 2, 5})
_IDR, _PICTURE_SET = 5, 8
# Profiles whose sequence parameter sets contain the chroma format (7.3.2.1.1).
_WITH_CHROMA = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
# Types of NAL units of H.265.
_H265_SEQUENCE_SET, _H265_PICTURE_SET = 33, 34
_H265_RANDOM_ACCESS = range(16, 24)
_H265_RESTARTS = range(16, 21)  # BLA and IDR pictures restart the picture order count
_H265_IDR = (19, 20)
_H265_LEADING = range(6, 10)


@dataclass(frozen=True)
class _Sequence:
    """Fields of a sequence parameter set that slice headers depend on."""

    frame_num_bits: int
    may_be_fields: bool
    separate_planes: bool
    order_type: int
    order_bits: int = 0  # type 0
    no_deltas: bool = True  # pic_order_cnt_type 1, like all fields below
    non_reference: int = 0
    top_to_bottom: int = 0
    cycle: tuple[int, ...] = ()


@dataclass(frozen=True)
class Picture:
    """Fields of the first slice header of a picture."""

    structure: int  # FRAME, TOP or BOTTOM
    frame_num: int
    is_idr: bool
    is_reference: bool
    sequence: _Sequence
    order_lsb: int
    deltas: tuple[int, int]


class H264Slices:
    """Reader of slice headers.

    Args:
        nal: NAL unit format of the stream.
    """

    def __init__(self, nal: NalFormat) -> None:
        self._nal = nal
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, tuple[int, bool]] = {}  # sequence parameter set, bottom_field_pic_order_in_frame

    def learn(self, sets: tuple[bytes, ...]) -> None:
        """Parse and store parameter sets."""
        for unit in sets:
            bits = Bits(unit[1:])
            try:
                if self._nal.is_sequence(unit):
                    number, sequence = _read_sequence(bits)
                    self._sequences[number] = sequence
                elif self._nal.type_of(unit) == _PICTURE_SET:
                    number, sequence_number = bits.ue(), bits.ue()
                    bits.flag()  # entropy_coding_mode_flag
                    self._pictures[number] = sequence_number, bits.flag()
            except IndexError:  # truncated
                continue

    @property
    def may_be_fields(self) -> bool:
        """True if pictures may be single fields."""
        return any(sequence.may_be_fields for sequence in self._sequences.values())

    def first(self, packet: memoryview) -> Picture | None:
        """Return the first picture of a packet; None if its header cannot be read."""
        for unit in self._nal.units(bytes(packet[: self._nal.HEAD])):
            if self._nal.type_of(unit) in _SLICES:
                return self._read(unit)
        return None

    def last_structure(self, packet: memoryview) -> int | None:
        """Return the structure of the last picture of a packet."""
        slices = [unit for unit in self._nal.units(bytes(packet)) if self._nal.type_of(unit) in _SLICES]
        picture = self._read(slices[-1]) if slices else None
        return None if picture is None else picture.structure

    def _read(self, unit: bytes) -> Picture | None:
        """Parse a slice header up to the picture order count (7.3.3)."""
        is_idr, is_reference = unit[0] & 31 == _IDR, bool(unit[0] & 0x60)
        bits = Bits(unit[1:_SLICE_BYTES])
        try:
            bits.ue(), bits.ue()  # first_mb_in_slice, slice_type
            number, bottom_order = self._pictures[bits.ue()]
            sequence = self._sequences[number]
            bits.u(2 if sequence.separate_planes else 0)
            frame_num, structure = bits.u(sequence.frame_num_bits), FRAME
            if sequence.may_be_fields and bits.flag():
                structure = BOTTOM if bits.flag() else TOP
            if is_idr:
                bits.ue()
            lsb, deltas = 0, [0, 0]
            both = bottom_order and structure == FRAME
            if sequence.order_type == 0:
                lsb = bits.u(sequence.order_bits)
                deltas[1] = bits.se() if both else 0
            elif sequence.order_type == 1 and not sequence.no_deltas:
                deltas = [bits.se(), bits.se() if both else 0]
        except (IndexError, KeyError):
            return None
        return Picture(structure, frame_num, is_idr, is_reference, sequence, lsb, (deltas[0], deltas[1]))


class H264Order:
    """Picture order count of pictures in decoding order (8.2.1), without memory management operation 5.

    Args:
        nal: NAL unit format of the stream.
    """

    def __init__(self, nal: NalFormat) -> None:
        self._slices = H264Slices(nal)
        self._group = 0  # number of IDR pictures so far
        self._msb = self._lsb = self._frame_num = self._offset = self._count = 0

    def learn(self, sets: tuple[bytes, ...]) -> None:
        """Parse and store parameter sets."""
        self._slices.learn(sets)

    def key(self, packet: memoryview) -> tuple[int, int] | None:
        """Return the sort key of a picture, its group and picture order count; None for a damaged header."""
        picture = self._slices.first(packet)
        if picture is None:
            return None
        if picture.is_idr:
            self._group += 1
            self._msb = self._lsb = self._offset = self._count = self._frame_num = 0
        read = (self._by_lsb, self._by_cycle, self._by_decoding)[picture.sequence.order_type]
        return self._group, read(picture)

    def _by_lsb(self, picture: Picture) -> int:
        size, lsb = 1 << picture.sequence.order_bits, picture.order_lsb
        msb = self._msb
        if lsb < self._lsb and self._lsb - lsb >= size // 2:
            msb += size
        elif lsb > self._lsb and lsb - self._lsb > size // 2:
            msb -= size
        if picture.is_reference:
            self._msb, self._lsb = msb, lsb
        return msb + lsb + min(picture.deltas[1], 0)

    def _by_cycle(self, picture: Picture) -> int:
        sequence = picture.sequence
        if self._frame_num > picture.frame_num:
            self._offset += 1 << sequence.frame_num_bits
        self._frame_num = picture.frame_num
        position = self._offset + picture.frame_num if sequence.cycle else 0
        position -= not picture.is_reference and position > 0
        expected = 0 if picture.is_reference else sequence.non_reference
        if position:
            cycles, rest = divmod(position - 1, len(sequence.cycle))
            expected += cycles * sum(sequence.cycle) + sum(sequence.cycle[: rest + 1])
        top = expected + picture.deltas[0]
        if picture.structure == BOTTOM:
            return top + sequence.top_to_bottom
        bottom = top + sequence.top_to_bottom + picture.deltas[1]
        return top if picture.structure == TOP else min(top, bottom)

    def _by_decoding(self, picture: Picture) -> int:
        self._count += 1
        return self._count


class H264FieldPairs:
    """Detector of second fields in H.264: opposite parity, same frame number (7.4.1.2.4)."""

    def __init__(self, slices: H264Slices) -> None:
        self._slices = slices
        self._open: Picture | None = None  # first field whose second field has not been found yet

    def is_second(self, packet: memoryview) -> bool:
        """Return whether a packet completes the frame of the previous packet."""
        first = self._slices.first(packet)
        before, self._open = self._open, None
        if first is None or first.structure == FRAME:
            return False
        if before is not None and before.frame_num == first.frame_num and before.structure != first.structure:
            return True
        if self._slices.last_structure(packet) == first.structure:  # unless both fields are in one packet
            self._open = first
        return False


def _read_sequence(bits: Bits) -> tuple[int, _Sequence]:
    """Parse a sequence parameter set (7.3.2.1.1) and its number."""
    profile = bits.u(8)
    bits.u(16)
    number = bits.ue()
    separate_planes = profile in _WITH_CHROMA and _skip_chroma(bits)
    frame_num_bits, order_type = bits.ue() + 4, bits.ue()
    order: dict[str, int | bool | tuple[int, ...]] = {}
    if order_type == 0:
        order["order_bits"] = bits.ue() + 4
    elif order_type == 1:
        order = {"no_deltas": bits.flag(), "non_reference": bits.se(), "top_to_bottom": bits.se()}
        order["cycle"] = tuple(bits.se() for _ in range(bits.ue()))
    bits.ue(), bits.flag(), bits.ue(), bits.ue()  # reference frames, gaps, width, height
    return number, _Sequence(frame_num_bits, not bits.flag(), separate_planes, order_type, **order)  # type: ignore[arg-type]


def _skip_chroma(bits: Bits) -> bool:
    """Skip the part for high profiles; return separate_colour_plane_flag."""
    chroma = bits.ue()
    separate = chroma == 3 and bits.flag()
    bits.ue(), bits.ue(), bits.flag()  # bit depths, transform bypass
    if bits.flag():
        for matrix in range(12 if chroma == 3 else 8):
            if bits.flag():
                _skip_scaling_list(bits, 16 if matrix < 6 else 64)
    return separate


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


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
                if self._nal.type_of(unit) == _H265_SEQUENCE_SET:
                    number, *sequence = _read_h265_sequence(bits)
                    self._sequences[number] = bool(sequence[0]), sequence[1]
                elif self._nal.type_of(unit) == _H265_PICTURE_SET:
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
            if kind in _H265_RANDOM_ACCESS:
                bits.flag()
            number, has_output_flag, extra = self._pictures[bits.ue()]
            separate_planes, order_bits = self._sequences[number]
            bits.u(extra), bits.ue()  # reserved, slice_type
            bits.u(has_output_flag + 2 * separate_planes)
            lsb = 0 if kind in _H265_IDR else bits.u(order_bits)
        except (IndexError, KeyError):
            return None
        if kind in _H265_RESTARTS:
            self._group, self._previous = self._group + 1, 0
            count = lsb
        else:
            size = 1 << order_bits
            count = self._previous + (lsb - self._previous + size // 2) % size - size // 2
        if not temporal_id and kind not in _H265_LEADING and (kind > 15 or kind % 2):
            self._previous = count
        return self._group, count


def _read_h265_sequence(bits: Bits) -> tuple[int, bool, int]:
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
