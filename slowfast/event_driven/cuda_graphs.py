"""CUDA graphs of functions on fixed buffers, and copies between host and device that do not wait."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch

Work = Callable[[], None]


class Graphs(Protocol):
    """Makes of a function another one that repeats its work on the device."""

    def capture(self, work: Work) -> Work: ...


class CudaGraphs:
    """Captures one after the other, in a pool of memory that they share: they are never replayed at the same time.

    As PyTorch asks, a function runs once on another stream first, and nothing else may use the device meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, work: Work) -> Work:
        """Run `work` once, capture it, and give what replays it on the stream that is current then."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()  # libraries prepare themselves in the first call, which a capture does not allow
        current.wait_stream(self._stream)
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            # thread_local: a data loader's thread may take pinned memory.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        replay: Work = graph.replay
        return replay


class Steps:
    """Functions on the same buffers, by a key each; replayed where they were captured, else called."""

    def __init__(self) -> None:
        self._replays: dict[Hashable, Work] = {}

    def capture(self, graphs: Graphs, key: Hashable, work: Work) -> None:
        """Runs it, too: the buffers should hold something harmless."""
        self._replays[key] = graphs.capture(work)

    def run(self, key: Hashable, work: Work) -> None:
        """Do a function's work."""
        self._replays.get(key, work)()


def to_device(values: list[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Numbers of the host as a tensor on the device; a GPU takes them when it gets there."""
    pinned = device.type == "cuda"  # from other memory the copy would wait
    return torch.tensor(values, dtype=dtype, pin_memory=pinned).to(device, non_blocking=True)


class HostCopy:
    """A copy of a tensor on its way to the host's memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        on_gpu = tensor.device.type == "cuda"
        self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
        self._copy.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event() if on_gpu else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> torch.Tensor:
        """What has arrived. On a GPU this waits for what the device was given before it, not for what came later."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy.clone()  # pinned memory is scarce, and used again
