"""Forward pass and training step of networks in several precisions and layouts: clips/s, utilization and memory.

Inputs are on the device before timing starts. Every case alternates with a bf16 matrix multiplication; utilization is
the ratio of their FLOP/s. A training step counts as three forward passes, with and without gradient checkpointing.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch.utils._pytree import tree_map_only

from benchmarks.gpu.cases import CannotRunHere, Cases, Values, first_line
from benchmarks.gpu.machine import DTYPES, MATRIX_SIDE, can_run, matmul_case, precision
from benchmarks.gpu.profiles import profile_work
from benchmarks.measure import time_interleaved
from benchmarks.network import LEARNING_RATE, example_batch, forward_case, input_kind, train_steps
from slowfast.cli.model_table import published_configs
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.config.parse import configs_folder
from slowfast.datasets.types import TrainBatch
from slowfast.engine.step import TrainStep
from slowfast.errors import ConfigError
from slowfast.models.linear import count_macs
from slowfast.models.protocol import CLIPS
from slowfast.utils.machine import peak_memory_gib, synchronize

FORWARD, TRAIN = "forward", "train"
_TASKS = (TRAIN, FORWARD)
_PASSES = {FORWARD: 1, TRAIN: 3}  # forward passes with the same number of FLOPs
_FRAMES, _IMAGES = 512, 128  # batch size on a GPU
_AMP_NAMES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_MATMUL = "matmul"
_BACKENDS = {"cuda": "inductor", "cpu": "aot_eager"}  # on a CPU, inductor compiles C++ for minutes
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
_load = cache(load_config)
_DEMOS = ("KINETICS_MORPHMLP", "IMAGENET_CONVMLP", "IMAGENET_EVMLP", "EVENTS_EVENT2VEC")  # small configs for CPUs


@dataclass(frozen=True)
class Variant:
    """Precision, memory format and options of a case; `dtype` is a name in DTYPES."""

    dtype: str = "bf16"
    channels_last: bool = False
    checkpointing: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        names = ("channels_last", "checkpointing", "compiled")
        return " ".join([self.dtype, *(name for name in names if getattr(self, name))])


BF16 = Variant()
CHECKPOINTED, CHANNELS_LAST = replace(BF16, checkpointing=True), replace(BF16, channels_last=True)
FP16, COMPILED = Variant("fp16"), replace(BF16, compiled=True)
Task = tuple[str, Variant]
# Most important first.
TASKS: tuple[Task, ...] = (
    (TRAIN, BF16),
    (FORWARD, BF16),
    (TRAIN, CHECKPOINTED),
    *((task, Variant(dtype)) for dtype in ("tf32", "fp32") for task in _TASKS),
    *((task, CHANNELS_LAST) for task in _TASKS),
    (TRAIN, FP16),
)


def measure_main(cases: Cases) -> None:
    """Run the part of the most important network, MorphMLP-S16."""
    path = main_config(cases.on_gpu)
    measure_config(cases, path, TASKS)
    for task in _TASKS:
        cases.run(f"{path.stem} {task} {BF16}, profile", partial(_profile, cases, path, task))


def measure_all(cases: Cases) -> None:
    """Run the part of all networks: all tasks for one config of each, then bf16 for the other configs."""
    (_, *first), others = order_configs([main_config(cases.on_gpu), *_configs(cases.on_gpu)])
    for path in first:
        measure_config(cases, path, TASKS)
    for path in others:
        measure_config(cases, path, TASKS[:2])


def measure_compiled(cases: Cases) -> None:
    """Run the part of torch.compile: the most important network first, then one config of each other network."""
    first, _ = order_configs([main_config(cases.on_gpu), *_configs(cases.on_gpu)])
    for path in first:
        measure_config(cases, path, [(FORWARD, COMPILED), (TRAIN, COMPILED)])


def main_config(on_gpu: bool) -> Path:
    """Return the config of MorphMLP-S16, or that of the demo without a GPU."""
    return configs_folder() / ("K400/K400_MLP_S16x4.yaml" if on_gpu else "Demo/KINETICS_MORPHMLP.yaml")


def _configs(on_gpu: bool) -> list[Path]:
    return published_configs() if on_gpu else [configs_folder() / "Demo" / f"{name}.yaml" for name in _DEMOS]


def order_configs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the first config of each network of the registry, and the other configs."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(_load(path).MODEL.MODEL_NAME.removesuffix("_32"), path)
    chosen = list(first.values())
    return chosen, [path for path in dict.fromkeys(paths) if path not in chosen]


def measure_config(cases: Cases, path: Path, tasks: Sequence[Task]) -> None:
    """Run a case for each task of a config."""
    for task, variant in tasks:
        case = f"{path.stem} {task} {variant}"
        cases.run(case, partial(_measure_halving, cases, path, task, variant))


def batch_size(cfg: ConfigNode, on_gpu: bool) -> int:
    """Return the number of clips, images or event recordings in a batch; 2 on a CPU."""
    if not on_gpu:
        return 2
    return max(_FRAMES // cfg.DATA.NUM_FRAMES, 1) if input_kind(cfg) == CLIPS else _IMAGES


def _measure_halving(cases: Cases, path: Path, task: str, variant: Variant) -> Values:
    """Measure with the largest batch that fits: halve it after each out-of-memory error."""
    cfg = _load(path)
    if not can_run(variant.dtype, cases.device):
        raise CannotRunHere(f"{variant.dtype} has no fast matrix multiplication on this machine")
    clips = batch_size(cfg, cases.on_gpu)
    while True:
        try:
            return measure(cases, cfg, task, variant, clips)
        except torch.OutOfMemoryError:
            if clips == 1:
                raise
        clips //= 2
        gc.collect()
        torch.cuda.empty_cache()


def measure(cases: Cases, cfg: ConfigNode, task: str, variant: Variant, clips: int) -> Values:
    """Measure one task of a network with random weights.

    Args:
        cases: Runner of the part.
        cfg: Config of the network.
        task: FORWARD or TRAIN.
        variant: How to run it.
        clips: Batch size.

    Returns:
        Values of the row. Memory is the peak of the case on a GPU, and the peak of the process on a CPU.
    """
    device, side = cases.device, MATRIX_SIDE[cases.device.type]
    step, batch = _step(cfg, variant, clips, device), on_device(example_batch(cfg, clips), device)
    flops = 2 * count_macs(step.model, step.forward.prepare(batch.clips), clips) * clips * _PASSES[task]
    reference = "bf16" if can_run("bf16", device) else "fp32"
    with precision(variant.dtype):
        work = _work(step, batch, task, variant)
        first_call, memory = _warm_up(work, device)
        matmul = matmul_case(DTYPES[reference], side, device)
        timings = time_interleaved({task: work, _MATMUL: matmul}, cases.runs, device)
        loss = _loss(step, batch) if task == TRAIN else None
    return {
        "batch": clips,
        "ms": 1e3 * timings.median(task),
        "clips/s": clips / timings.median(task),
        f"% of {reference} matmul": 100 * timings.ratio(_MATMUL, task) * flops / (2 * side**3),
        "GiB": memory,
        "loss": loss,
        "loss scale": step.scaler.get_scale() if step.scaler.is_enabled() and task == TRAIN else None,
        "first call, s": first_call,
    }


def _profile(cases: Cases, path: Path, task: str) -> Values:
    """Profile one task in bf16, or fp32 on CPUs that have no fast bf16."""
    cfg = _load(path)
    variant = BF16 if can_run(BF16.dtype, cases.device) else Variant("fp32")
    clips = batch_size(cfg, cases.on_gpu)
    step, batch = _step(cfg, variant, clips, cases.device), on_device(example_batch(cfg, clips), cases.device)
    work = _work(step, batch, task, variant)
    _warm_up(work, cases.device)
    return {"batch": clips, **profile_work(work, cases.device)}


def _step(cfg: ConfigNode, variant: Variant, clips: int, device: torch.device) -> TrainStep:
    """Build a network and its training step."""
    try:
        [step] = train_steps(cfg, device, clips, variant.checkpointing, (_AMP_NAMES[variant.dtype],)).values()
    except ConfigError as error:
        raise CannotRunHere(first_line(error)) from error
    if variant.channels_last:  # inputs always are channels-last
        for parameter in step.model.parameters():
            layout = _LAYOUTS.get(parameter.ndim, torch.contiguous_format)
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return step


def on_device(batch: TrainBatch, device: torch.device) -> TrainBatch:
    """Return a batch with its clips and labels on the device."""
    clips = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), batch.clips)
    return replace(batch, clips=clips, labels=batch.labels.to(device))


def _work(step: TrainStep, batch: TrainBatch, task: str, variant: Variant) -> Callable[[], torch.Tensor]:
    """Return the function to time: a training step, or a forward pass in evaluation mode."""
    if variant.compiled:
        torch.compiler.reset()  # the recompilation limit is per class
        step.model.compile(backend=_BACKENDS[step.forward.device.type])
    if task == TRAIN:
        return partial(step, batch, 0, 0, LEARNING_RATE)
    return partial(forward_case, step.model.eval(), step.forward, step.forward.prepare(batch.clips))


def _warm_up(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Run twice untimed; return the seconds of the first call and the peak memory in GiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    seconds = time.perf_counter() - start
    work()
    synchronize(device)
    return seconds, peak_memory_gib(device)


def _loss(step: TrainStep, batch: TrainBatch) -> float:
    """Return the loss of another step; the learning rate is 0, so it is the same in all variants."""
    loss = float(step(batch, 0, 0, LEARNING_RATE)[0])
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss is {loss}")
    return loss
