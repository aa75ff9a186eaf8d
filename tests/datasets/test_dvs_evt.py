"""Decoders of EVT 2.0, 2.1, 3.0 and DAT, in NumPy and compiled, against plain word-by-word readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.formats import evt, open_events, read_stream
from slowfast.datasets.dvs.formats.evt import LEGACY, LITTLE, Evt2Decoder, Evt3Decoder, Evt21Decoder, EvtDecoder
from slowfast.datasets.dvs.formats.prophesee import DAT_EVENT, ENCODINGS, DatDecoder
from tests.raw_recordings import Event, dat, rows, some_events

LARGE = 2**30  # bytes of a file for which the compiled decoders are used


def plain_high(state: dict[str, int], value: int, bits: int) -> None:
    if "raw" in state and value - state["raw"] < -(1 << bits - 1):
        state["turns"] = state.get("turns", 0) + 1
    state |= {"raw": value, "high": value + (state.get("turns", 0) << bits)}


def plain_evt2(words: list[int]) -> Iterator[Event]:
    """Decode EVT 2.0 word by word."""
    state: dict[str, int] = {}
    for word in words:
        kind = word >> 28
        if kind == 8:
            plain_high(state, word & 0xFFFFFFF, 28)
        elif kind in (0, 1) and "high" in state:
            yield word >> 11 & 0x7FF, word & 0x7FF, (state["high"] << 6) + (word >> 22 & 0x3F), kind


def plain_evt21(words: list[int]) -> Iterator[Event]:
    """Decode EVT 2.1 word by word: type, 6 bits of time, x, y, and a mask of the 32 pixels from x on."""
    state: dict[str, int] = {}
    for word in words:
        kind = word >> 60
        if kind == 8:
            plain_high(state, word >> 32 & 0xFFFFFFF, 28)
        elif kind in (0, 1) and "high" in state:
            time, x, y = (state["high"] << 6) + (word >> 54 & 0x3F), word >> 43 & 0x7FF, word >> 32 & 0x7FF
            yield from ((x + bit, y, time, kind) for bit in range(32) if word >> bit & 1)


def plain_evt3(words: list[int]) -> Iterator[Event]:
    """Decode EVT 3.0 word by word."""
    state: dict[str, int] = {"low": 0}
    for word in words:
        kind, value = word >> 12, word & 0xFFF
        ready = "high" in state and "y" in state
        time = (state.get("high", 0) << 12) + state["low"]
        if kind == 0:
            state["y"] = value & 0x7FF
        elif kind == 2 and ready:
            yield value & 0x7FF, state["y"], time, value >> 11
        elif kind == 3:
            state |= {"x": value & 0x7FF, "p": value >> 11}
        elif kind in (4, 5) and "x" in state:
            width = 12 if kind == 4 else 8
            if ready:
                yield from ((state["x"] + b, state["y"], time, state["p"]) for b in range(width) if value >> b & 1)
            state["x"] += width
        elif kind == 6:
            state["low"] = value
        elif kind == 8:
            before = state.get("high")
            plain_high(state, value, 12)
            if state["high"] != before:
                state["low"] = 0


def decoded(decode: EvtDecoder, words: list[int], size: int) -> list[Event]:
    values = np.array(words, decode.word)
    return [e for at in range(0, len(words), size) for e in rows(decode(values[at : at + size])._asdict())]


@st.composite
def evt3_words(draw: st.DrawFn) -> list[int]:
    """Draw words of which all kinds are frequent, with times that overflow."""
    kinds = st.sampled_from([0, 0, 2, 2, 3, 4, 4, 5, 6, 8, 8, 0xA])
    words = draw(st.lists(st.tuples(kinds, st.integers(0, 0xFFF)), max_size=120))
    return [kind << 12 | (value & 0x800 | value % 3 * 2047 if kind == 8 else value) for kind, value in words]


@st.composite
def evt2_words(draw: st.DrawFn) -> list[int]:
    kinds = st.sampled_from([0, 1, 1, 8, 0xA, 0xE])
    values = st.one_of(st.integers(0, 2**28 - 1), st.sampled_from([0, 2**28 - 1, 2**27]))
    return [kind << 28 | value for kind, value in draw(st.lists(st.tuples(kinds, values), max_size=80))]


@pytest.mark.parametrize("make", [lambda: Evt3Decoder(), lambda: ENCODINGS["EVT3"]({}, LARGE, None)])
@settings(max_examples=60, deadline=None)
@given(words=evt3_words(), size=st.sampled_from([1, 3, 10, 1000]))
def test_evt3(make: Callable[[], EvtDecoder], words: list[int], size: int) -> None:
    assert decoded(make(), words, size) == list(plain_evt3(words))


@pytest.mark.parametrize("make", [lambda: Evt2Decoder(), lambda: ENCODINGS["EVT2"]({}, LARGE, None)])
@settings(max_examples=40, deadline=None)
@given(words=evt2_words(), size=st.sampled_from([1, 3, 1000]))
def test_evt2(make: Callable[[], EvtDecoder], words: list[int], size: int) -> None:
    assert decoded(make(), words, size) == list(plain_evt2(words))


@settings(max_examples=40, deadline=None)
@given(upper=evt2_words(), seed=st.integers(0, 99), size=st.sampled_from([1, 3, 1000]), swap=st.booleans())
def test_evt21(upper: list[int], seed: int, size: int, swap: bool) -> None:
    masks = np.random.default_rng(seed).integers(0, 2**32, len(upper)).tolist()
    words = [high << 32 | mask for high, mask in zip(upper, masks, strict=True)]
    stored = [mask << 32 | high for high, mask in zip(upper, masks, strict=True)] if swap else words
    assert decoded(Evt21Decoder(LEGACY if swap else LITTLE), stored, size) == list(plain_evt21(words))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("least", [0, LARGE])
def test_dat(tmp_path: Path, version: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evt, "MIN_BYTES", least)
    monkeypatch.setattr("slowfast.datasets.dvs.formats.prophesee.BLOCK_EVENTS", 7)
    events = [(x, y, t + 2**32 - 30_000, p) for x, y, t, p in some_events(100, height=240)]
    (tmp_path / "a.dat").write_bytes(dat([(x, y, t % 2**32, p) for x, y, t, p in events], version))
    assert rows(read_stream(open_events(tmp_path / "a.dat"))) == events


def plain_dat_times(raw: list[int]) -> Iterator[int]:
    """Add the range of the counter after each step back by more than half of it; undo it after such a step forward."""
    overflows = 0
    for before, time in zip([*raw[:1], *raw], raw, strict=False):
        overflows += (time - before < -(2**31)) - (time - before > 2**31)
        yield time + (overflows << 32)


@pytest.mark.parametrize("make", [lambda: DatDecoder((14, 14)), lambda: compiled_dat()])
@settings(max_examples=60, deadline=None)
@given(
    raw=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 2**31, 2**31 + 1, 2**32 - 1])), max_size=60),
    size=st.sampled_from([1, 2, 5, 1000]),
)
def test_dat_overflows(make: Callable[[], EvtDecoder], raw: list[int], size: int) -> None:
    decode, words = make(), np.array([(t, 5) for t in raw], DAT_EVENT)
    found = [t for at in range(0, len(raw), size) for t in decode(words[at : at + size]).t.tolist()]
    assert found == list(plain_dat_times(raw))


def compiled_dat() -> EvtDecoder:
    return evt.compiled(DatDecoder((14, 14)), "decode_dat", LARGE, None, layout=(14, 14))


def test_compiled_decoders_are_those_of_large_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(ENCODINGS["EVT3"]({}, LARGE, None), evt.CompiledDecoder)
    assert isinstance(ENCODINGS["EVT3"]({}, 1000, None), Evt3Decoder)
    monkeypatch.setattr(evt, "_library", lambda: None)
    assert isinstance(ENCODINGS["EVT2"]({}, LARGE, None), Evt2Decoder)
