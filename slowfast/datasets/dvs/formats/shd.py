"""Spike recordings of SHD and SSC (Cramer et al. 2020) in HDF5: spikes/times, spikes/units and labels.

Each sample is a stream, with the channel of the cochlea model as x, and ON events only.

Notation: n spikes of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import StreamInfo
from slowfast.datasets.dvs.formats.columns import SECOND, Column, to_microseconds

TIMES, UNITS, LABELS = "spikes/times", "spikes/units", "labels"
CHANNELS = 700


def has_samples(file: Any) -> bool:
    """Return whether an HDF5 file has the layout of SHD."""
    return TIMES in file and UNITS in file


def find_samples(file: Any) -> list[tuple[Mapping[str, Column], StreamInfo]]:
    """Return the columns of each sample, which are read when they are needed, and its description.

    Raises:
        DecodeError: If a sample states more spikes than the file can have.
    """
    times, units = file[TIMES], file[UNITS]
    for array in (times, units):
        _check_lengths(file, array)
    labels = np.asarray(file[LABELS]) if LABELS in file else None
    digits = len(str(max(len(times) - 1, 0)))
    samples = _Samples(times, units)
    found: list[tuple[Mapping[str, Column], StreamInfo]] = []
    for number in range(len(times)):
        label = None if labels is None else str(int(labels[number]))
        columns = {key: _SampleColumn(samples, number, key) for key in "xytp"}
        found.append((columns, StreamInfo(f"{number:0{digits}d}", (1, CHANNELS), label)))
    return found


def _check_lengths(file: Any, array: Any) -> None:
    """Check the lengths of the samples of an array, for which HDF5 reserves memory whatever the file has.

    They are the first 4 bytes of each stored element; those of compressed elements are protected by a checksum at best.
    """
    import h5py

    properties, kind = array.id.get_create_plist(), h5py.check_vlen_dtype(array.dtype)
    if kind is None or array.ndim != 1:
        raise DecodeError(f"{array.name} has no samples of variable length")
    if properties.get_nfilters() or not len(array):
        return
    size = 8 + file.id.get_create_plist().get_sizes()[0]  # length, address and index of the heap
    element = np.dtype({"names": ["length"], "formats": ["<u4"], "itemsize": size})
    path = Path(file.filename)
    if properties.get_layout() == h5py.h5d.CHUNKED:
        places = [array.id.get_chunk_info(number) for number in range(array.id.get_num_chunks())]
        parts = [(chunk.byte_offset, chunk.size // size) for chunk in places]
    else:
        offset = array.id.get_offset()
        parts = [] if offset is None else [(offset, len(array))]
    lengths = [np.fromfile(path, element, count, offset=at)["length"] for at, count in parts]
    longest = max((int(part.max(initial=0)) for part in lengths), default=0)
    if longest * kind.itemsize > path.stat().st_size:
        raise DecodeError(f"{array.name} states a sample of {longest} values, more than the file has")


class _Samples:
    """Reader of samples, which keeps the last one."""

    def __init__(self, times: Any, units: Any) -> None:
        self._times, self._units = times, units
        self._last: tuple[int, Mapping[str, np.ndarray]] | None = None

    def read(self, number: int) -> Mapping[str, np.ndarray]:
        """Return the columns x, y, t, p of a sample."""
        if self._last is None or self._last[0] != number:
            t = to_microseconds(np.asarray(self._times[number], np.float64), SECOND)
            x = np.asarray(self._units[number])
            if len(t) != len(x):
                raise DecodeError(f"sample {number} has {len(t)} times but {len(x)} units")
            columns = {"x": x, "y": np.zeros(len(x), np.uint16), "t": t, "p": np.ones(len(x), np.uint8)}
            self._last = number, columns
        return self._last[1]


class _SampleColumn:
    """Column of a sample that is read on demand."""

    def __init__(self, samples: _Samples, number: int, key: str) -> None:
        self._samples, self._number, self._key = samples, number, key

    @property
    def values(self) -> np.ndarray:
        return self._samples.read(self._number)[self._key]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        return self.values[rows]
