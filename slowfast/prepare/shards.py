"""Writing of shards: the samples of index files packed into tar files, with index files of their members.

A sample is a file (a video, an image, a recording of events) or a folder of frames.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from tabulate import tabulate

from slowfast.datasets.decode.image import FIRST_NUMBER
from slowfast.datasets.decode.reader import DecodeError, check_file
from slowfast.datasets.index.labeled_paths import format_line
from slowfast.datasets.index.something import FORM, parse_frames_line
from slowfast.datasets.sample_files import (
    BLOCK,
    MAX_MEMBER_BYTES,
    SHARD_SUFFIX,
    ShardMember,
    folder_header,
    member_header,
    padding,
)
from slowfast.datasets.types import failure_reason
from slowfast.errors import DataError, IndexFileError, UserError
from slowfast.prepare.files import FAILED_FILE, check_source, write_failures
from slowfast.prepare.videos import IndexLines, copy_class_names, read_index
from slowfast.utils.files import MIB, atomic_path, atomic_write_text, make_output_folder, remove_leftovers
from slowfast.utils.screen import Progress
from slowfast.utils.text import plain, quoted

_END = bytes(2 * BLOCK)  # of a tar file
_LABELS = 10**9  # more classes than any list has


@dataclass
class ShardSummary:
    """Summary of a run."""

    shards: int = 0
    kept: int = 0  # shards of an earlier run
    samples: int = 0
    size: int = 0  # of all shards in bytes
    failed: dict[str, str] = field(default_factory=dict)  # reason by name

    def table(self) -> str:
        """Return the summary as a table."""
        rows = [
            ("shards", f"{self.shards} ({self.kept} from earlier runs)"),
            ("samples", self.samples),
            ("size", f"{self.size / 1e6:.1f} MB"),
            (f"failed, listed in {FAILED_FILE}", len(self.failed)),
        ]
        return tabulate(rows, tablefmt="simple", disable_numparse=True)


@dataclass(frozen=True)
class _File:
    """File to pack."""

    path: Path
    size: int  # in bytes
    header: bytes

    @property
    def length(self) -> int:
        """Bytes in the shard."""
        return len(self.header) + self.size + padding(self.size)


@dataclass(frozen=True)
class _Source:
    """Sample to pack: a file, or a folder with its header and the files in it."""

    name: str
    files: tuple[_File, ...]
    header: bytes = b""

    @property
    def length(self) -> int:
        """Bytes in the shard."""
        return len(self.header) + sum(file.length for file in self.files)

    def member(self, shard: str, at: int) -> ShardMember:
        """Return the member of a shard at a position."""
        if self.header:
            return ShardMember(shard, at + len(self.header), self.length - len(self.header), self.name)
        [file] = self.files
        return ShardMember(shard, at + len(file.header), file.size, self.name)


def write_shards(
    source: Path, target: Path, index_files: Sequence[Path], separator: str, shard_size: int, frames: str = ""
) -> ShardSummary:
    """Pack the samples of index files into shards, in their order; complete shards of an earlier run are kept.

    ``train.csv`` gives ``train-000000.tar``, ``train-000001.tar``, ... and a ``train.csv`` of their members. A sample
    in several indices is packed once. Samples that cannot be read are left out and listed in failed.csv.

    Args:
        source: Folder that the paths in the index files are relative to.
        target: Folder of the shards, outside of `source`.
        index_files: Kinetics index files, or with `frames` lists of lines ``folder frames label``.
        separator: Separator of path and label in Kinetics index files.
        shard_size: Size in bytes above which a shard gets no further sample.
        frames: Format string of the names of the frames in a folder, as in DATA.IMAGE_TEMPLATE; "" for files.

    Raises:
        UserError: If a folder or an index file is unsuitable or the shards cannot be written.
        DataError: If no file can be read.
    """
    check_source(source)
    make_output_folder(target, "--out")
    if target.resolve() == source.resolve():
        raise UserError(f"--out {plain(target)} is the SOURCE. Choose another folder")
    separator = " " if frames else separator
    indices = [
        _read_frame_lists(file, source, target) if frames else read_index(file, separator, source, target)
        for file in index_files
    ]
    remove_leftovers(target)
    total = len({name for index in indices for name, _ in index.lines})
    packer = _Packer(source, target, shard_size, frames, total)
    packed, failed = packer.packed, packer.summary.failed
    with closing(packer.progress):
        for index in indices:
            packer.pack(index)
            lines = [format_line(str(packed[name]), separator, label) for name, label in index.lines if name in packed]
            atomic_write_text(target / index.file.name, "".join(lines))
            copy_class_names(index, target)
    write_failures(target, failed)
    if not packed:
        name, reason = next(iter(failed.items()))
        raise DataError(f"none of {len(failed)} files could be read. First failure: {name}: {reason}")
    return packer.summary


def _read_frame_lists(file: Path, source: Path, target: Path) -> IndexLines:
    """Read a list of lines `folder frames label`; the text of a label is then `frames label`.

    Raises:
        IndexFileError: If the file is missing or invalid, or a path is outside of `source`.
        UserError: If the new list would overwrite the file.
    """
    index = read_index(file, " ", source, target)
    lines = []
    for name, label in index.lines:
        try:
            folder, count, _ = parse_frames_line(f"{name} {label}", _LABELS)
        except ValueError as error:
            raise IndexFileError(f"{plain(file)}: {quoted(f'{name} {label}')}: {error}. Expected {FORM}") from None
        lines.append((folder, f"{count} {label}"))
    return replace(index, lines=lines)


class _Packer:
    """Writer of the shards of several indices.

    Args:
        source: Folder that the paths in the indices are relative to.
        target: Folder of the shards.
        shard_size: Size in bytes above which a shard gets no further sample.
        frames: Format string of the names of the frames in a folder; "" for files.
        total: Number of samples, for the progress.

    Attributes:
        summary: Summary of what was packed.
        packed: Members by the names of the samples.
        progress: Progress display, which the caller closes.
    """

    def __init__(self, source: Path, target: Path, shard_size: int, frames: str, total: int) -> None:
        self._source, self._target, self._shard_size, self._frames = source, target, shard_size, frames
        self.summary, self.packed = ShardSummary(), dict[str, ShardMember]()
        self.progress = Progress("packed", total, "samples", True, max(total // 20, 1))

    def pack(self, index: IndexLines) -> None:
        """Write all shards of an index, and delete those of an earlier run that are left over."""
        waiting = self._sources(index)
        following = next(waiting, None)
        number = 0
        while following is not None:
            place = self._place(index, number)
            sources, following = self._take(following, waiting)
            members = self._members(place.name, sources)
            if self._is_complete(place, sources):
                self.summary.kept += 1
            else:
                members = self._write(place, sources)
            if not members:
                continue
            self.packed |= members
            self.summary.shards += 1
            self.summary.samples += len(members)
            self.summary.size += place.stat().st_size
            self.progress.advance(f"failed {len(self.summary.failed)}", len(sources))
            number += 1
        while (left := self._place(index, number)).exists():
            left.unlink()
            number += 1

    def _place(self, index: IndexLines, number: int) -> Path:
        return self._target / f"{index.file.stem}-{number:06d}{SHARD_SUFFIX}"

    def _sources(self, index: IndexLines) -> Iterator[_Source]:
        """Yield the samples of an index that exist and are not packed yet; those that do not exist are failures."""
        for name, label in {name: label for name, label in index.lines if name not in self.packed}.items():
            try:
                if self._frames:
                    source = self._folder(name, int(label.split()[0]))
                else:
                    source = _Source(name, (self._find(name),))
                if source.length > MAX_MEMBER_BYTES:
                    raise DecodeError(f"{source.length} bytes exceed the limit of {MAX_MEMBER_BYTES} for a sample")
            except Exception as error:
                self.summary.failed[name] = failure_reason(error)
                continue
            yield source

    def _folder(self, name: str, frames: int) -> _Source:
        """Return a folder of frames. Raises DecodeError if one is missing."""
        folder = self._source / name
        if not folder.is_dir():
            raise DecodeError("not a folder of frames" if folder.exists() else "no such file or directory")
        files = []
        for number in range(FIRST_NUMBER, FIRST_NUMBER + frames):
            frame = self._frames.format(number)
            try:
                files.append(self._find(f"{name}/{frame}"))
            except DecodeError as error:
                raise DecodeError(f"{frame}: {error}") from error
        return _Source(name, tuple(files), folder_header(name, int(folder.stat().st_mtime)))

    def _find(self, name: str) -> _File:
        path = self._source / name
        check_file(path)
        found = path.stat()
        return _File(path, found.st_size, member_header(name, found.st_size, int(found.st_mtime)))

    def _take(self, first: _Source, waiting: Iterator[_Source]) -> tuple[list[_Source], _Source | None]:
        """Return the samples of the next shard, and the first one after it."""
        sources, size = [first], first.length
        for following in waiting:
            if size + following.length > self._shard_size:
                return sources, following
            sources.append(following)
            size += following.length
        return sources, None

    def _members(self, shard: str, sources: Sequence[_Source]) -> dict[str, ShardMember]:
        """Return the members of a shard of these samples."""
        members, at = {}, 0
        for source in sources:
            members[source.name] = source.member(shard, at)
            at += source.length
        return members

    def _is_complete(self, place: Path, sources: Sequence[_Source]) -> bool:
        """Return whether a shard of an earlier run has exactly these samples, unchanged since."""
        length = sum(source.length for source in sources) + len(_END)
        if not place.is_file() or place.stat().st_size != length:
            return False
        with place.open("rb") as shard:
            for source in sources:
                if shard.read(len(source.header)) != source.header:
                    return False
                for file in source.files:
                    if shard.read(len(file.header)) != file.header:
                        return False
                    shard.seek(file.size + padding(file.size), 1)
        return True

    def _write(self, place: Path, sources: Sequence[_Source]) -> dict[str, ShardMember]:
        """Write a shard of those samples that can be read; return its members."""
        written: list[_Source] = []
        with atomic_path(place, setting="--out") as part, part.open("wb") as shard:
            for source in sources:
                start = shard.tell()
                try:
                    shard.write(source.header)
                    for file in source.files:
                        _append(shard, file)
                    written.append(source)
                except _SourceError as error:
                    shard.seek(start)
                    shard.truncate()
                    self.summary.failed[source.name] = str(error)
            shard.write(_END)
        if not written:
            place.unlink()
        return self._members(place.name, written)


class _SourceError(Exception):
    """File that cannot be read completely."""


def _append(shard: BinaryIO, source: _File) -> None:
    """Append a file to a shard. Raises _SourceError if it cannot be read as it was found."""
    shard.write(source.header)
    start = shard.tell()
    try:
        file = source.path.open("rb")
    except OSError as error:
        raise _SourceError(failure_reason(error)) from error
    with file:
        shutil.copyfileobj(_Reading(file), shard, MIB)
    if shard.tell() - start != source.size:
        raise _SourceError("its size changed while it was read")
    shard.write(bytes(padding(source.size)))


class _Reading:
    """File whose read errors are those of the source, not of the shard."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        try:
            return self._file.read(size)
        except OSError as error:
            raise _SourceError(failure_reason(error)) from error
