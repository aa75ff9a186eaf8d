"""Columnar records of an index: arrays shared by worker processes, instead of one object per sample.

N samples.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import context, reduction
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from slowfast.datasets.types import Record

# Names from file systems and JSON may contain lone surrogates.
_ENCODING = ("utf-8", "surrogatepass")
_ALIGNMENT = 64  # bytes; alignment of the arrays in a shared file


@dataclass(frozen=True)
class SeveralLabels:
    """Labels of samples with any number of classes each.

    Attributes:
        classes: Class indices of all samples, int64, ascending within a sample.
        ends: End of each sample's classes in `classes`, int64 (N,).
    """

    classes: np.ndarray
    ends: np.ndarray

    def at(self, position: int) -> tuple[int, ...]:
        """Return the classes of a sample."""
        start = int(self.ends[position - 1]) if position else 0
        return tuple(self.classes[start : int(self.ends[position])].tolist())


# One class index per sample, int64 (N,); several; or any objects.
Labels = np.ndarray | SeveralLabels | list[Any]


class RecordTable(Sequence[Record]):
    """Records of an index, created on access.

    A million records take about 100 MB instead of 0.8 GB. Forked workers share the pages, because no reference counts
    are written to them, and spawned workers map a shared file.

    Args:
        folder: Folder that the names are relative to.
        text: UTF-8 bytes that contain the names, uint8.
        starts: Start of each name in `text`, integers (N,).
        lengths: Length of each name in bytes, integers (N,).
        labels: Labels of the samples.
        frames: Images in the folder of each sample, integers (N,); None if the samples are files.
    """

    def __init__(
        self,
        folder: str | Path,
        text: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        labels: Labels,
        frames: np.ndarray | None = None,
    ) -> None:
        self._folder = os.fspath(folder)
        self._text, self._starts, self._lengths = text, starts, lengths
        self._labels, self._frames = labels, frames
        self._shared: BinaryIO | None = None  # file of the columns, written when a worker is spawned

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, position: int) -> Record: ...
    @overload
    def __getitem__(self, position: slice) -> list[Record]: ...
    def __getitem__(self, position: int | slice) -> Record | list[Record]:
        if isinstance(position, slice):
            return [self._record(at) for at in range(*position.indices(len(self)))]
        at = position + len(self) if position < 0 else position
        if not 0 <= at < len(self):
            raise IndexError(f"record {position} of {len(self)}")
        return self._record(int(at))

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Sequence[Record]) -> list[Record]:
        return [*self, *other]

    def _record(self, at: int) -> Record:
        start = int(self._starts[at])
        name = self._text[start : start + int(self._lengths[at])].tobytes().decode(*_ENCODING)
        frames = None if self._frames is None else int(self._frames[at])
        return Record(at, self._path(name), name, self._label(at), frames)

    def _path(self, name: str) -> Path:
        if ".." in name.split("/"):
            return Path(os.path.normpath(os.path.join(self._folder, name)))
        return Path(self._folder, name)

    def _label(self, at: int) -> Any:
        if isinstance(self._labels, np.ndarray):
            return int(self._labels[at])
        return self._labels.at(at) if isinstance(self._labels, SeveralLabels) else self._labels[at]

    def labels(self) -> list[Any]:
        """Return the labels of all samples."""
        if isinstance(self._labels, np.ndarray):
            return list(self._labels.tolist())
        return list(map(self._label, range(len(self))))

    # ------------------------------------------------------------------ worker processes
    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the columns; for a process that is being spawned, as a memory-mapped file."""
        if context.get_spawning_popen() is None or not hasattr(os, "memfd_create"):
            return RecordTable, (self._folder, self._text, self._starts, self._lengths, self._labels, self._frames)
        labels = self._labels
        columns = [self._text, self._starts, self._lengths]
        columns += [labels] if isinstance(labels, np.ndarray) else []
        columns += [labels.classes, labels.ends] if isinstance(labels, SeveralLabels) else []
        columns += [] if self._frames is None else [self._frames]
        if self._shared is None:
            self._shared = _write_columns(columns)
        layout = [(column.dtype.str, len(column)) for column in columns]
        others = labels if isinstance(labels, list) else isinstance(labels, SeveralLabels)
        shared = reduction.DupFd(self._shared.fileno())
        return _map_table, (self._folder, shared, layout, others, self._frames is not None)


def _write_columns(columns: Sequence[np.ndarray]) -> BinaryIO:
    """Write arrays to an anonymous file in memory, each aligned."""
    file = os.fdopen(os.memfd_create("slowfast-index"), "w+b")
    for column in columns:
        file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
        file.write(np.ascontiguousarray(column).data.cast("B"))
    file.flush()
    return file


def _map_table(
    folder: str, shared: Any, layout: list[tuple[str, int]], others: bool | list[Any], has_frames: bool
) -> RecordTable:
    """Return the table of a shared file; see `RecordTable.__reduce__`."""
    with os.fdopen(shared.detach(), "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    columns, end = [], 0
    for kind, count in layout:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        columns.append(np.frombuffer(memory, kind, count, start) if count else np.empty(0, kind))
        end = start + columns[-1].nbytes
    frames = columns.pop() if has_frames else None
    text, starts, lengths, *rest = columns
    labels: Labels = others if isinstance(others, list) else SeveralLabels(*rest) if others else rest[0]
    return RecordTable(folder, text, starts, lengths, labels, frames)


class TableBuilder:
    """Builder of the table of samples whose names are Python text.

    Args:
        folder: Folder that the names are relative to.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = folder
        self._texts: list[bytes] = []
        self._lengths: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._frames: list[np.ndarray] = []

    def extend(self, names: Sequence[str], labels: int | Sequence[int], frames: Sequence[int] = ()) -> None:
        """Add samples.

        Args:
            names: Their names.
            labels: Their class indices, or one class index for all.
            frames: Numbers of images in their folders; empty if the samples are files.
        """
        encoded = [name.encode(*_ENCODING) for name in names]
        self._texts.append(b"".join(encoded))
        self._lengths.append(np.fromiter(map(len, encoded), np.uint32, len(encoded)))
        self._labels.append(np.full(len(encoded), labels, np.int64))
        if len(frames):
            self._frames.append(np.array(frames, np.int32))

    def build(self) -> RecordTable:
        """Return the table of all samples."""
        text = np.frombuffer(b"".join(self._texts), np.uint8)
        lengths = np.concatenate([np.zeros(0, np.uint32), *self._lengths])
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        labels = np.concatenate([np.zeros(0, np.int64), *self._labels])
        return RecordTable(
            self._folder, text, starts, lengths, labels, np.concatenate(self._frames) if self._frames else None
        )


def labels_of(records: Sequence[Record]) -> list[Any]:
    """Return the labels of records, without creating the records of a table."""
    return records.labels() if isinstance(records, RecordTable) else [record.label for record in records]
