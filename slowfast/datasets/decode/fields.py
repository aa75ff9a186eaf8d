"""Pictures coded as two fields: which packets hold the second field of the frame that the packet before them began.

Transport streams hold one field per packet; decoders output one frame per pair. H.265 has no such frames.
"""

from __future__ import annotations

from typing import Protocol


class FieldPairs(Protocol):
    """Field pairing of one stream, called for each packet in decoding order."""

    def is_second(self, packet: memoryview) -> bool:
        """Whether a packet completes the frame of the packet before it."""
        ...


class Mpeg2FieldPairs:
    """Field pairing of MPEG-2: picture_structure of the picture coding extension (ISO/IEC 13818-2, 6.2.3.1)."""

    def __init__(self) -> None:
        self._open = 0  # structure of a first field that waits for its second

    def is_second(self, packet: memoryview) -> bool:
        """Whether a packet completes the frame of the packet before it."""
        data = bytes(packet)
        structure = _mpeg2_structure(data)
        before, self._open = self._open, 0
        if structure == 3:
            return False
        if before and before != structure:
            return True
        if data.count(b"\0\0\1\0") == 1:  # not both fields in one packet
            self._open = structure
        return False


def _mpeg2_structure(data: bytes) -> int:
    """1: top field, 2: bottom field, 3: frame."""
    at = data.find(b"\0\0\1\xb5")
    while at >= 0 and at + 6 < len(data):
        if data[at + 4] >> 4 == 8:
            return data[at + 6] & 3 or 3
        at = data.find(b"\0\0\1\xb5", at + 4)
    return 3
