"""Safetensors files: plain tensors and text, read and written by the safetensors library (an optional extra)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from slowfast.errors import CheckpointError, DamagedFileError
from slowfast.utils.imports import import_extra

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
