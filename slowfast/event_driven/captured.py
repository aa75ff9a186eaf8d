"""Work on fixed buffers that a GPU repeats by itself: captured as a CUDA graph, launched as one.

A captured function must read and write nothing but tensors that stay where they are, with shapes that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

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
