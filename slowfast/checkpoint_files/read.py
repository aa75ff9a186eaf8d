"""Read a file of weights as plain data: errors say what is wrong with the file, nothing in it is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slowfast.checkpoint_files.archive import ZIP_SIGNATURE, read_archive
from slowfast.checkpoint_files.inert import RefusedPickle
from slowfast.checkpoint_files.stream import read_legacy, read_pickle
from slowfast.errors import CheckpointError, DamagedFileError, system_reason
from slowfast.utils.regular_file import why_not_regular

HOW_TO_CONVERT = 'Save the weights alone where the file was made: torch.save(model.state_dict(), "weights.pth")'


def read_torch_file(path: Path) -> Any:
    """Return the content of a file of `torch.save`, tensors on the CPU.

    Raises:
        DamagedFileError: If the file is truncated or a checksum is wrong.
        CheckpointError: If it is missing, or holds anything but tensors and plain values.
    """
    signature = _first_bytes(path)
    if signature == ZIP_SIGNATURE:
        return _explained(read_archive, path, "PyTorch weights")
    return _explained(
        read_legacy, path, "PyTorch weights", " (a .pdparams file of Paddle needs CHECKPOINT_TYPE paddle)"
    )


def read_paddle_file(path: Path) -> Any:
    """Return the content of a file of `paddle.save`, tensors as NumPy arrays.

    Raises:
        DamagedFileError: If the file is truncated.
        CheckpointError: If it is missing, or holds anything but arrays and plain values.
    """
    if _first_bytes(path) == ZIP_SIGNATURE:
        raise CheckpointError(
            f"{path} cannot be read as Paddle weights: it is a PyTorch file (CHECKPOINT_TYPE pytorch)"
        )
    return _explained(read_pickle, path, "Paddle weights")


def _first_bytes(path: Path) -> bytes:
    if wrong := why_not_regular(path):
        raise CheckpointError(f"{path} {wrong}; it should hold weights")
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP_SIGNATURE))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {system_reason(error)}") from error


def _explained(read: Callable[[Path], Any], path: Path, kind: str, hint: str = "") -> Any:
    """Call a reader and turn whatever a damaged or hostile file raises into one line."""
    try:
        return read(path)
    except CheckpointError:
        raise
    except RefusedPickle as refused:
        raise CheckpointError(
            f"{path} cannot be read as {kind}: it asks for {_short(refused)}, but only tensors and plain values are "
            f"read and nothing in a file is run. {HOW_TO_CONVERT}"
        ) from refused
    except MemoryError as error:
        raise CheckpointError(f"{path} cannot be read as {kind}: it does not fit into memory") from error
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {system_reason(error)}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = _short(error) or type(error).__name__
        raise DamagedFileError(
            f"{path} cannot be read as {kind}: it is damaged or of another kind{hint}: {reason}"
        ) from error


def _short(error: Exception) -> str:
    """Return an exception's text as one printable line."""
    text = " ".join(str(error).split())[:160]
    return "".join(char if char.isprintable() else "?" for char in text)
