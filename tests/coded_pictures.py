"""Hand-made streams: field-coded H.264, and containers edited byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

MACROBLOCKS = (4, 4)  # per frame: rows, columns


class Bits:
    """Bit writer for a NAL unit."""

    def __init__(self) -> None:
        self.text = ""

    def u(self, count: int, value: int) -> Bits:
        self.text += format(value, f"0{count}b") if count else ""
        return self

    def ue(self, value: int) -> Bits:
        code = bin(value + 1)[2:]
        self.text += "0" * (len(code) - 1) + code
        return self

    def align(self) -> Bits:
        self.text += "0" * (-len(self.text) % 8)
        return self

    def unit(self, header: int) -> bytes:
        """Return a NAL unit with start code and emulation prevention bytes."""
        self.text += "1"
        self.align()
        out, zeros = bytearray(), 0
        for byte in int(self.text, 2).to_bytes(len(self.text) // 8, "big"):
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\0\0\0\1" + bytes([header]) + bytes(out)


def field_coded_h264(frames: int, group: int = 10) -> tuple[bytes, np.ndarray]:
    """Write frames of two fields each (PAFF) in macroblocks without compression, as an Annex B stream.

    Returns:
        The stream, and the luma of every frame, uint8 (frames, H, W).
    """
    rows, columns = MACROBLOCKS
    sps = Bits().u(8, 77).u(8, 0).u(8, 30).ue(0).ue(0).ue(0).ue(4).ue(1).u(1, 0).ue(columns - 1).ue(rows // 2 - 1)
    sps.u(1, 0).u(1, 0).u(1, 1).u(1, 0).u(1, 1)  # fields; no cropping; VUI with 25 frames per second:
    sps.u(1, 0).u(1, 0).u(1, 0).u(1, 0).u(1, 1).u(32, 1).u(32, 50).u(1, 1).u(1, 0).u(1, 0).u(1, 0).u(1, 0)
    pps = Bits().ue(0).ue(0).u(1, 0).u(1, 0).ue(0).ue(0).ue(0).u(1, 0).u(2, 0).ue(0).ue(0).ue(0)
    pps.u(1, 1).u(1, 0).u(1, 0)
    sets = sps.unit(0x67) + pps.unit(0x68)
    stream, luma = b"", np.zeros((frames, 16 * rows, 16 * columns), np.uint8)
    for number in range(frames):
        place = number % group
        for bottom in (0, 1):
            values = [min(235, 40 + 3 * number + 2 * bottom + block) for block in range(rows // 2 * columns)]
            field = np.array(values, np.uint8).reshape(rows // 2, columns).repeat(16, 0).repeat(16, 1)
            luma[number, bottom::2] = field
            is_idr = place == 0 and not bottom
            stream += Bits().u(3, 0).unit(9) + (sets if is_idr else b"") + _field(is_idr, bottom, place, values)
    return stream, luma


def _field(is_idr: bool, bottom: int, place: int, values: list[int]) -> bytes:
    """Encode a field picture of I_PCM macroblocks."""
    bits = Bits().ue(0).ue(7).ue(0).u(4, place % 16).u(1, 1).u(1, bottom)
    if is_idr:
        bits.ue(0)
    bits.u(8, (2 * place + bottom) % 256)
    bits.u(2 if is_idr else 1, 0)
    bits.ue(0).ue(1)  # QP; no deblocking
    for value in values:
        bits.ue(25).align()
        bits.text += format(value, "08b") * 256 + format(128, "08b") * 128
    return bits.unit(0x65 if is_idr else 0x61)


def set_track_matrix(path: Path, matrix: tuple[int, ...]) -> None:
    """Replace the display matrix of the track of an MP4 file (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def join_flv(first: Path, second: Path, gap: int, target: Path) -> None:
    """Join two FLV files as a recording does after a reconnect: repeated headers, times continued after `gap` ms."""
    data = bytearray(second.read_bytes()[13:])
    at = 0
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        time = (data[at + 7] << 24 | int.from_bytes(data[at + 4 : at + 7], "big")) + gap
        data[at + 4 : at + 8] = (time & 0xFFFFFF).to_bytes(3, "big") + bytes([time >> 24])
        at += 11 + size + 4
    target.write_bytes(first.read_bytes() + data)
