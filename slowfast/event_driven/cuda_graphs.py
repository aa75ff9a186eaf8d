"""CUDA graphs of functions on fixed buffers, and asynchronous copies between host and device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch

Work = Callable[[], None]


class Graphs(Protocol):
    """Interface that turns a function into one that replays its work on the device."""

    def capture(self, work: Work) -> Work: ...


class CudaGraphs:
    """CUDA graphs with a shared memory pool; they must not be replayed concurrently.

    While a graph is captured nothing else may use the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, work: Work) -> Work:
        """Run `work` once, capture it, and return a function that replays it on the current stream."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()  # warm-up: libraries initialize in the first call, which is not allowed during capture
        current.wait_stream(self._stream)
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            # thread_local: the thread of a data loader may allocate pinned memory.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        replay: Work = graph.replay
        return replay


class Steps:
    """Functions on the same buffers, identified by keys; replayed if they were captured, else called."""

    def __init__(self) -> None:
        self._replays: dict[Hashable, Work] = {}

    def capture(self, graphs: Graphs, key: Hashable, work: Work) -> None:
        """Capture a function. This also runs it, so the buffers must be initialized."""
        self._replays[key] = graphs.capture(work)

    def run(self, key: Hashable, work: Work) -> None:
        """Replay or call a function."""
        self._replays.get(key, work)()


def to_device(values: list[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Copy numbers from the host to a tensor on the device without waiting."""
    pinned = device.type == "cuda"  # copies from pageable memory block
    return torch.tensor(values, dtype=dtype, pin_memory=pinned).to(device, non_blocking=True)


class HostCopy:
    """Asynchronous copy of a tensor to host memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        on_gpu = tensor.device.type == "cuda"
        self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
        self._copy.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event() if on_gpu else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> torch.Tensor:
        """Return the copy. On a GPU this waits for the work that was queued before it, not for later work."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy.clone()  # frees the pinned memory, which is scarce
