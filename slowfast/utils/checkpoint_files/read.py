"""Safe loading of PyTorch, Paddle and safetensors files, and writing of safetensors files (an optional extra)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from slowfast.errors import CheckpointError, DamagedFileError, system_reason
from slowfast.utils.checkpoint_files.inert import MalformedPickle, RefusedPickle
from slowfast.utils.checkpoint_files.pytorch import ZIP_SIGNATURE, Storage, read_archive, storage_key, torch_vocabulary
from slowfast.utils.checkpoint_files.unpickler import Unpickler, Vocabulary
from slowfast.utils.checkpoint_files.values import plain_vocabulary
from slowfast.utils.imports import import_extra
from slowfast.utils.paths import local_path, why_not_regular
from slowfast.utils.text import redact

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # first pickle of a file of torch.save
PROTOCOL_VERSION = 1001


class BoundedReader(io.BufferedReader):
    """Binary file that never allocates more than its size, regardless of the requested length."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most the rest of the file."""
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(self.size - self.tell(), 0))
        return super().read(size)


def read_pickle(path: Path) -> Any:
    """Load a file that consists of one pickle.

    Raises:
        RefusedPickle: If it contains anything but plain data.
        Exception: Of nearly any type if the file is damaged.
    """
    with BoundedReader(path) as file:
        return Unpickler(file, plain_vocabulary(), file.size).load()


def read_legacy(path: Path) -> Any:
    """Load a file of `torch.save` before PyTorch 1.6 with tensors on the CPU.

    Layout: pickles of a magic number, the format version, machine properties, the content and the storage keys; then
    for each key the number of elements as int64 and the elements.

    Raises:
        RefusedPickle: If it contains anything but plain data.
        Exception: Of nearly any type if the file is damaged.
    """
    words = torch_vocabulary()
    with BoundedReader(path) as file:
        try:
            known = [_next(file, words), _next(file, words)] == [MAGIC_NUMBER, PROTOCOL_VERSION]
        except RefusedPickle:
            known = False
        if not known:
            raise MalformedPickle("not a file of torch.save")
        machine = _next(file, words)
        if not isinstance(machine, dict) or machine.get("little_endian") is not (sys.byteorder == "little"):
            raise MalformedPickle("written on a machine of another byte order")
        storages: dict[str, Storage] = {}
        left = file.size

        def load_storage(identity: Any) -> Storage:
            nonlocal left
            key = storage_key(identity)
            if key.key not in storages:
                left -= key.size
                if left < 0:
                    raise MalformedPickle("storages are larger than the file")
                storages[key.key] = Storage(torch.UntypedStorage(key.size), key.dtype, key.count)
            whole = storages[key.key]
            if (whole.dtype, whole.count) != (key.dtype, key.count):
                raise MalformedPickle(f"storage {key.key} is used with two types or sizes")
            return whole if key.view is None else Storage(whole.data, whole.dtype, key.view[2], key.view[1])

        content = Unpickler(file, words, file.size, load_storage).load()
        keys = _next(file, words)
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
            raise MalformedPickle("the storage keys do not match the tensors")
        for key in keys:
            _fill(storages[key], file)
    return content


def _next(file: BoundedReader, words: Vocabulary) -> Any:
    return Unpickler(file, words, file.size).load()


def _fill(storage: Storage, file: BoundedReader) -> None:
    """Read the elements of a storage in place."""
    count = int.from_bytes(file.read(8), sys.byteorder, signed=True)
    if count != storage.count:
        raise MalformedPickle("the size of a storage does not match its tensors")
    if not storage.count:
        return
    target = torch.empty(0, dtype=torch.uint8).set_(storage.data).numpy().data
    if file.readinto(target) != len(target):
        raise EOFError


SUFFIX = ".safetensors"
START = 9  # bytes that identify a file: the length of the header and its first character
_MAX_HEADER = 100_000_000  # bytes, the limit of the format


def is_safetensors(start: bytes) -> bool:
    """Return whether a file with these first bytes is a safetensors file: a header length, then JSON."""
    return len(start) >= START and start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _MAX_HEADER


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Load all tensors of a file on the CPU.

    The format has no checksums: the library verifies that the header is valid and that the tensors fill the file
    exactly; corrupted values are not detected.

    Raises:
        DamagedFileError: If the file is truncated or its header is invalid.
        CheckpointError: If the safetensors package is missing.
    """
    library = import_safetensors(str(path))
    try:
        with library.safe_open(str(path), framework="pt") as file:
            # Copies: the library maps the file into memory, where a later change of the file would change the weights.
            return {name: file.get_tensor(name).clone() for name in file.keys()}
    except library.SafetensorError as error:
        reason = " ".join(str(error).split())[:160]
        raise DamagedFileError(f"{path} cannot be read as safetensors weights: it is damaged: {reason}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file, such as the config digest; empty if it has none."""
    with import_safetensors(str(path)).safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def write_safetensors(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata; tensors that share memory are written separately."""
    import_safetensors(str(path))
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    path.write_bytes(import_module("safetensors.torch").save(tensors, metadata=dict(metadata)))


def import_safetensors(where: str) -> Any:
    """Import the library. Raises CheckpointError, which names the extra.

    Args:
        where: File or option that needs it, for the message.
    """
    return import_extra("safetensors", "safetensors", f"{where}: {SUFFIX}", error_type=CheckpointError)


HOW_TO_CONVERT = 'Save only the weights where the file was created: torch.save(model.state_dict(), "weights.pth")'


def read_torch_file(path: str | Path) -> Any:
    """Load a file of `torch.save`, or a safetensors file, with tensors on the CPU.

    Args:
        path: A local path or an address.

    Raises:
        DamagedFileError: If the file is truncated or a checksum is wrong.
        CheckpointError: If it is missing or contains anything but tensors and plain values.
    """
    start = _first_bytes(path)
    if start.startswith(ZIP_SIGNATURE):
        return _explained(read_archive, path, "PyTorch weights")
    if is_safetensors(start):
        return _explained(read_safetensors, path, "safetensors weights")
    return _explained(
        read_legacy, path, "PyTorch weights", " (a .pdparams file of Paddle needs CHECKPOINT_TYPE paddle)"
    )


def read_paddle_file(path: str | Path) -> Any:
    """Load a file of `paddle.save` with tensors as NumPy arrays.

    Raises:
        DamagedFileError: If the file is truncated.
        CheckpointError: If it is missing or contains anything but arrays and plain values.
    """
    start = _first_bytes(path)
    if start.startswith(ZIP_SIGNATURE) or is_safetensors(start):
        kind = "PyTorch" if start.startswith(ZIP_SIGNATURE) else "safetensors"
        raise CheckpointError(
            f"{redact(str(path))} cannot be read as Paddle weights: it is a {kind} file (CHECKPOINT_TYPE pytorch)"
        )
    return _explained(read_pickle, path, "Paddle weights")


def _first_bytes(path: str | Path) -> bytes:
    if wrong := why_not_regular(path):
        raise CheckpointError(f"{redact(str(path))} {wrong}. It must be a file of weights")
    try:
        with local_path(path).open("rb") as file:
            return file.read(START)
    except OSError as error:
        raise CheckpointError(f"{redact(str(path))} cannot be read: {system_reason(error)}") from error


def _explained(read: Callable[[Path], Any], path: str | Path, kind: str, hint: str = "") -> Any:
    """Call a reader and convert errors of damaged or malicious files into one-line messages."""
    shown = redact(str(path))
    try:
        return read(local_path(path))
    except CheckpointError:
        raise
    except RefusedPickle as refused:
        raise CheckpointError(
            f"{shown} cannot be read as {kind}: it refers to {_short(refused)}, but only tensors and plain values "
            f"are loaded and no code is executed. {HOW_TO_CONVERT}"
        ) from refused
    except MemoryError as error:
        raise CheckpointError(f"{shown} cannot be read as {kind}: it does not fit into memory") from error
    except OSError as error:
        raise DamagedFileError(f"{shown} cannot be read: {system_reason(error)}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = _short(error) or type(error).__name__
        raise DamagedFileError(
            f"{shown} cannot be read as {kind}: it is damaged or in another format{hint}: {reason}"
        ) from error


def _short(error: Exception) -> str:
    """Return the text of an exception as one printable line."""
    text = " ".join(str(error).split())[:160]
    return "".join(char if char.isprintable() else "?" for char in text)
