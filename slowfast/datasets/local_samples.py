"""Local copies of samples that are members of shards or objects at s3:// addresses."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from slowfast.config.node import ConfigNode
from slowfast.datasets.decode.reader import DecodeError, VideoReader
from slowfast.datasets.shards import BLOCK, ShardMember, find_member, read_member
from slowfast.datasets.types import Record
from slowfast.errors import system_reason
from slowfast.utils.remote.address import FetchError, as_address
from slowfast.utils.remote.s3 import SampleCache

if TYPE_CHECKING:
    from slowfast.datasets.clip_dataset import OpenSample

SCHEME = "s3://"
_GIB = 2**30


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
