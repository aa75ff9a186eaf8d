"""Samples in shards: members of tar files, named in an index by shard, position and name.

The name `train-000000.tar@1536+204800/abseiling/a.mp4` stands for the 204800 bytes from byte 1536 of train-000000.tar
on, its member abseiling/a.mp4. With the position in the index, any sample is a single read, from a disk or an object
store, so samples in shards are read in the same order as single files.

A folder of frames is a member, too: its contents are the members of its frames, which follow its own header.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from typing import BinaryIO

from slowfast.datasets.decode.reader import DecodeError

SHARD_SUFFIX = ".tar"
BLOCK = tarfile.BLOCKSIZE  # bytes; headers and padded contents are multiples of it
MAX_MEMBER_BYTES = 2**31  # limit of a member, which is held in memory while it is read
_MEMBER = re.compile(r"(?P<shard>.+\.tar)@(?P<start>\d{1,15})\+(?P<size>\d{1,15})/(?P<name>.+)", re.DOTALL)


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
        # A name longer than its field is stored in full in a block before this one.
        name = self.name.encode("utf-8", "surrogateescape")[: tarfile.LENGTH_NAME]
        same_size = found is not None and (found.isdir() or found.size == self.size)
        if found is None or not same_size or found.name.encode("utf-8", "surrogateescape") != name.rstrip(b"/"):
            raise DecodeError(
                "its shard has another member at this position: shard and index do not belong together. Write them "
                "again with slowfast shards"
            )
        return memoryview(data)[BLOCK : BLOCK + self.size]


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
