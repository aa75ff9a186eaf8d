"""Files of `torch.save`: tensors rebuilt on the CPU from checked storages, zip archives with verified entries."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slowfast.errors import CheckpointError, DamagedFileError
from slowfast.utils.checkpoint_files.inert import GlobalName, InertObject, MalformedPickle, RefusedPickle
from slowfast.utils.checkpoint_files.unpickler import Constructor, Unpickler, Vocabulary
from slowfast.utils.checkpoint_files.values import plain_vocabulary

MAX_ELEMENTS = 2**40  # limit per tensor; a view of a few bytes can claim any shape

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
ZIP_SIGNATURE = b"PK\x03\x04"
CHUNK = 2**22  # bytes read at a time
MAX_EXPANSION = 16  # limit of the uncompressed size, in file sizes; PyTorch does not compress its entries


@dataclass(frozen=True)
class Storage:
    """Typed view of `count` elements of a storage, starting at element `offset`."""

    data: torch.UntypedStorage
    dtype: torch.dtype
    count: int
    offset: int = 0


@dataclass(frozen=True)
class StorageKey:
    """Persistent ID of a storage in a pickle."""

    dtype: torch.dtype
    key: str
    count: int
    view: tuple[str, int, int] | None = None  # before PyTorch 0.4: key, offset and size of a view

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.count * self.dtype.itemsize


def storage_key(identity: Any) -> StorageKey:
    """Check and return a persistent ID ("storage", type, key, device, elements[, view]).

    Raises:
        RefusedPickle: If it is anything else.
    """
    if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] in ("storage", b"storage")):
        raise RefusedPickle("external data that is not a tensor storage")
    kind, key, _, count = identity[1:5]
    dtype = STORAGE_DTYPES.get(kind.name.rpartition(".")[2]) if isinstance(kind, GlobalName) else None
    if dtype is None or not isinstance(key, str) or type(count) is not int or not 0 <= count < MAX_ELEMENTS:
        raise RefusedPickle(f"a storage of type {kind!s:.60}")
    view = identity[5] if len(identity) == 6 else None
    if view is not None and not (
        isinstance(view, tuple)
        and len(view) == 3
        and isinstance(view[0], str)
        and all(type(number) is int for number in view[1:])
        and 0 <= view[1] <= view[1] + view[2] <= count
    ):
        raise MalformedPickle("invalid view of a storage")
    return StorageKey(dtype, key, count, view)


def torch_vocabulary() -> Vocabulary:
    """Return the vocabulary of plain values and tensors."""
    plain = plain_vocabulary()
    return Vocabulary(plain.constants | _constants(), plain.constructors | _CONSTRUCTORS, plain.set_state)


def _constants() -> dict[str, Any]:
    names = (name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))
    return {f"torch.{name}": getattr(torch, name) for name in names}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> torch.Tensor:
    """Build a strided tensor, ignoring the gradient flag and hooks."""
    if not isinstance(storage, Storage):
        raise MalformedPickle("a tensor has no storage")
    if any(isinstance(part, Mapping) and any(part.values()) for part in rest[2:]):
        raise RefusedPickle("a conjugate or negative view of a tensor")
    return _strided(storage, storage.dtype, offset, size, stride)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> torch.Tensor:
    """Build a tensor of a dtype that has no typed storage."""
    if not (isinstance(storage, Storage) and isinstance(dtype, torch.dtype)) or metadata:
        raise MalformedPickle("a tensor has no storage or dtype")
    return _strided(storage, dtype, offset, size, stride)


def _strided(storage: Storage, dtype: torch.dtype, offset: Any, size: Any, stride: Any) -> torch.Tensor:
    sizes = tuple(size) if isinstance(size, (tuple, list)) else None
    strides = tuple(stride) if isinstance(stride, (tuple, list)) else None
    if sizes is None or strides is None or len(sizes) != len(strides) or len(sizes) > 64:
        raise MalformedPickle("a tensor has no shape")
    if not all(type(n) is int and 0 <= n <= MAX_ELEMENTS for n in (*sizes, *strides, offset)):
        raise MalformedPickle("a tensor has an invalid shape")
    elements = math.prod(sizes)
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1 if elements else offset
    available = storage.count * storage.dtype.itemsize // dtype.itemsize
    if elements > MAX_ELEMENTS or last > available:
        raise MalformedPickle(f"a tensor of shape {sizes} is larger than its storage")
    return torch.empty(0, dtype=dtype).set_(storage.data, offset + storage.offset, sizes, strides)


def _parameter(data: Any, *rest: Any) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise MalformedPickle("a parameter is not a tensor")
    return data


def _typed_tensor(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """Build a tensor of a subclass, or one with attributes, as a plain tensor."""
    rebuild = _CONSTRUCTORS.get(str(function)) if isinstance(function, GlobalName) else None
    if rebuild is None or not str(function).startswith("torch._utils._rebuild") or not isinstance(args, tuple):
        raise RefusedPickle(f"{function!s:.100}")
    return rebuild(*args)


def _device_tensor(data: Any, dtype: Any, device: Any, requires_grad: Any) -> torch.Tensor:
    """Build a tensor of a device without storages (XLA) from its CPU copy."""
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data.copy())
    if not (isinstance(data, torch.Tensor) and isinstance(dtype, torch.dtype)):
        raise MalformedPickle("a tensor has no data")
    return data.to(dtype)


def _size(sizes: Any = ()) -> torch.Size:
    if not (isinstance(sizes, (tuple, list)) and all(type(n) is int and abs(n) < 2**63 for n in sizes)):
        raise MalformedPickle("a torch.Size contains values that are not integers")
    return torch.Size(sizes)


def _version(text: Any) -> str:
    if not isinstance(text, str):
        raise MalformedPickle("a version is not a string")
    return text


def _device(kind: Any, index: Any = None) -> torch.device:
    if not isinstance(kind, str) or not (index is None or type(index) is int):
        raise MalformedPickle("a torch.device has no name")
    return torch.device(kind) if index is None else torch.device(kind, index)


_CONSTRUCTORS: dict[str, Constructor] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _device_tensor,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
    "torch._tensor._rebuild_from_type_v2": _typed_tensor,
    "torch.serialization._get_layout": lambda name: InertObject("torch.layout", (name,)),
    "torch.torch_version.TorchVersion": _version,
    "torch.Size": _size,
    "torch.device": _device,
}


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
            self.verify_rest()  # raises if the name of data.pkl is damaged
            raise CheckpointError(f"{path} is a zip archive, but not one of torch.save: data.pkl is missing")
        if f"{self._prefix}constants.pkl" in self._entries:
            raise CheckpointError(
                f"{path} is a TorchScript program, not a checkpoint. Save the weights alone where the model is "
                'available: torch.save(model.state_dict(), "weights.pth")'
            )

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """Return the entries by name. Raises DamagedFileError if any are duplicate, overlapping or oversized."""
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
