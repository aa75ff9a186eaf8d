"""The configured network: forward and train step in float32 and bfloat16, plain and with gradient checkpointing."""

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

from benchmarks.measure import Figure, Timings, in_fresh_process, time_interleaved
from benchmarks.videos import changed
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, find_dataset
from slowfast.datasets.collate import to_tensors
from slowfast.datasets.types import TrainBatch
from slowfast.engine.forward import AMP_DTYPES, ClipForward
from slowfast.engine.optim import build_optimizer
from slowfast.engine.step import TrainStep
from slowfast.models.build import build_model, find_network
from slowfast.models.inputs import EVENTS, IMAGES, Events
from slowfast.models.linear import count_macs, pack_linears
from slowfast.utils.distributed import World
from slowfast.utils.machine import peak_memory_gib


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


LEARNING_RATE = 0.0  # the same work, and the weights stay as they are
FLOAT32, BFLOAT16 = "float32", "bfloat16"
DTYPES = (FLOAT32, BFLOAT16)


def train_steps(
    cfg: ConfigNode, device: torch.device, clips: int, checkpointing: bool, dtypes: Sequence[str] = DTYPES
) -> dict[str, TrainStep]:
    """Steps of `clips` clips, in float32 or autocast to other dtypes, of one new network with random weights."""
    batch = ("TRAIN.BATCH_SIZE", clips, "AUG.NUM_SAMPLE", 1, "TRAIN.ACCUMULATION_STEPS", 1)
    cfg = changed(cfg, "MODEL.ACT_CHECKPOINT", checkpointing, *batch)
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg).to(device)
    optimizer = build_optimizer(cfg, model)
    return {
        dtype: TrainStep(cfg, World(device=device), model, optimizer, forward_in(cfg, device, dtype))
        for dtype in dtypes
    }


def forward_in(cfg: ConfigNode, device: torch.device, dtype: str) -> ClipForward:
    """Build the forward pass in float32, bfloat16 or float16, also where a run would choose another one for speed."""
    plain = ClipForward.from_config(changed(cfg, "TRAIN.MIXED_PRECISION", False), device)
    return replace(plain, amp_dtype=AMP_DTYPES.get(dtype))


def example_batch(cfg: ConfigNode, clips: int) -> TrainBatch:
    """Noise as the loader gives it: uint8 clips (N, T, S, S, 3), T is 1 for datasets of images; or events (N, L)."""
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
PRODUCT, FORWARD, STEP, CHECKPOINTED = "matrix product", "forward", "train step", "train step, checkpointing"
Steps = dict[tuple[str, bool], TrainStep]  # by type and whether with gradient checkpointing


@dataclass(frozen=True)
class Work:
    """What is measured: sizes that turn seconds into rates."""

    clips: int  # of a forward pass and of a step
    side: int  # of the square matrices whose product shows the machine's rate
    macs: float  # multiply-adds of a clip's forward pass


def measure_network(
    cfg: ConfigNode, device: torch.device, runs: int, clips: int = 2, side: int | None = None
) -> list[Figure]:
    """All figures of the network; `side`: of the matrices multiplied for comparison, in elements."""
    variants = [(dtype, checkpointing) for checkpointing in (False, True) for dtype in DTYPES]
    memory = {key: in_fresh_process(measure_memory, cfg, device, clips, *key) for key in variants}
    steps = {
        (dtype, checkpointing): step
        for checkpointing in (False, True)
        for dtype, step in train_steps(cfg, device, clips, checkpointing).items()
    }
    batch = example_batch(cfg, clips)
    plain = steps[FLOAT32, False]
    macs = count_macs(plain.model, plain.forward.prepare(batch.clips), clips)
    work = Work(clips, side or MATRIX_SIDE[device.type], macs)
    timings = time_interleaved(_cases(steps, batch, work.side, device), runs, device)
    figures = [Figure("network", "multiply-adds", work.macs / 1e9, "GMACs a clip", 1)]
    for dtype in DTYPES:
        figures += _speed_figures(timings, dtype, work, runs)
        figures += _training_figures(timings, dtype, memory, runs)
    return figures


def _cases(steps: Steps, batch: TrainBatch, side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    cases: dict[str, Callable[[], object]] = {}
    for dtype in DTYPES:
        matrices = torch.randn(2, side, side, device=device, dtype=getattr(torch, dtype))
        cases[f"{dtype} {PRODUCT}"] = partial(torch.mm, *matrices)
        cases[f"{dtype} {FORWARD}"] = _eval_case(steps[dtype, False], batch)
        cases[f"{dtype} {STEP}"] = partial(steps[dtype, False], batch, 0, 0, LEARNING_RATE)
        cases[f"{dtype} {CHECKPOINTED}"] = partial(steps[dtype, True], batch, 0, 0, LEARNING_RATE)
    return cases


def _eval_case(step: TrainStep, batch: TrainBatch) -> Callable[[], torch.Tensor]:
    """A forward pass as evaluation makes it, of a copy of the network that no train step changes."""
    model = copy.deepcopy(step.model).eval()
    if step.forward.amp_dtype is None:
        pack_linears(model)
    return partial(forward_case, model, step.forward, step.forward.prepare(batch.clips))


@torch.inference_mode()
def forward_case(model: nn.Module, forward: ClipForward, inputs: torch.Tensor) -> torch.Tensor:
    """The logits of prepared inputs."""
    with forward.autocast():
        logits: torch.Tensor = model(inputs)
    return logits


def _speed_figures(timings: Timings, dtype: str, work: Work, runs: int) -> list[Figure]:
    group = f"network, {dtype}"
    product, forward = f"{dtype} {PRODUCT}", f"{dtype} {FORWARD}"
    flops, product_flops = 2 * work.macs * work.clips, 2 * work.side**3
    share = timings.ratio(product, forward) * flops / product_flops
    name = f"{PRODUCT}, {work.side} x {work.side}"
    figures = [
        Figure(group, name, product_flops / timings.median(product) / 1e9, "GFLOP/s", runs),
        Figure(group, f"forward of {work.clips} clips", timings.median(forward) / work.clips, "s a clip", runs),
        Figure(group, "forward, rate", flops / timings.median(forward) / 1e9, "GFLOP/s", runs),
        Figure(group, "forward, share of the matrix product's rate", 100 * share, "%", runs),
    ]
    if dtype != FLOAT32:
        speed_up = timings.ratio(f"{FLOAT32} {FORWARD}", forward)
        figures.append(Figure(group, "forward, speed-up over float32", speed_up, "x", runs))
    return figures


def _training_figures(
    timings: Timings, dtype: str, memory: dict[tuple[str, bool], StepMemory], runs: int
) -> list[Figure]:
    group = f"network, {dtype}"
    plain, checkpointed = f"{dtype} {STEP}", f"{dtype} {CHECKPOINTED}"
    figures = []
    for case, checkpointing in ((STEP, False), (CHECKPOINTED, True)):
        used = memory[dtype, checkpointing]
        figures += [
            Figure(group, case, timings.median(f"{dtype} {case}"), "s", runs),
            Figure(group, f"{case}, activation memory", used.activations, "MiB", 1),
            Figure(group, f"{case}, peak of the process", used.process, "GiB", 1),
        ]
    share = 100 * memory[dtype, True].activations / memory[dtype, False].activations
    return [
        *figures,
        Figure(group, "checkpointing, activation memory", share, "%", 1),
        Figure(group, "checkpointing, time of a train step", timings.ratio(checkpointed, plain), "x", runs),
    ]
