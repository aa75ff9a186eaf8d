"""Writing of checkpoints in a background thread during training."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from slowfast.engine import checkpoints

# Maximum number of copies of the state: the best weights and the checkpoint of the same epoch.
_MAX_PENDING = 2


class CheckpointWriter:
    """Writer of checkpoints in a thread, one after the other, each from a copy of the state.

    A file is written atomically, as by :func:`checkpoints.save_checkpoint`. An error of the thread is raised by the
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

    def save(self, path: Path, state: checkpoints.State, then: Callable[[], object] | None = None) -> None:
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


def _write(path: Path, state: checkpoints.State, then: Callable[[], object] | None) -> None:
    checkpoints.save_checkpoint(path, state)
    if then is not None:
        then()


def copy_state(state: checkpoints.State) -> checkpoints.State:
    """Return a copy of a state in the memory of the CPU, for which `torch.save` writes the same bytes.

    Tensors that share memory share it in the copy, too.
    """
    copied: checkpoints.State = _copy(state, {})
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
