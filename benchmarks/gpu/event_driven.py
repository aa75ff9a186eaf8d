"""Event-driven against dense inference of evMLP on the same frames, with and without CUDA graphs.

Frames alternate between two that differ in one block of patches, so every step has the same share of active patches.
Each step processes one frame of each of S streams; frames are on the device before timing starts.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
from torch import nn

from benchmarks.gpu.cases import Cases, Values
from benchmarks.gpu.machine import WARM_UP
from benchmarks.gpu.profiles import profile_work
from benchmarks.measure import Timings, time_interleaved
from benchmarks.videos import with_overrides
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.config.parse import configs_folder
from slowfast.event_driven import EventDrivenInference
from slowfast.event_driven.linear_kernels import BFLOAT16, FLOAT32, INT8
from slowfast.event_driven.static_shapes import CudaGraphs
from slowfast.models import build_model
from slowfast.models.evmlp import EvMLP
from slowfast.models.linear import pack_linears

ACTIVE = (5, 1, 25, 100)  # % of the patches, most important first
PRECISIONS = (FLOAT32, BFLOAT16, INT8)
STREAMS = {"cuda": (64, 1, 16, 256), "cpu": (4, 1)}
STEPS = {"cuda": 10, "cpu": 2}  # steps per run; even, because two frames alternate
CAPTURED = " captured"
DENSE, EVENT = "dense", "event"
_WAITED = "called a synchronizing"  # prefix of PyTorch's warning
Forward = Callable[[torch.Tensor], torch.Tensor]  # frames (S, 3, side, side) -> logits (S, classes)


def measure(cases: Cases) -> None:
    """Run the part: a case for each number of streams, precision and share of active patches."""
    cfg = load_config(configs_folder() / ("ImageNet/EVMLP.yaml" if cases.on_gpu else "Demo/IMAGENET_EVMLP.yaml"))
    for streams, precision in itertools.product(STREAMS[cases.device.type], PRECISIONS):
        bench = functools.cache(functools.partial(_Bench, cfg, cases.device, streams, precision))
        for active in ACTIVE:
            case = f"{streams} streams, {precision}, {active} %"
            cases.run(case, functools.partial(_measure, cases, bench, active))
        if streams == STREAMS[cases.device.type][0]:
            case = f"{streams} streams, {precision}, {ACTIVE[0]} %, profile"
            cases.run(case, functools.partial(_profile, cases, bench, ACTIVE[0]))


def _profile(cases: Cases, bench: Callable[[], _Bench], active: int) -> Values:
    return profile_work(bench().steps_of_engine(active / 100), cases.device)


def _measure(cases: Cases, bench: Callable[[], _Bench], active: int) -> Values:
    return bench().values(active / 100, cases.runs)


@dataclass(frozen=True)
class Engine:
    """Event-driven inference as a function of frames (S, 3, side, side)."""

    inference: EventDrivenInference
    streams: int

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        return self.inference.run(frames[None], range(self.streams)).logits[0]

    def active(self, frames: torch.Tensor) -> float:
        """Run a step and return the share of patches that it computed, in percent."""
        computed = self.inference.run(frames[None], range(self.streams)).active[..., 0].float().mean()
        return 100 * float(computed) / self.inference.network.counts[0]


class _Bench:
    """Dense and event-driven inference of one network with random weights, for S streams in one precision.

    The dense network has float32 weights, or bfloat16 weights against the smaller precisions.
    """

    def __init__(self, cfg: ConfigNode, device: torch.device, streams: int, precision: str) -> None:
        torch.manual_seed(cfg.RNG_SEED)
        model = build_model(cfg).to(device).eval()
        assert isinstance(model, EvMLP)
        pack_linears(model)  # no effect on a GPU
        self.model, self.device, self.streams = model, device, streams
        self.steps = STEPS[device.type]
        self.random = torch.Generator().manual_seed(cfg.RNG_SEED)
        event = with_overrides(cfg, "EVENT.PRECISION", precision)
        self.engines = {EVENT: Engine(EventDrivenInference.from_config(event, model), streams)}
        dense = _dense(model, torch.float32 if precision == FLOAT32 else torch.bfloat16)
        self.forwards: dict[str, Forward] = {DENSE: dense, **self.engines}
        if device.type == "cuda":
            captured = Engine(EventDrivenInference.from_config(event, model), streams)
            captured.inference.capture(1, streams)
            self.engines[EVENT + CAPTURED] = captured
            example = torch.rand(streams, 3, model.side, model.side, device=device)
            self.forwards |= {DENSE + CAPTURED: _captured(dense, example), EVENT + CAPTURED: captured}

    def values(self, share: float, runs: int) -> Values:
        """Measure with a share of the patches changing between frames; return the values of the row."""
        frames = self._frames(share)
        calls = {name: functools.partial(self._run, forward, frames) for name, forward in self.forwards.items()}
        timings = time_interleaved(calls, runs, self.device, WARM_UP)
        waits = {name: count_host_waits(calls[name], self.device) for name in self.engines}
        best = min(self.engines, key=timings.median)
        return {
            "active %": self.engines[best].active(frames[0]),
            **{f"{name}, ms": 1e3 * timings.median(name) / self.steps for name in calls},
            "frames/s": self.streams * self.steps / timings.median(best),
            "speed-up": speed_up(timings),
            **{f"{name}, waits": None if n is None else n / self.steps for name, n in waits.items()},
            "error": self._error(best, frames[1]),
        }

    def steps_of_engine(self, share: float) -> Callable[[], None]:
        """Return a function that runs warmed-up steps, captured on a GPU, with a share of the patches changing."""
        frames = self._frames(share)
        steps = functools.partial(self._run, list(self.engines.values())[-1], frames)
        for _ in range(WARM_UP):
            steps()
        return steps

    def _frames(self, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        network = self.engines[EVENT].inference.network
        one, other = alternating_frames(self.streams, network.side, network.patch, share, self.random)
        return one.to(self.device), other.to(self.device)

    @torch.inference_mode()
    def _run(self, forward: Forward, frames: tuple[torch.Tensor, torch.Tensor]) -> None:
        for step in range(self.steps):
            forward(frames[step % 2])

    @torch.inference_mode()
    def _error(self, name: str, frames: torch.Tensor) -> float:
        """Return the largest difference from dense float32 logits, relative to the largest of these."""
        want = self.model(frames)
        return float((self.engines[name](frames).float() - want).abs().max() / want.abs().max())


def speed_up(timings: Timings) -> float:
    """Return the speed-up of the fastest event-driven variant over the fastest dense one."""
    fastest = {
        kind: min((name for name in timings.seconds if name.startswith(kind)), key=timings.median)
        for kind in (DENSE, EVENT)
    }
    return timings.ratio(fastest[DENSE], fastest[EVENT])


def alternating_frames(
    streams: int, side: int, patch: int, share: float, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two frames of each stream, (S, 3, side, side), that differ in one block of patches.

    Args:
        streams: Number of streams.
        side: Side of a frame in pixels.
        patch: Side of a patch in pixels.
        share: Approximate share of the patches in the block. Its position is random in each stream, and its pixels
            differ by more than any threshold.
        random: Generator of the frames and positions, on the CPU.
    """
    grid = side // patch
    block = max(1, round(math.sqrt(share) * grid))
    one = torch.rand(streams, 3, side, side, generator=random)
    other = one.clone()
    corners = torch.randint(grid - block + 1, (streams, 2), generator=random) * patch
    for frame, (top, left) in zip(other, corners.tolist(), strict=True):
        frame[:, top : top + block * patch, left : left + block * patch] += 10
    return one, other


def _dense(model: nn.Module, dtype: torch.dtype) -> Forward:
    network = model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)
    return lambda frames: network(frames.to(dtype))


def _captured(forward: Forward, example: torch.Tensor) -> Forward:
    """Capture a function of frames as a CUDA graph. The next call overwrites its result."""
    buffer = example.clone()
    result: list[torch.Tensor] = []

    def into_result() -> None:
        result[:] = [forward(buffer)]

    with torch.inference_mode():
        replay = CudaGraphs(example.device).capture(into_result)

    def run(frames: torch.Tensor) -> torch.Tensor:
        buffer.copy_(frames)
        replay()
        return result[0]

    return run


def count_host_waits(work: Callable[[], object], device: torch.device) -> int | None:
    """Return how often the host waits for the GPU while `work` runs; None on a CPU.

    Count operators that PyTorch's synchronization debug mode reports, and waits for events, which it does not report.
    """
    if device.type != "cuda":
        return None
    with _counted_event_waits() as events, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return len(events) + sum(str(warning.message).startswith(_WAITED) for warning in caught)


@contextmanager
def _counted_event_waits() -> Iterator[list[int]]:
    """Yield a list that grows by one entry per call of torch.cuda.Event.synchronize."""
    waits: list[int] = []
    plain = torch.cuda.Event.synchronize

    def synchronize(event: torch.cuda.Event) -> None:
        waits.append(1)
        plain(event)

    with mock.patch.object(torch.cuda.Event, "synchronize", synchronize):
        yield waits
