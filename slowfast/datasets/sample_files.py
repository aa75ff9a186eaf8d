"""Files of samples, opened by local paths: single files, members of shards, and objects at s3:// addresses.

A shard is a tar file, whose members are named in an index by shard, position and name. For example,
`train-000000.tar@1536+204800/abseiling/a.mp4` stands for the 204800 bytes from byte 1536 of train-000000.tar on, its
member abseiling/a.mp4. With the position in the index, any sample is a single read, from a disk or an object store, so
samples in shards are read in the same order as single files.

A folder of frames is a member, too: its contents are the members of its frames, which follow its own header.
"""

from __future__ import annotations

import functools
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from slowfast.config.node import ConfigNode
from slowfast.datasets.decode.reader import DecodeError, VideoReader
from slowfast.datasets.types import Record
from slowfast.errors import system_reason
from slowfast.utils.remote.address import FetchError, as_address
from slowfast.utils.remote.s3 import SampleCache

if TYPE_CHECKING:
    from slowfast.datasets.clip_dataset import OpenSample

SCHEME = "s3://"
_GIB = 2**30
SHARD_SUFFIX = ".tar"
BLOCK = tarfile.BLOCKSIZE  # bytes; headers and padded contents are multiples of it
MAX_MEMBER_BYTES = 2**31  # limit of a member, which is held in memory while it is read
_MEMBER = re.compile(r"(?P<shard>.+\.tar)@(?P<start>\d{1,15})\+(?P<size>\d{1,15})/(?P<name>.+)", re.DOTALL)


# ------------------------------------------------------------------ shards
@dataclass(frozen=True)
class ShardMember:
    """Member of a shard.

    Attributes:
        shard: Path or address of the tar file.
        start: Position of its contents in the shard in bytes.
        size: Size of its contents in bytes.
        name: Its name in the shard.
    """

    shard: str
    start: int
    size: int
    name: str

    def __str__(self) -> str:
        """Return the name in an index."""
        return f"{self.shard}@{self.start}+{self.size}/{self.name}"

    @property
    def first(self) -> int:
        """Position in bytes where reading starts: its last header block."""
        return self.start - BLOCK

    def contents(self, data: bytes) -> memoryview:
        """Check the header block of the member and return its contents.

        Args:
            data: Bytes of the shard from `first` on.

        Raises:
            DecodeError: If the shard ends early or has another member at this position.
        """
        if len(data) < BLOCK + self.size:
            end = self.first + len(data)
            raise DecodeError(f"its shard ends early: at byte {end}, the sample at byte {self.start + self.size}")
        try:
            found = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            found = None
        same_size = found is not None and (found.isdir() or found.size == self.size)
        if found is None or not same_size or _stored_name(found.name) != _stored_name(self.name):
            raise DecodeError(
                "its shard has another member at this position: shard and index do not belong together. Write them "
                "again with slowfast shards"
            )
        return memoryview(data)[BLOCK : BLOCK + self.size]


def _stored_name(name: str) -> bytes:
    """Return the name as in the header block of a member; a longer one is stored in full in a block before it.

    Without a slash at the end, where a long name may be cut, and which tarfile removes for folders.
    """
    return name.encode("utf-8", "surrogateescape")[: tarfile.LENGTH_NAME].rstrip(b"/")


def find_member(path: str) -> ShardMember | None:
    """Return the member of a shard named by a path; None for any other path.

    Raises:
        DecodeError: If its position is invalid.
    """
    # Most paths are plain files; this check is faster than the pattern.
    if f"{SHARD_SUFFIX}@" not in path:
        return None
    found = _MEMBER.fullmatch(path)
    if found is None:
        return None
    member = ShardMember(found["shard"], int(found["start"]), int(found["size"]), found["name"])
    if member.start < BLOCK or member.start % BLOCK:
        raise DecodeError(f"byte {member.start} is not a valid position of a member of a shard")
    if member.size > MAX_MEMBER_BYTES:
        raise DecodeError(f"{member.size} bytes exceed the limit of {MAX_MEMBER_BYTES} for a member of a shard")
    return member


def member_header(name: str, size: int, modified: int) -> bytes:
    """Return the header blocks of a file; its contents follow them."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, modified, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def folder_header(name: str, modified: int) -> bytes:
    """Return the header blocks of a folder; the members of its files follow them."""
    info = tarfile.TarInfo(name)
    info.type, info.mtime, info.mode = tarfile.DIRTYPE, modified, 0o755
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> int:
    """Return the number of zero bytes after contents of `size` bytes."""
    return -size % BLOCK


def read_member(file: BinaryIO, member: ShardMember) -> bytes:
    """Return the header block and the contents of a member; fewer bytes if the file ends early."""
    file.seek(member.first)
    return file.read(BLOCK + member.size)


# ------------------------------------------------------------------ local paths
class SampleFiles:
    """Access to samples by local paths, whether they are local or remote.

    Args:
        cache_size: Size of the cache of remote files in bytes.
    """

    def __init__(self, cache_size: int) -> None:
        self._cache = SampleCache(cache_size)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Self:
        """Build for the size of the cache in DATA.CACHE_GIB."""
        return cls(int(cfg.DATA.CACHE_GIB * _GIB))

    @contextmanager
    def local(self, path: Path, suffix: bool = False) -> Iterator[Path]:
        """Yield a local path with the contents of a sample, valid within the context.

        A folder in a shard becomes a tar file of its members.

        Args:
            path: File or folder, member of a shard or address, see :class:`~slowfast.datasets.types.Record`.
            suffix: Whether the local path must have the suffix of the sample, which tells formats apart.

        Raises:
            DecodeError: If a shard or a remote file cannot be read.
        """
        text = os.fspath(path)
        member, address = find_member(text), as_address(path)
        if address:
            yield self._fetch(address, member and replace(member, shard=as_address(member.shard)))
        elif member is not None:
            with _in_memory(member) as copy, _named(copy, path.suffix if suffix else "") as named:
                yield named
        else:
            yield path

    def _fetch(self, address: str, member: ShardMember | None) -> Path:
        """Return the cached copy of an object or of a member of a shard."""
        try:
            return self._cache.get(address, functools.partial(_download, address, member))
        except FetchError as error:
            raise DecodeError(str(error)) from error


def _download(address: str, member: ShardMember | None, place: Path) -> None:
    """Download a remote object, or a member of a remote shard, to a file."""
    # Imported late, because most runs only read local files.
    from slowfast.utils.remote.s3 import open_s3, read_s3

    if member is not None:
        place.write_bytes(member.contents(read_s3(member.shard, member.first, BLOCK + member.size)))
        return
    download = open_s3(address, None)
    assert download is not None
    download.save(place, lambda done: None)
    if (size := place.stat().st_size) != download.version.size:
        raise FetchError(f"cannot be fetched: the server announced {download.version.size} bytes and sent {size}")


@contextmanager
def _in_memory(member: ShardMember) -> Iterator[Path]:
    """Yield the path of an anonymous in-memory file with the contents of a member; it vanishes afterwards."""
    try:
        with open(member.shard, "rb") as shard:
            contents = member.contents(read_member(shard, member))
    except OSError as error:
        raise DecodeError(f"its shard cannot be read: {system_reason(error)}") from error
    with os.fdopen(os.memfd_create("slowfast-sample"), "wb") as copy:
        copy.write(contents)
        copy.flush()
        yield Path(f"/proc/self/fd/{copy.fileno()}")


@contextmanager
def _named(file: Path, suffix: str) -> Iterator[Path]:
    """Yield a link with a suffix to a file; the file itself for no suffix."""
    if not suffix:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="slowfast-") as folder:
        link = Path(folder, f"sample{suffix}")
        link.symlink_to(file)
        yield link


class LocalSamples:
    """Opener of samples by local paths.

    Args:
        open_sample: Opens a sample whose path is local.
        files: Access to other samples.
        suffix: Whether opening a sample needs its suffix.
    """

    def __init__(self, open_sample: OpenSample, files: SampleFiles, suffix: bool = False) -> None:
        self._open_sample, self._files, self._suffix = open_sample, files, suffix

    @contextmanager
    def __call__(self, record: Record) -> Iterator[VideoReader]:
        """Open a sample. Raises DecodeError if it cannot be read."""
        path = record.path
        if record.frames is not None and as_address(path) and find_member(os.fspath(path)) is None:
            raise DecodeError("remote folders of frames cannot be read. Pack them with slowfast shards --frames")
        with self._files.local(path, self._suffix) as path:
            opened = self._open_sample(record if path is record.path else replace(record, path=path))
            with opened as reader:
                yield reader


def sample_exists(path: Path) -> bool:
    """Return whether a local sample, the shard of a sample or a remote object exists.

    Raises:
        FetchError: If the server cannot be asked.
    """
    member = find_member(os.fspath(path))
    place = path if member is None else Path(member.shard)
    if address := as_address(place):
        from slowfast.utils.remote.s3 import exists_s3

        return exists_s3(address)
    return os.path.exists(place)  # also False for invalid names
