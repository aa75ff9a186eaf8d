"""Seeded damage, as caused by disks, networks, editors and attackers."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]


def _span(data: bytes, rng: Rng, longest: int) -> tuple[int, int]:
    """Return the start and end of a random part of at most `longest` bytes."""
    start = int(rng.integers(0, max(len(data), 1)))
    return start, min(len(data), start + int(rng.integers(1, longest + 1)))


def flip_bits(data: bytes, rng: Rng) -> bytes:
    """Flip one to eight bits."""
    damaged = bytearray(data)
    for place in rng.integers(0, max(len(data), 1), int(rng.integers(1, 9))):
        if damaged:
            damaged[int(place)] ^= 1 << int(rng.integers(0, 8))
    return bytes(damaged)


def zero_block(data: bytes, rng: Rng) -> bytes:
    """Overwrite a block with zeros, as after a power failure."""
    start, end = _span(data, rng, 4096)
    return data[:start] + bytes(end - start) + data[end:]


def noise_block(data: bytes, rng: Rng) -> bytes:
    """Overwrite a block with random bytes."""
    start, end = _span(data, rng, 512)
    return data[:start] + rng.bytes(end - start) + data[end:]


def truncate(data: bytes, rng: Rng) -> bytes:
    """Cut the end off."""
    return data[: int(rng.integers(0, len(data) + 1))]


def insert(data: bytes, rng: Rng) -> bytes:
    """Insert random bytes."""
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 64))) + data[place:]


def delete(data: bytes, rng: Rng) -> bytes:
    """Remove a part."""
    start, end = _span(data, rng, 256)
    return data[:start] + data[end:]


def repeat(data: bytes, rng: Rng) -> bytes:
    """Write a part twice."""
    start, end = _span(data, rng, 1024)
    return data[:end] + data[start:end] + data[end:]


def set_numbers(data: bytes, rng: Rng) -> bytes:
    """Replace four or eight aligned bytes by an extreme number: sizes, counts and times of headers."""
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.choice([4, 8]))
        if len(data) < width:
            return data
        # Headers are mostly at the beginning or at the end.
        area = min(len(data) // width, 256)
        place = int(rng.integers(0, area)) * width
        place = len(data) - width - place if rng.random() < 0.3 else place
        value = int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
        damaged[place : place + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))  # type: ignore[arg-type]
    return bytes(damaged)


BINARY: tuple[Mutation, ...] = (
    flip_bits,
    zero_block,
    noise_block,
    truncate,
    insert,
    delete,
    repeat,
    set_numbers,
)

_VALUES = (
    *("", "0", "-1", "1e400", "nan", "inf", "10000000000000000000000", "0x7f", "1_000", "true", "null", "~", "''"),
    *("[]", "[[1]]", "{}", "{a: 1}", "[1, 2, 3, 4, 5, 6, 7, 8]", "[-1, -1]", "'\\0'", '"\\0"', '"\\ud800"', "abc"),
    *("!!python/object:os.system x", "!!binary aGk=", "2001-01-01", "&a [*a]", "../../etc", "/dev/zero", "kinetics"),
    *("'" + "x" * 5000 + "'", "[" * 300 + "]" * 300, "{:999999999999d}", "{0.__class__}", "*", "|", ">", "%", "@", "`"),
)


def change_value(data: bytes, rng: Rng) -> bytes:
    """Give one key another value."""
    lines = data.decode("utf-8", "replace").split("\n")
    keys = [number for number, line in enumerate(lines) if re.match(r"\s*\w+: \S", line)]
    if keys:
        number = int(rng.choice(keys))
        lines[number] = lines[number].split(":", 1)[0] + ": " + str(rng.choice(_VALUES))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def change_key(data: bytes, rng: Rng) -> bytes:
    """Misspell, repeat, indent or remove a line."""
    lines = data.decode("utf-8", "replace").split("\n")
    number, what = int(rng.integers(0, len(lines))), int(rng.integers(0, 5))
    line = lines[number]
    if what == 0 and line:
        place = int(rng.integers(0, len(line)))
        lines[number] = line[:place] + chr(int(rng.integers(33, 127))) + line[place + 1 :]
    elif what == 1:
        lines.insert(number, line)
    elif what == 2:
        lines[number] = " " * int(rng.integers(1, 5)) + line
    elif what == 3:
        lines[number] = "\t" + line
    else:
        del lines[number]
    return "\n".join(lines).encode()


def add_line(data: bytes, rng: Rng) -> bytes:
    """Add a line that no config should have."""
    lines = (
        *("_BASE_: self.yaml", "_BASE_: /dev/zero", "_BASE_: [a, b]", "<<: *x", "? [a]\n: b", "1: 2", "---", "..."),
        *("TRAIN: 3", "TRAIN: []", "MODEL: {MODEL_NAME: [EAT]}", "null: null", "a: &a {b: *a}", "\0", "\ufeff"),
    )
    return data + b"\n" + str(rng.choice(lines)).encode() + b"\n"


TEXT: tuple[Mutation, ...] = (change_value, change_value, change_value, change_key, add_line, flip_bits, truncate)
