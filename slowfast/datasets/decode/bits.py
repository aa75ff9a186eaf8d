"""Reader of the bit fields in NAL units."""

from __future__ import annotations


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
