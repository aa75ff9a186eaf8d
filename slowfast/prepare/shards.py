"""Writing of shards: the videos or images of index files packed into tar files, with index files of their members."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tabulate import tabulate

from slowfast.datasets.decode.reader import DecodeError, check_file
from slowfast.datasets.index.kinetics import format_line
from slowfast.datasets.shards import BLOCK, MAX_MEMBER_BYTES, SHARD_SUFFIX, ShardMember, member_header, padding
from slowfast.datasets.types import failure_reason
from slowfast.errors import DataError, UserError
from slowfast.prepare.files import FAILED_FILE, write_failures
from slowfast.prepare.videos import IndexLines, copy_class_names, read_index
from slowfast.utils.files import MIB, atomic_path, atomic_write_text, remove_leftovers
from slowfast.utils.paths import make_output_folder
from slowfast.utils.progress import Progress
from slowfast.utils.text import plain

_END = bytes(2 * BLOCK)  # of a tar file


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
class _Source:
    """File to pack."""

    name: str
    path: Path
    size: int  # in bytes
    header: bytes


def write_shards(
    source: Path, target: Path, index_files: Sequence[Path], separator: str, shard_size: int
) -> ShardSummary:
    """Pack the files of index files into shards, in their order; complete shards of an earlier run are kept.

    ``train.csv`` gives ``train-000000.tar``, ``train-000001.tar``, ... and a ``train.csv`` of their members. A file in
    several indices is packed once. Files that cannot be read are left out and listed in failed.csv.

    Args:
        source: Folder that the paths in the index files are relative to.
        target: Folder of the shards, outside of `source`.
        index_files: Kinetics index files.
        separator: Separator of path and label in them.
        shard_size: Size in bytes above which a shard gets no further sample.

    Raises:
        UserError: If a folder or an index file is unsuitable or the shards cannot be written.
        DataError: If no file can be read.
    """
    _check_folders(source, target)
    indices = [read_index(file, separator, source, target) for file in index_files]
    remove_leftovers(target)
    summary, packed = ShardSummary(), dict[str, ShardMember]()
    total = len({name for index in indices for name, _ in index.lines})
    progress = Progress("packed", total, "samples", True, max(total // 20, 1))
    try:
        for index in indices:
            _Packer(source, target, index, shard_size, summary, packed, progress).run()
            lines = [format_line(str(packed[name]), separator, label) for name, label in index.lines if name in packed]
            atomic_write_text(target / index.file.name, "".join(lines))
            copy_class_names(index, target)
    finally:
        progress.close()
    write_failures(target, summary.failed)
    if not packed:
        name, reason = next(iter(summary.failed.items()))
        raise DataError(f"none of {len(summary.failed)} files could be read. First failure: {name}: {reason}")
    return summary


def _check_folders(source: Path, target: Path) -> None:
    """Raise UserError unless `source` is a folder and `target` another one that can be written."""
    if not source.is_dir():
        wrong = "is not a directory" if source.exists() else "does not exist"
        raise UserError(f"SOURCE {plain(source)} {wrong}. Give the folder of the files to read")
    make_output_folder(target, "--out")
    if target.resolve() == source.resolve():
        raise UserError(f"--out {plain(target)} is the SOURCE. Choose another folder")


class _Packer:
    """Writer of the shards of one index."""

    def __init__(
        self,
        source: Path,
        target: Path,
        index: IndexLines,
        shard_size: int,
        summary: ShardSummary,
        packed: dict[str, ShardMember],
        progress: Progress,
    ) -> None:
        self._source, self._target, self._stem = source, target, index.file.stem
        self._names = list(dict.fromkeys(name for name, _ in index.lines if name not in packed))
        self._shard_size, self._summary, self._packed, self._progress = shard_size, summary, packed, progress

    def run(self) -> None:
        """Write all shards, and delete those of an earlier run that are left over."""
        waiting = self._sources()
        following = next(waiting, None)
        number = 0
        while following is not None:
            place = self._target / f"{self._stem}-{number:06d}{SHARD_SUFFIX}"
            sources, following = self._take(following, waiting)
            members = self._members(place.name, sources)
            if self._is_complete(place, sources):
                self._summary.kept += 1
            else:
                members = self._write(place, sources)
            if not members:
                continue
            self._packed |= members
            self._summary.shards += 1
            self._summary.samples += len(members)
            self._summary.size += place.stat().st_size
            self._progress.advance(f"failed {len(self._summary.failed)}", len(sources))
            number += 1
        self._delete_from(number)

    def _sources(self) -> Iterator[_Source]:
        """Yield the files that exist; the others are failures."""
        for name in self._names:
            path = self._source / name
            try:
                check_file(path)
                found = path.stat()
                if found.st_size > MAX_MEMBER_BYTES:
                    raise DecodeError(f"{found.st_size} bytes exceed the limit of {MAX_MEMBER_BYTES} for a sample")
                header = member_header(name, found.st_size, int(found.st_mtime))
            except Exception as error:
                self._fail(name, error)
                continue
            yield _Source(name, path, found.st_size, header)

    def _fail(self, name: str, error: Exception) -> None:
        self._summary.failed[name] = failure_reason(error)

    def _take(self, first: _Source, waiting: Iterator[_Source]) -> tuple[list[_Source], _Source | None]:
        """Return the files of the next shard, and the first one after it."""
        sources, size = [first], first.size
        for following in waiting:
            if size + following.size > self._shard_size:
                return sources, following
            sources.append(following)
            size += following.size
        return sources, None

    def _members(self, shard: str, sources: Sequence[_Source]) -> dict[str, ShardMember]:
        """Return the members of a shard of these files."""
        members, at = {}, 0
        for source in sources:
            at += len(source.header)
            members[source.name] = ShardMember(shard, at, source.size, source.name)
            at += source.size + padding(source.size)
        return members

    def _is_complete(self, place: Path, sources: Sequence[_Source]) -> bool:
        """Return whether a shard of an earlier run has exactly these files, unchanged since."""
        length = sum(len(source.header) + source.size + padding(source.size) for source in sources) + len(_END)
        if not place.is_file() or place.stat().st_size != length:
            return False
        with place.open("rb") as shard:
            for source in sources:
                if shard.read(len(source.header)) != source.header:
                    return False
                shard.seek(source.size + padding(source.size), 1)
        return True

    def _write(self, place: Path, sources: Sequence[_Source]) -> dict[str, ShardMember]:
        """Write a shard of those files that can be read; return its members."""
        written: list[_Source] = []
        with atomic_path(place, setting="--out") as part, part.open("wb") as shard:
            for source in sources:
                start = shard.tell()
                try:
                    _append(shard, source)
                    written.append(source)
                except _SourceError as error:
                    shard.seek(start)
                    shard.truncate()
                    self._summary.failed[source.name] = str(error)
            shard.write(_END)
        if not written:
            place.unlink()
        return self._members(place.name, written)

    def _delete_from(self, number: int) -> None:
        """Delete shards of an earlier run with more of them."""
        while (place := self._target / f"{self._stem}-{number:06d}{SHARD_SUFFIX}").exists():
            place.unlink()
            number += 1


class _SourceError(Exception):
    """File that cannot be read completely."""


def _append(shard: BinaryIO, source: _Source) -> None:
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
