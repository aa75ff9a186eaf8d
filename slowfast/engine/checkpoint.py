"""Training checkpoints: written whole or not at all, found again, read without running anything in them.

A file holds `model_state`, `optimizer_state`, `scaler_state`, `ema_state` (with MODEL.EMA), `epoch` (finished ones),
`step` (steps done of the next epoch), the best validation so far, and the config as text.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from slowfast.errors import CheckpointError
from slowfast.runtime.logging import get_logger

State = dict[str, Any]

BEST = "checkpoint_best.pyth"
_NAME = re.compile(r"checkpoint_epoch_(\d{5,})(?:_step_(\d{8,}))?\.pyth")


def checkpoint_folder(output_dir: Path) -> Path:
    """Where a run's checkpoints lie."""
    return output_dir / "checkpoints"


def checkpoint_name(epoch: int, step: int) -> str:
    """File name for `epoch` finished epochs and `step` steps of the next."""
    return f"checkpoint_epoch_{epoch:05d}.pyth" if step == 0 else f"checkpoint_epoch_{epoch:05d}_step_{step:08d}.pyth"


def save_checkpoint(path: Path, state: State) -> None:
    """Write the state so that the file is there whole or not at all, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name must survive a power cut, too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> State:
    """Read a training checkpoint; tensors and plain values only, nothing in the file is run.

    Raises CheckpointError when the file cannot be read or is no training checkpoint.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(state, dict) or not {"model_state", "optimizer_state", "epoch", "step"} <= state.keys():
        raise CheckpointError(
            f"{path} is no training checkpoint; use it as TRAIN.CHECKPOINT_FILE_PATH to start from it"
        )
    return state


def find_checkpoints(output_dir: Path) -> list[Path]:
    """The run's whole checkpoints, the furthest first; a damaged file is named in a warning and left out."""
    folder = checkpoint_folder(output_dir)
    found: list[tuple[int, int, Path]] = []
    for path in folder.glob("checkpoint_epoch_*.pyth") if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        if not zipfile.is_zipfile(path):
            get_logger().warning(f"{path} is damaged (not a whole checkpoint) and left out")
            continue
        found.append((int(match[1]), int(match[2] or 0), path))
    return [path for _, _, path in sorted(found, reverse=True)]


def find_last(output_dir: str | Path) -> Path | None:
    """The run's furthest whole checkpoint; None before the first."""
    found = find_checkpoints(Path(output_dir))
    return found[0] if found else None


def tidy(output_dir: Path, keep: int) -> None:
    """Remove half-written files, mid-epoch checkpoints that a newer one replaces, epochs beyond `keep` (0: none)."""
    for path in checkpoint_folder(output_dir).glob(".*.tmp"):
        path.unlink(missing_ok=True)
    found = find_checkpoints(output_dir)
    whole_epochs = [path for path in found if "_step_" not in path.name]
    stale = [path for path in found[1:] if "_step_" in path.name]
    if keep:
        stale += [path for path in whole_epochs[keep:] if path != found[0]]
    for path in stale:
        path.unlink(missing_ok=True)
