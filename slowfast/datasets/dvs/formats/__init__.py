"""Readers of raw event camera recordings, by file suffix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from slowfast.datasets.dvs.formats.aedat import read_aedat
from slowfast.datasets.dvs.formats.mat import read_mat
from slowfast.datasets.dvs.formats.prophesee import read_dat, read_raw
from slowfast.datasets.dvs.formats.streams import EventStream

READERS: dict[str, Callable[[Path], Sequence[EventStream]]] = {
    ".aedat": read_aedat,
    ".aedat4": read_aedat,
    ".dat": read_dat,
    ".raw": read_raw,
    ".mat": read_mat,
}
