"""Peak memory of a train step: of the whole process, and of what forward and backward need beyond the weights."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slowfast.benchmark.subject import LEARNING_RATE, example_batch, train_steps
from slowfast.config.node import ConfigNode
from slowfast.datasets.types import TrainBatch
from slowfast.engine.step import TrainStep
from slowfast.runtime.memory import peak_memory_gib


@dataclass(frozen=True)
class StepMemory:
    """Memory of a train step."""

    process: float  # GiB: resident set of the process, or allocated on the GPU
    activations: float  # MiB


def measure_memory(cfg: ConfigNode, device: torch.device, clips: int, dtype: str, checkpointing: bool) -> StepMemory:
    """Memory of train steps of `clips` clips; to be called in a process of its own."""
    step = train_steps(cfg, device, clips, checkpointing)[dtype]
    batch = example_batch(cfg, clips)
    for number in range(2):  # the second has the optimizer's state from its beginning
        step(batch, 0, number, LEARNING_RATE)
    return StepMemory(peak_memory_gib(device), _activation_bytes(step, batch) / 2**20)


def _activation_bytes(step: TrainStep, batch: TrainBatch) -> int:
    """The most that forward and backward hold at once beyond weights, gradients, optimizer state and input.

    On the GPU what the allocator tells; on the CPU the bytes of all tensors made meanwhile that are alive, without the
    scratch space inside an operator.
    """
    inputs = step.forward.prepare(batch.clips)
    device = step.forward.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _forward_backward(step, inputs)
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes() as memory:
        _forward_backward(step, inputs)
    return memory.peak


def _forward_backward(step: TrainStep, inputs: torch.Tensor) -> None:
    """The gradients of the step before are there already, so that none are allocated."""
    step.model.train()
    with step.forward.autocast():
        loss = step.model(inputs).float().square().mean()
    loss.backward()


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operators make inside the block, counted while they are alive; `peak` is the most."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(leaf)._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and _storage(leaf)._cdata not in given | self._known:
                self._add(_storage(leaf))
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage._cdata)
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, address: int, size: int) -> None:
        self._known.discard(address)
        self._live -= size


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
