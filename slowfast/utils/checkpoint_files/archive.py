"""Zip archives of `torch.save`: the CRC-32 of every entry is verified before its bytes are used."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from slowfast.errors import CheckpointError, DamagedFileError
from slowfast.utils.checkpoint_files.inert import MalformedPickle
from slowfast.utils.checkpoint_files.tensors import Storage, StorageKey, storage_key, torch_vocabulary
from slowfast.utils.checkpoint_files.unpickler import Unpickler

ZIP_SIGNATURE = b"PK\x03\x04"
CHUNK = 2**22  # bytes read at a time
MAX_EXPANSION = 16  # limit of the uncompressed size, in file sizes; PyTorch does not compress its entries


class Archive:
    """Zip archive written by `torch.save`.

    Args:
        path: Path of the archive.
        opened: The opened archive.

    Raises:
        DamagedFileError: If the entries are inconsistent.
        CheckpointError: If it was not written by `torch.save`.
    """

    def __init__(self, path: Path, opened: zipfile.ZipFile) -> None:
        self.path, self._zip = path, opened
        self._entries = self._checked_entries()
        self._unread = dict(self._entries)
        prefix, _, rest = next(iter(self._entries), "").partition("/")
        self._prefix = f"{prefix}/" if rest else ""
        if f"{self._prefix}data.pkl" not in self._entries:
            self.verify_rest()  # or the name of data.pkl is damaged
            raise CheckpointError(f"{path} is a zip archive, but not one of torch.save: data.pkl is missing")
        if f"{self._prefix}constants.pkl" in self._entries:
            raise CheckpointError(
                f"{path} is a TorchScript program, not a checkpoint. Save the weights alone where the model is "
                'available: torch.save(model.state_dict(), "weights.pth")'
            )

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """Return the entries by name. Raises DamagedFileError for duplicate, overlapping and oversized entries."""
        infos = self._zip.infolist()
        entries = {info.filename: info for info in infos}
        if len(entries) != len(infos):
            raise DamagedFileError(f"{self.path} is damaged: duplicate archive entries")
        size, end = self.path.stat().st_size, 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise DamagedFileError(f"{self.path} is damaged: archive entries overlap")
            end = info.header_offset + 30 + info.compress_size
        if end > size or sum(info.file_size for info in infos) > MAX_EXPANSION * size:
            raise DamagedFileError(f"{self.path} is damaged: archive entries are larger than the file")
        return entries

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an entry. Raises DamagedFileError, at the latest at its end, if the checksum is wrong."""
        info = self._entries.get(name)
        if info is None:
            raise DamagedFileError(f"{self.path} is damaged: the archive has no {name}")
        self._unread.pop(name, None)
        try:
            with self._zip.open(info) as entry:  # verifies the local header and, at the end, the CRC-32
                left = info.file_size
                while left:
                    chunk = entry.read(min(CHUNK, left))
                    if not chunk:
                        raise EOFError
                    left -= len(chunk)
                    yield chunk
                entry.read(1)
        except OSError:
            raise
        except Exception as error:
            raise DamagedFileError(f"{self.path} is damaged: the checksum of {name} is wrong") from error

    def read(self, name: str) -> bytes:
        """Return the verified content of an entry."""
        return b"".join(self.chunks(self._prefix + name))

    def has(self, name: str) -> bool:
        """Return whether an entry exists."""
        return self._prefix + name in self._entries

    def storage(self, key: StorageKey) -> torch.UntypedStorage:
        """Return a storage with the verified bytes of an entry."""
        name = f"{self._prefix}data/{key.key}"
        info = self._entries.get(name)
        if info is not None and info.file_size != key.size:
            raise MalformedPickle(f"storage {key.key} has {info.file_size} instead of {key.size} bytes")
        data = torch.empty(key.size, dtype=torch.uint8)
        target, start = data.numpy().data, 0
        for chunk in self.chunks(name):
            target[start : start + len(chunk)] = chunk
            start += len(chunk)
        return data.untyped_storage()

    def verify_rest(self) -> None:
        """Verify the entries that have not been read."""
        for name in list(self._unread):
            for _ in self.chunks(name):
                pass


def read_archive(path: Path) -> Any:
    """Load a zip archive of `torch.save` with tensors on the CPU.

    Raises:
        DamagedFileError: If a checksum is wrong or the archive is truncated.
        RefusedPickle: If it contains anything but plain data.
    """
    with _open_zip(path) as opened:
        archive = Archive(path, opened)
        pickled = archive.read("data.pkl")
        order = archive.read("byteorder").decode() if archive.has("byteorder") else "little"
        if order != sys.byteorder:
            raise CheckpointError(
                f"{path} was written on a {order}-endian machine. Save it again on a machine of this byte order"
            )
        storages: dict[str, torch.UntypedStorage] = {}

        def load_storage(identity: Any) -> Storage:
            key = storage_key(identity)
            if key.key not in storages:
                storages[key.key] = archive.storage(key)
            if storages[key.key].nbytes() != key.size:
                raise MalformedPickle(f"storage {key.key} is used with two sizes")
            return Storage(storages[key.key], key.dtype, key.count)

        content = Unpickler(io.BytesIO(pickled), torch_vocabulary(), len(pickled), load_storage).load()
        archive.verify_rest()
    return content


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:
        raise DamagedFileError(f"{path} is damaged: it is not a complete zip archive") from error
