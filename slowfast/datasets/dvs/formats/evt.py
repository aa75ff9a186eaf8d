"""Decoders of Prophesee's encodings EVT 2.0, EVT 2.1 and EVT 3.0, block by block, and compiled ones for large files.

The encodings follow docs.prophesee.ai ("Data Encoding Formats") and, for the two word orders of EVT 2.1,
evt21_event_types.h of OpenEB. Each decoder keeps its state between blocks of words.

Notation: n words of a block, m words of one kind.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Protocol

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import EventBlock, Space
from slowfast.utils.logging import get_logger
from slowfast.utils.private_cache import compiled_library

# Word types of EVT 2.0 and EVT 2.1.
OFF, ON, TIME_HIGH_2 = 0x0, 0x1, 0x8
TIME_HIGH_BITS_2 = 28
# Word types of EVT 3.0.
ADDRESS_Y, ADDRESS_X, BASE_X, VECTOR_12, VECTOR_8, TIME_LOW, TIME_HIGH = 0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8
TIME_HIGH_BITS_3 = 12
# Word order of EVT 2.1: low half first, or high half first (IMX636 and older sensors).
LITTLE, LEGACY = "little", "legacy"
# The polarity of a mask is kept above the bits of its x, which grows with every mask after a base.
_POLARITY_BIT = 24
_X_MASK, _MAX_X = (1 << _POLARITY_BIT) - 1, 0xFFFF
_SHIFT = 1 << 20  # larger than the total width of all masks of a block
MIN_BYTES = 2**22  # minimum file size for the compiled decoders
_SOURCE = Path(__file__).with_name("evt.cpp")
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC")
_FIELDS = ("high", "raw", "overflows", "low", "row", "base", "polarity", "x_bits", "y_bits")


class EvtDecoder(Protocol):
    """Stateful decoder of the words of a stream."""

    word: np.dtype

    def __call__(self, words: np.ndarray) -> EventBlock: ...


class HighTime:
    """High bits of the time, unwrapped: a step back by more than half of their range is an overflow.

    Args:
        bits: Number of bits.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.value = -1  # unwrapped, before the next word; -1 before the first
        self._raw, self._overflows = -1, 0

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Unwrap the values of the next words: (m,) -> int64 (1 + m,), with the value before them in front."""
        values = np.empty(len(raw) + 1, np.int64)
        values[0] = self.value
        if not len(raw):
            return values
        values[1:] = raw
        steps = np.diff(values[1:], prepend=self._raw if self._raw >= 0 else values[1])
        back = steps < -(1 << self.bits - 1)
        self._raw = int(values[-1])
        if back.any():
            turns = np.cumsum(back)
            values[1:] += (turns + self._overflows) << self.bits
            self._overflows += int(turns[-1])
        elif self._overflows:
            values[1:] += self._overflows << self.bits
        self.value = int(values[-1])
        return values


class Evt2Decoder:
    """Decoder of EVT 2.0: 32-bit words with an event each; separate words have the high bits of the time."""

    word = np.dtype("<u4")

    def __init__(self) -> None:
        self.high = HighTime(TIME_HIGH_BITS_2)

    def __call__(self, words: np.ndarray) -> EventBlock:
        """Decode words, uint32 (n,)."""
        kind = (words >> 28).astype(np.uint8)
        is_time, is_event = kind == TIME_HIGH_2, kind <= ON
        before = self.high.value
        high = self.high(words[is_time] & 0x0FFFFFFF)
        at = np.flatnonzero(is_event)
        part = np.cumsum(is_time, dtype=np.int32)[at]
        if before < 0:  # events before the first time have none
            at, part = at[part > 0], part[part > 0]
        events = words[at]
        time = high[part]
        time <<= 6
        time += events >> 22 & 0x3F
        return EventBlock(time, (events >> 11 & 0x7FF).astype(np.uint16), (events & 0x7FF).astype(np.uint16), kind[at])


class Evt21Decoder:
    """Decoder of EVT 2.1: 64-bit words with the type in the highest bits and one event per set bit of the lower 32.

    Args:
        order: LITTLE or LEGACY; None to detect it from the time words of the first block, one half of which is 0.

    Raises:
        DecodeError: If the order is unknown.
    """

    word = np.dtype("<u8")

    def __init__(self, order: str | None = None) -> None:
        if order not in (None, LITTLE, LEGACY):
            raise DecodeError(f"unsupported word order {order}. Supported: {LITTLE}, {LEGACY}")
        self.order = order
        self.high = HighTime(TIME_HIGH_BITS_2)

    def __call__(self, words: np.ndarray) -> EventBlock:
        """Decode words in the order of the file, uint64 (n,)."""
        words = self.ordered(words)
        upper, mask = (words >> 32).astype(np.uint32), words.astype(np.uint32)
        kind = (upper >> 28).astype(np.uint8)
        is_time, before = kind == TIME_HIGH_2, self.high.value
        high = self.high(upper[is_time] & 0x0FFFFFFF)
        at = np.flatnonzero(kind <= ON)
        part = np.cumsum(is_time, dtype=np.int32)[at]
        if before < 0:
            at, part = at[part > 0], part[part > 0]
        upper = upper[at]
        time = (high[part] << 6) + (upper >> 22 & 0x3F)
        bits = np.unpackbits(mask[at].astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
        vector, bit = np.nonzero(bits)  # of (vectors, 32): vector by vector
        x = (upper >> 11 & 0x7FF).astype(np.uint16)[vector] + bit.astype(np.uint16)
        return EventBlock(time[vector], x, (upper & 0x7FF).astype(np.uint16)[vector], kind[at][vector])

    def ordered(self, words: np.ndarray) -> np.ndarray:
        """Return words with the type in the highest bits, uint64 (n,)."""
        legacy = words << np.uint64(32) | words >> np.uint64(32)
        if self.order is None:
            times = [int(((w >> 60 == TIME_HIGH_2) & (w & 0xFFFFFFFF == 0)).sum()) for w in (words, legacy)]
            self.order = LITTLE if times[0] >= times[1] else LEGACY
        return words if self.order == LITTLE else legacy


class Evt3Decoder:
    """Decoder of EVT 3.0: 16-bit words that update the state, or are an event or a mask of several events."""

    word = np.dtype("<u2")

    def __init__(self) -> None:
        self.high = HighTime(TIME_HIGH_BITS_3)
        self._low, self._y = 0, -1
        self._base = -1  # x (bits 0 to 10) and polarity (bit 11) of the next mask

    def __call__(self, words: np.ndarray) -> EventBlock:
        """Decode words, uint16 (n,)."""
        kind = (words >> 12).astype(np.uint8)
        times, is_time = self._times(words, kind)
        is_y = kind == ADDRESS_Y
        rows = np.empty(int(np.count_nonzero(is_y)) + 1, np.int32)
        rows[0], rows[1:] = self._y, words[is_y] & 0x7FF
        self._y = int(rows[-1])
        is_event = kind == ADDRESS_X
        masked = bool(((kind >= BASE_X) & (kind <= VECTOR_8)).any())
        if masked:
            is_event |= (kind == VECTOR_12) | (kind == VECTOR_8)
        at = np.flatnonzero(is_event)
        row, time = np.cumsum(is_y, dtype=np.int32)[at], np.cumsum(is_time, dtype=np.int32)[at]
        y, t = rows[row], times[time]
        left, mask = self._masks(words, kind, at) if masked else (words[at].astype(np.int32) & 0xFFF, None)
        if rows[0] < 0 or times[0] < 0 or (mask is not None and int(left.min(initial=0)) < 0):
            valid = (y >= 0) & (t >= 0) & (left >= 0)
            y, t, left, mask = y[valid], t[valid], left[valid], mask if mask is None else mask[valid]
        if mask is not None:
            bits = np.unpackbits(mask.astype("<u2").view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")
            vector, bit = np.nonzero(bits)  # of (vectors, 16): vector by vector
            y, t, p = y[vector], t[vector], (left >> _POLARITY_BIT).astype(np.uint8)[vector]
            x = np.minimum((left & _X_MASK)[vector] + bit, _MAX_X).astype(np.uint16)
        else:
            x, p = (left & 0x7FF).astype(np.uint16), (left >> 11).astype(np.uint8)
        return EventBlock(t, x, y.astype(np.uint16), p)

    def _times(self, words: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the times in microseconds, int64 (1 + m,): the one before and after each time word; and their mask.

        The low bits are reset when the high bits change.
        """
        is_high = kind == TIME_HIGH
        is_time = is_high | (kind == TIME_LOW)
        value = words[is_time] & 0xFFF
        is_high = is_high[is_time]
        highs = self.high(value[is_high])
        changed = np.zeros(len(value), np.bool_)
        changed[is_high] = np.diff(highs) != 0
        low = np.empty(len(value) + 1, np.int64)
        low[0], low[1:] = self._low, value
        if len(highs) > 1:
            low[1:][changed] = 0
            kept = np.zeros(len(low), np.bool_)  # high words that repeat the value keep the low bits
            kept[1:] = is_high & ~changed
            if kept.any():
                position = np.maximum.accumulate(np.where(kept, 0, np.arange(len(low))))
                low = low[position]
        self._low = int(low[-1])
        time = np.empty(len(low), np.int64)
        time[0] = highs[0]
        time[1:] = highs[np.cumsum(is_high)]
        return np.where(time < 0, -1, (time << 12) + low), is_time

    def _masks(self, words: np.ndarray, kind: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the leftmost x plus the polarity above its bits, int32 (m,), -1 without a base, and the mask.

        The events of a mask follow those of the base and of the masks since. A single event is a mask of one bit.
        """
        width = np.zeros(len(kind), np.int32)
        width[kind == VECTOR_12], width[kind == VECTOR_8] = 12, 8
        after = np.cumsum(width, dtype=np.int32)
        is_base = kind == BASE_X
        # Relative to the start of the block, so that adding the cumulative widths gives x.
        base = np.empty(int(np.count_nonzero(is_base)) + 1, np.int32)
        base[0] = -1 if self._base < 0 else self._base + _SHIFT
        base[1:] = _with_polarity(words[is_base]) - after[is_base] + _SHIFT
        if base[-1] >= 0:
            end = int(base[-1]) - _SHIFT + int(after[-1])
            self._base = (end & ~_X_MASK) + min(end & _X_MASK, _MAX_X)
        number = np.cumsum(is_base, dtype=np.int32)[at]
        masked = np.where(base[number] < 0, -1, base[number] - _SHIFT + (after - width)[at])
        word, single = words[at], kind[at] == ADDRESS_X
        bits = np.where(kind[at] == VECTOR_8, word & 0xFF, word & 0xFFF)
        return np.where(single, _with_polarity(word), masked), np.where(single, np.uint16(1), bits.astype(np.uint16))


def _with_polarity(words: np.ndarray) -> np.ndarray:
    """Return x plus the polarity above its bits, of address words: int32 (m,)."""
    value = words.astype(np.int32)
    result: np.ndarray = ((value >> 11 & 1) << _POLARITY_BIT) + (value & 0x7FF)
    return result


class _State(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in _FIELDS)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Load the library; None if it cannot be compiled, in which case the NumPy decoders are used."""
    try:
        library = ctypes.CDLL(str(compiled_library("evt", [_SOURCE], _FLAGS)))
    except OSError as error:
        get_logger().debug(f"event decoders in NumPy: {error}")
        return None
    for decode in (library.decode_evt2, library.decode_evt3, library.decode_dat):
        decode.restype = ctypes.c_int64
        decode.argtypes = (ctypes.c_void_p, ctypes.c_int64, *(ctypes.c_void_p,) * 5)
    return library


class CompiledDecoder:
    """Decoder of evt.cpp with the state of the stream; see :func:`compiled` for the arguments."""

    def __init__(
        self,
        decode: ctypes._NamedFuncPointer,
        word: np.dtype,
        per_word: int,
        space: Space | None,
        layout: tuple[int, int],
    ) -> None:
        self.word = word
        self._decode, self._per_word, self._given = decode, per_word, space
        self._state = _State(high=-1, raw=-1, row=-1, base=-1, x_bits=layout[0], y_bits=layout[1])
        self._space: EventBlock | None = None

    def __call__(self, words: np.ndarray) -> EventBlock:
        """Decode words (n,)."""
        words = np.ascontiguousarray(words, self.word)
        most = len(words) * self._per_word
        space = self._own_space(most) if self._given is None else self._given(most)
        addresses = [column.ctypes.data for column in space]
        count = self._decode(words.ctypes.data, len(words), ctypes.addressof(self._state), *addresses)
        parts = [column[:count] for column in space]
        return EventBlock(*parts) if self._given is not None else EventBlock(*(part.copy() for part in parts))

    def _own_space(self, events: int) -> EventBlock:
        """Return columns for the results, which are reused for the next words."""
        if self._space is None or len(self._space.t) < events:
            self._space = EventBlock.empty(events)
        return self._space


def compiled(
    decoder: EvtDecoder,
    function: str,
    size: int,
    space: Space | None,
    per_word: int = 1,
    layout: tuple[int, int] = (0, 0),
) -> EvtDecoder:
    """Return the compiled counterpart of a decoder for a large file, otherwise the decoder itself.

    Args:
        decoder: Decoder in NumPy.
        function: Name of its counterpart in evt.cpp.
        size: Size of the file in bytes.
        space: Memory for the events, as `EventReader.space`.
        per_word: Largest number of events of a word.
        layout: Number of bits of x and y, of DAT.
    """
    library = _library() if size >= MIN_BYTES else None
    if library is None:
        return decoder
    return CompiledDecoder(getattr(library, function), decoder.word, per_word, space, layout)
