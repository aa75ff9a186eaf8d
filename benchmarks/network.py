"""Benchmark of a model: forward pass and training step in fp32 and bf16, with and without checkpointing."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure import Measurement, Timings, in_fresh_process, time_interleaved
from benchmarks.videos import with_overrides
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, find_dataset
from slowfast.datasets.collate import to_tensors
from slowfast.datasets.types import TrainBatch
from slowfast.engine.forward import AMP_DTYPES, ClipForward
from slowfast.engine.optim import build_optimizer
from slowfast.engine.step import TrainStep
from slowfast.models.build import build_model, find_network
from slowfast.models.linear import count_macs, pack_linears
from slowfast.models.protocol import EVENTS, IMAGES, Events
from slowfast.utils.distributed import World
from slowfast.utils.machine import has_fast_matmul, peak_memory_gib


@dataclass(frozen=True)
class StepMemory:
    """Memory of a training step.

    Attributes:
        process: Peak of the process in GiB: its resident set, or what is allocated on the GPU.
        activations: Peak of the activations in MiB.
    """

    process: float
    activations: float


def measure_memory(cfg: ConfigNode, device: torch.device, clips: int, dtype: str, checkpointing: bool) -> StepMemory:
    """Measure the memory of training steps with `clips` clips; call it in a fresh process."""
    step = train_steps(cfg, device, clips, checkpointing)[dtype]
    batch = example_batch(cfg, clips)
    for number in range(2):  # the optimizer state exists from the second step on
        step(batch, 0, number, LEARNING_RATE)
    return StepMemory(peak_memory_gib(device), _activation_bytes(step, batch) / 2**20)


def _activation_bytes(step: TrainStep, batch: TrainBatch) -> int:
    """Return the peak memory of forward and backward beyond weights, gradients, optimizer state and input.

    On the GPU it is reported by the allocator; on the CPU it is the size of all live tensors, without workspaces inside
    operators.
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
    """Run forward and backward; the gradients exist already, so none are allocated."""
    step.model.train()
    with step.forward.autocast():
        loss = step.model(inputs).float().square().mean()
    loss.backward()


class LiveBytes(TorchDispatchMode):
    """Counter of the bytes of live tensors created inside the block; `peak` is the maximum."""

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


LEARNING_RATE = 0.0  # same work with constant weights
FLOAT32, BFLOAT16 = "float32", "bfloat16"
DTYPES = (FLOAT32, BFLOAT16)


def measured_dtypes(device: torch.device) -> list[str]:
    """Return the data types to measure: bfloat16 only where it is fast, because runs use float32 elsewhere."""
    return [dtype for dtype in DTYPES if has_fast_matmul(getattr(torch, dtype), device)]


def train_steps(
    cfg: ConfigNode, device: torch.device, clips: int, checkpointing: bool, dtypes: Sequence[str] = DTYPES
) -> dict[str, TrainStep]:
    """Build training steps with `clips` clips in fp32 or autocast to other dtypes, of one model with random weights."""
    batch = ("TRAIN.BATCH_SIZE", clips, "AUG.NUM_SAMPLE", 1, "TRAIN.ACCUMULATION_STEPS", 1)
    cfg = with_overrides(cfg, "MODEL.ACT_CHECKPOINT", checkpointing, *batch)
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg).to(device)
    optimizer = build_optimizer(cfg, model)
    return {
        dtype: TrainStep(cfg, World(device=device), model, optimizer, forward_in(cfg, device, dtype))
        for dtype in dtypes
    }


def forward_in(cfg: ConfigNode, device: torch.device, dtype: str) -> ClipForward:
    """Build the forward pass in float32, bfloat16 or float16, even if a run would choose a faster one."""
    plain = ClipForward.from_config(with_overrides(cfg, "TRAIN.MIXED_PRECISION", False), device)
    return replace(plain, amp_dtype=AMP_DTYPES.get(dtype))


def example_batch(cfg: ConfigNode, clips: int) -> TrainBatch:
    """Return a batch of noise like those of the loader: uint8 (N, T, S, S, 3), T is 1 for images; or events (N, L)."""
    rng = np.random.default_rng(cfg.RNG_SEED)
    kind = find_dataset(cfg, TRAIN).input_kind
    if kind == EVENTS:
        labels = rng.integers(cfg.MODEL.NUM_CLASSES, size=clips)
        return TrainBatch(_example_events(cfg, clips, rng), torch.from_numpy(labels), [""] * clips, [])
    side, frames = cfg.DATA.TRAIN_CROP_SIZE, 1 if kind == IMAGES else cfg.DATA.NUM_FRAMES
    pixels = rng.integers(0, 256, (clips, frames, side, side, 3), dtype=np.uint8)
    labels = rng.integers(cfg.MODEL.NUM_CLASSES, size=clips)
    return TrainBatch(torch.from_numpy(pixels), torch.from_numpy(labels), [""] * clips, [])


def input_kind(cfg: ConfigNode) -> str:
    """Return what the network of a config takes: IMAGES, CLIPS or EVENTS."""
    return find_network(cfg).input_kind


def _example_events(cfg: ConfigNode, recordings: int, rng: np.random.Generator) -> Events:
    """Evenly distributed events: x, y, p int64, t float32 ascending from 0 to 1, all valid; each (N, L)."""
    shape, (height, width) = (recordings, cfg.DVS.NUM_EVENTS), cfg.DVS.SENSOR_SIZE
    columns = {key: rng.integers(high, size=shape) for key, high in (("x", width), ("y", height), ("p", 2))}
    columns["t"] = np.sort(rng.random(shape, np.float32), axis=1)
    return {**to_tensors(columns), "valid": torch.ones(shape, dtype=torch.bool)}


MATRIX_SIDE = {"cpu": 4096, "cuda": 8192}
MATMUL, FORWARD, STEP, CHECKPOINTED = (
    "matrix multiplication",
    "forward",
    "training step",
    "training step, checkpointing",
)
Steps = dict[tuple[str, bool], TrainStep]  # by dtype and activation checkpointing


@dataclass(frozen=True)
class Work:
    """Amount of work.

    Args:
        clips: Clips per forward pass and training step.
        side: Side of the square matrices that measure the rate of the machine.
        macs: MACs of the forward pass of a clip.
    """

    clips: int
    side: int
    macs: float


def measure_network(
    cfg: ConfigNode, device: torch.device, runs: int, clips: int = 2, side: int | None = None
) -> list[Measurement]:
    """Measure a model.

    Args:
        cfg: Config of the model.
        device: Device to run on.
        runs: Number of timed runs.
        clips: Clips per batch.
        side: Side of the matrices that are multiplied for comparison; None for the default of the device.
    """
    dtypes = measured_dtypes(device)
    variants = [(dtype, checkpointing) for checkpointing in (False, True) for dtype in dtypes]
    memory = {key: in_fresh_process(measure_memory, cfg, device, clips, *key) for key in variants}
    steps = {
        (dtype, checkpointing): step
        for checkpointing in (False, True)
        for dtype, step in train_steps(cfg, device, clips, checkpointing, dtypes).items()
    }
    batch = example_batch(cfg, clips)
    plain = steps[FLOAT32, False]
    macs = count_macs(plain.model, plain.forward.prepare(batch.clips), clips)
    work = Work(clips, side or MATRIX_SIDE[device.type], macs)
    timings = time_interleaved(_cases(steps, batch, work.side, device), runs, device)
    measurements = [Measurement("network", "MACs", work.macs / 1e9, "GMACs/clip", 1)]
    for dtype in dtypes:
        measurements += _speed_measurements(timings, dtype, work, runs)
        measurements += _training_measurements(timings, dtype, memory, runs)
    return measurements


def _cases(steps: Steps, batch: TrainBatch, side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    cases: dict[str, Callable[[], object]] = {}
    for dtype in dict.fromkeys(dtype for dtype, _ in steps):
        matrices = torch.randn(2, side, side, device=device, dtype=getattr(torch, dtype))
        cases[f"{dtype} {MATMUL}"] = partial(torch.mm, *matrices)
        cases[f"{dtype} {FORWARD}"] = _eval_case(steps[dtype, False], batch)
        cases[f"{dtype} {STEP}"] = partial(steps[dtype, False], batch, 0, 0, LEARNING_RATE)
        cases[f"{dtype} {CHECKPOINTED}"] = partial(steps[dtype, True], batch, 0, 0, LEARNING_RATE)
    return cases


def _eval_case(step: TrainStep, batch: TrainBatch) -> Callable[[], torch.Tensor]:
    """Return a forward pass as in evaluation, of a copy of the model that is not trained."""
    model = copy.deepcopy(step.model).eval()
    if step.forward.amp_dtype is None:
        pack_linears(model)
    return partial(forward_case, model, step.forward, step.forward.prepare(batch.clips))


@torch.inference_mode()
def forward_case(model: nn.Module, forward: ClipForward, inputs: torch.Tensor) -> torch.Tensor:
    """Compute the logits of prepared inputs."""
    with forward.autocast():
        logits: torch.Tensor = model(inputs)
    return logits


def _speed_measurements(timings: Timings, dtype: str, work: Work, runs: int) -> list[Measurement]:
    group = f"network, {dtype}"
    matmul, forward = f"{dtype} {MATMUL}", f"{dtype} {FORWARD}"
    flops, matmul_flops = 2 * work.macs * work.clips, 2 * work.side**3
    share = timings.ratio(matmul, forward) * flops / matmul_flops
    name = f"{MATMUL}, {work.side} x {work.side}"
    measurements = [
        Measurement(group, name, matmul_flops / timings.median(matmul) / 1e9, "GFLOP/s", runs),
        Measurement(group, f"forward of {work.clips} clips", timings.median(forward) / work.clips, "s/clip", runs),
        Measurement(group, "forward, rate", flops / timings.median(forward) / 1e9, "GFLOP/s", runs),
        Measurement(group, "forward, share of the matrix multiplication rate", 100 * share, "%", runs),
    ]
    if dtype != FLOAT32:
        speed_up = timings.ratio(f"{FLOAT32} {FORWARD}", forward)
        measurements.append(Measurement(group, "forward, speed-up over float32", speed_up, "x", runs))
    return measurements


def _training_measurements(
    timings: Timings, dtype: str, memory: dict[tuple[str, bool], StepMemory], runs: int
) -> list[Measurement]:
    group = f"network, {dtype}"
    plain, checkpointed = f"{dtype} {STEP}", f"{dtype} {CHECKPOINTED}"
    measurements = []
    for case, checkpointing in ((STEP, False), (CHECKPOINTED, True)):
        used = memory[dtype, checkpointing]
        measurements += [
            Measurement(group, case, timings.median(f"{dtype} {case}"), "s", runs),
            Measurement(group, f"{case}, activation memory", used.activations, "MiB", 1),
            Measurement(group, f"{case}, peak memory of the process", used.process, "GiB", 1),
        ]
    share = 100 * memory[dtype, True].activations / memory[dtype, False].activations
    return [
        *measurements,
        Measurement(group, "checkpointing, activation memory", share, "%", 1),
        Measurement(group, "checkpointing, time of a training step", timings.ratio(checkpointed, plain), "x", runs),
    ]
