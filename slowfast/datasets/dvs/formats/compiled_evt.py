"""Compiled decoders of EVT 2.0, EVT 3.0 and DAT. Only used for large files, because compiling takes seconds.

Notation: n words of a block.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slowfast.datasets.dvs.formats.base import EventBlock
from slowfast.datasets.dvs.formats.evt import Evt2Decoder, Evt3Decoder, EvtDecoder
from slowfast.utils.logging import get_logger
from slowfast.utils.private_cache import compiled_library

MIN_BYTES = 2**22  # minimum file size for the compiled decoders
_SOURCE = Path(__file__).with_name("evt.cpp")
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC")
_KINDS = (np.int64, np.uint16, np.uint16, np.uint8)
Space = Callable[[int], EventBlock]
_FIELDS = ("high", "raw", "overflows", "low", "row", "base", "polarity", "x_bits", "y_bits")


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
    """Decoder with the state of the stream.

    Args:
        decode: Function of the library.
        word: Type of the words.
        per_word: Largest number of events of a word.
        space: Memory for the events, as `EventReader.space`; None for arrays of their own.
        layout: Number of bits of x and y, of DAT.
    """

    def __init__(
        self,
        decode: ctypes._NamedFuncPointer,
        word: np.dtype,
        per_word: int,
        space: Space | None = None,
        layout: tuple[int, int] = (0, 0),
    ) -> None:
        self.word = word
        self._decode, self._per_word, self._given = decode, per_word, space
        self._state = _State(
            high=-1, raw=-1, overflows=0, low=0, row=-1, base=-1, polarity=0, x_bits=layout[0], y_bits=layout[1]
        )
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
            self._space = EventBlock(*(np.empty(events, kind) for kind in _KINDS))
        return self._space


def evt2_decoder(size: int, space: Space | None = None) -> EvtDecoder:
    """Return a decoder of EVT 2.0.

    Args:
        size: Size of the file in bytes.
        space: Memory for the events, see :class:`CompiledDecoder`.
    """
    library = _library() if size >= MIN_BYTES else None
    return Evt2Decoder() if library is None else CompiledDecoder(library.decode_evt2, Evt2Decoder.word, 1, space)


def evt3_decoder(size: int, space: Space | None = None) -> EvtDecoder:
    """Return a decoder of EVT 3.0; arguments as for EVT 2.0."""
    library = _library() if size >= MIN_BYTES else None
    return Evt3Decoder() if library is None else CompiledDecoder(library.decode_evt3, Evt3Decoder.word, 12, space)


def dat_decoder(size: int, record: np.dtype, layout: tuple[int, int], space: Space | None = None) -> EvtDecoder | None:
    """Return a decoder of .dat files; None for a small file.

    Args:
        size: Size of the file in bytes.
        record: Type of the events.
        layout: Number of bits of x and y.
        space: Memory for the events, see :class:`CompiledDecoder`.
    """
    library = _library() if size >= MIN_BYTES else None
    return None if library is None else CompiledDecoder(library.decode_dat, record, 1, space, layout)
