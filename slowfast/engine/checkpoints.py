"""Training checkpoints: atomic writing, also in a thread, finding the last one, and reading that skips damaged files.

A file holds `model_state`, `optimizer_state`, `scaler_state`, `ema_state` (with MODEL.EMA), `epoch` (number of
finished epochs), `step` (finished steps of the next epoch), the best validation result so far, the config as text, and
the class names (`class_names`) if the dataset has any.
"""

from __future__ import annotations

import copy
import re
import zipfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from slowfast.errors import CheckpointError, DamagedFileError
from slowfast.utils.checkpoint_files.read import read_torch_file
from slowfast.utils.files import atomic_path, remove_leftovers, reporting_file
from slowfast.utils.launch import is_main_process
from slowfast.utils.logging import get_logger

State = dict[str, Any]

BEST = "checkpoint_best.pyth"
_NAME = re.compile(r"checkpoint_epoch_(\d{5,})(?:_step_(\d{8,}))?\.pyth")
_TRAINING_KEYS = frozenset({"model_state", "optimizer_state", "epoch", "step"})
# Maximum number of copies of the state: the best weights and the checkpoint of the same epoch.
_MAX_PENDING = 2

# Damaged files by path, size and modification time, with the reason; each is reported once.
_damaged: dict[tuple[str, int, int], str] = {}


def checkpoint_folder(output_dir: Path) -> Path:
    """Return the checkpoint folder of a run."""
    return output_dir / "checkpoints"


def checkpoint_name(epoch: int, step: int) -> str:
    """Return the checkpoint name after `epoch` epochs and `step` steps of the next."""
    return f"checkpoint_epoch_{epoch:05d}.pyth" if step == 0 else f"checkpoint_epoch_{epoch:05d}_step_{step:08d}.pyth"


def save_checkpoint(path: Path, state: State) -> None:
    """Write a checkpoint atomically: the file is complete or absent, even if the process is killed.

    Raises:
        DiskError: If the disk is full or not writable. An existing file is kept.
    """
    with atomic_path(path, setting="OUTPUT_DIR") as part, reporting_file(part) as file:
        torch.save(state, file)


def read_checkpoint(path: Path) -> State:
    """Load a training checkpoint with its tensors on the CPU, without executing anything in the file.

    Raises:
        DamagedFileError: If the file is truncated or a checksum is wrong.
        CheckpointError: If it is not a training checkpoint.
    """
    state = training_state(read_torch_file(path))
    if state is None:
        raise CheckpointError(
            f"{path} is not a training checkpoint. To start from its weights, set TRAIN.CHECKPOINT_FILE_PATH to it"
        )
    return state


def training_state(content: Any) -> State | None:
    """Return the content of a file if it is a training checkpoint of this project, else None."""
    return content if isinstance(content, dict) and content.keys() >= _TRAINING_KEYS else None


def find_checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoints of a run, the latest first.

    Truncated files and those that :func:`read_last` found damaged are skipped with one warning each.
    """
    return [path for path in _all_checkpoints(output_dir) if _known_damage(path) is None]


def find_last(output_dir: str | Path) -> Path | None:
    """Return the path of the latest checkpoint of a run that is not known to be damaged; None if there is none.

    Raises:
        CheckpointError: If all are damaged.
    """
    found = find_checkpoints(Path(output_dir))
    if not found:
        _refuse_to_start_over(Path(output_dir))
    return found[0] if found else None


def read_last(output_dir: str | Path) -> tuple[Path, State] | None:
    """Load the latest undamaged checkpoint of a run; None if there are no checkpoints.

    Raises:
        CheckpointError: If all checkpoints are damaged, or the file is not a training checkpoint.
    """
    for path in find_checkpoints(Path(output_dir)):
        try:
            return path, read_checkpoint(path)
        except DamagedFileError as error:
            _note_damage(path, str(error))
    _refuse_to_start_over(Path(output_dir))
    return None


def clean_up(output_dir: Path, keep: int) -> None:
    """Remove unfinished files and obsolete checkpoints.

    Args:
        output_dir: OUTPUT_DIR.
        keep: Number of end-of-epoch checkpoints to keep; 0 keeps all. Of the checkpoints within an epoch only the
            latest checkpoint of all is kept.
    """
    folder = checkpoint_folder(output_dir)
    remove_leftovers(folder, every=True)
    for path in folder.glob(".*.tmp"):  # written by version 1.0 and earlier
        path.unlink(missing_ok=True)
    found = find_checkpoints(output_dir)
    epoch_ends = [path for path in found if "_step_" not in path.name]
    stale = [path for path in found[1:] if "_step_" in path.name]
    if keep:
        stale += [path for path in epoch_ends[keep:] if path != found[0]]
    for path in stale:
        path.unlink(missing_ok=True)


def _all_checkpoints(output_dir: Path) -> list[Path]:
    """Return all files named as checkpoints, the latest first."""
    folder = checkpoint_folder(output_dir)
    matches = {path: _NAME.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ())}
    order = {path: (int(match[1]), int(match[2] or 0)) for path, match in matches.items() if match is not None}
    return sorted(order, key=lambda path: order[path], reverse=True)


def _known_damage(path: Path) -> str | None:
    """Return why a checkpoint is damaged, if known or visible at the end of the file, else None."""
    reason = _damaged.get(_identity(path))
    if reason is None and not zipfile.is_zipfile(path):
        reason = f"{path} is damaged: it is not a complete zip archive"
        _note_damage(path, reason)
    return reason


def _note_damage(path: Path, reason: str) -> None:
    _damaged[_identity(path)] = reason
    if is_main_process():
        get_logger().warning(f"Skipping damaged checkpoint, trying the previous one: {reason}")


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), stat.st_size, stat.st_mtime_ns


def _refuse_to_start_over(output_dir: Path) -> None:
    """Raise CheckpointError if there are checkpoints but all are damaged: starting over must be an explicit choice."""
    names = [path.name for path in _all_checkpoints(output_dir)]
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise CheckpointError(
            f"{checkpoint_folder(output_dir)}: every checkpoint is damaged ({shown}). Restore one from a copy, or "
            "choose another OUTPUT_DIR (or delete them) to start from scratch"
        )


class CheckpointWriter:
    """Writer of checkpoints in a thread, one after the other, each from a copy of the state.

    A file is written atomically, as by :func:`save_checkpoint`. An error of the thread is raised by the
    next `save` or `wait`.

    Args:
        in_background: Whether to write in a thread (TRAIN.CHECKPOINT_ASYNC), which needs memory for the copies. False
            writes in `save` itself.
    """

    def __init__(self, in_background: bool = True) -> None:
        self._executor = ThreadPoolExecutor(1, "checkpoint") if in_background else None
        self._pending: deque[Future[None]] = deque()

    @property
    def failed(self) -> bool:
        """True if a write has failed and its error has not been raised yet."""
        return any(one.done() and one.exception() is not None for one in self._pending)

    def save(self, path: Path, state: State, then: Callable[[], object] | None = None) -> None:
        """Write a checkpoint; return as soon as its content no longer depends on the state.

        Args:
            path: File to write.
            state: Content: tensors and plain values.
            then: Called after the file is complete, in the same thread.

        Raises:
            DiskError: If this or an earlier checkpoint cannot be written.
        """
        if self._executor is None:
            _write(path, state, then)
            return
        while self._pending and (self._pending[0].done() or len(self._pending) >= _MAX_PENDING):
            self._pending.popleft().result()
        self._pending.append(self._executor.submit(_write, path, copy_state(state), then))

    def wait(self) -> None:
        """Wait until all files are complete.

        Raises:
            DiskError: If one cannot be written.
        """
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Wait until all files are complete, even after an error, which is still the one raised."""
        if error is None:
            self.wait()
        for one in self._pending:
            one.exception()


def _write(path: Path, state: State, then: Callable[[], object] | None) -> None:
    save_checkpoint(path, state)
    if then is not None:
        then()


def copy_state(state: State) -> State:
    """Return a copy of a state in the memory of the CPU, for which `torch.save` writes the same bytes.

    Tensors that share memory share it in the copy, too.
    """
    copied: State = _copy(state, {})
    return copied


def _copy(value: Any, storages: dict[int, torch.UntypedStorage]) -> Any:
    if isinstance(value, torch.Tensor):
        return _copy_tensor(value, storages)
    if isinstance(value, dict):
        copied = copy.copy(value)  # a state dict has attributes in addition to its items
        copied.update({key: _copy(item, storages) for key, item in value.items()})
        return copied
    if isinstance(value, (list, tuple)):
        return type(value)(_copy(item, storages) for item in value)
    return value


def _copy_tensor(tensor: torch.Tensor, storages: dict[int, torch.UntypedStorage]) -> torch.Tensor:
    storage = tensor.untyped_storage()
    key = storage._cdata  # torch.save recognizes shared memory by it
    if key not in storages:
        storages[key] = storage.clone() if tensor.device.type == "cpu" else storage.cpu()
    copied = torch.empty(0, dtype=tensor.dtype)
    return copied.set_(storages[key], tensor.storage_offset(), tensor.size(), tensor.stride())
