"""Readers of raw recordings by the suffix of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from slowfast.prepare.aedat import read_aedat
from slowfast.prepare.event_streams import EventStream
from slowfast.prepare.mat import read_mat
from slowfast.prepare.prophesee import read_dat, read_raw

READERS: dict[str, Callable[[Path], Sequence[EventStream]]] = {
    ".aedat": read_aedat,
    ".aedat4": read_aedat,
    ".dat": read_dat,
    ".raw": read_raw,
    ".mat": read_mat,
}
