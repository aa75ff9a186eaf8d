"""The configured network: forward and train step in float32 and bfloat16, plain and with gradient checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from slowfast.benchmark.figures import Figure
from slowfast.benchmark.memory import StepMemory, measure_memory
from slowfast.benchmark.processes import in_fresh_process
from slowfast.benchmark.subject import DTYPES, FLOAT32, LEARNING_RATE, example_batch, train_steps
from slowfast.benchmark.timing import Timings, time_interleaved
from slowfast.config.node import ConfigNode
from slowfast.datasets.types import TrainBatch
from slowfast.engine.forward import ClipForward
from slowfast.engine.step import TrainStep
from slowfast.models.linear import pack_linears
from slowfast.models.macs import count_macs

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
