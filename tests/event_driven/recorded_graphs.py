"""Substitute for CUDA graphs without a GPU: PyTorch calls are recorded once and replayed on the same memory.

A replay repeats the calls with the same arguments, whatever Python would do by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraphs:
    """Graphs on the CPU; ``replayed`` counts the replays."""

    def __init__(self) -> None:
        self.replayed = 0

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run once, then record without side effects, as CudaGraphs does."""
        work()
        recorder = _Recorder()
        with recorder:
            work()
        for tensor, before in reversed(recorder.written):
            tensor.copy_(before)

        def replay() -> None:
            self.replayed += 1
            for call in recorder.calls:
                _repeat(*call)

        return replay


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.written: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for argument, value in (*zip(func._schema.arguments, args, strict=False), *_named(func, kwargs)):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.written.append((value, value.clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out


def _named(func: Any, kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(argument, kwargs[argument.name]) for argument in func._schema.arguments if argument.name in kwargs]


def _repeat(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    again = func(*args, **kwargs)
    for new, old in zip(tree_leaves(again), tree_leaves(out), strict=True):
        if isinstance(old, torch.Tensor) and new.data_ptr() != old.data_ptr():  # neither a view nor written in place
            old.copy_(new)
