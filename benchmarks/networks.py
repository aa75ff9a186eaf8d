"""Benchmark of all published models: throughput in fp32 and bf16.

Each takes turns with a multiplication of square matrices, to whose rate it is compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Measurement, Timings, time_interleaved
from benchmarks.network import (
    BFLOAT16,
    DTYPES,
    FLOAT32,
    MATMUL,
    MATRIX_SIDE,
    example_batch,
    forward_case,
    forward_in,
    measured_dtypes,
)
from slowfast.cli.model_table import published_configs, read_header
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.models.build import build_model, find_network
from slowfast.models.linear import count_macs, pack_linears
from slowfast.models.protocol import CLIPS, IMAGES

LINEAR, CONVOLUTIONS, DEPTHWISE, ATTENTION, MEMORY, NORMS, REST = KINDS = (
    "matrix multiplications",
    "convolutions",
    "depthwise convolutions",
    "attention",
    "copies and element-wise sums",
    "normalization and activations",
    "other",
)
# Kind of an operator by a part of its name; the first match counts.
_BY_NAME = {
    "convolution": CONVOLUTIONS,
    "attention": ATTENTION,
    "linear": LINEAR,
    "addmm": LINEAR,
    "bmm": LINEAR,
    "::mm": LINEAR,
    "norm": NORMS,
    "gelu": NORMS,
    "relu": NORMS,
    "softmax": NORMS,
    "copy_": MEMORY,
    "::add": MEMORY,
    "::mul": MEMORY,
    "mean": MEMORY,
    "index": MEMORY,
    "::cat": MEMORY,
    "pool": MEMORY,
}


def time_by_kind(forward: Callable[[], object]) -> list[tuple[str, float]]:
    """Return the fraction of the time of a forward pass per kind of operator, largest first."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        forward()
    seconds: dict[str, float] = defaultdict(float)
    for event in record.key_averages(group_by_input_shape=True):
        seconds[kind_of(event.key, event.input_shapes)] += event.self_cpu_time_total
    whole = sum(seconds.values())
    shares = [(kind, spent / whole) for kind, spent in seconds.items() if spent > 0]
    return sorted(shares, key=lambda pair: -pair[1])


def kind_of(operator: str, shapes: Sequence[Any]) -> str:
    """Return the kind of an operator by its name and input shapes."""
    for part, kind in _BY_NAME.items():
        if part in operator:
            depthwise = kind == CONVOLUTIONS and len(shapes) > 1 and len(shapes[1]) > 2 and shapes[1][1] == 1
            return DEPTHWISE if depthwise else kind
    return REST


IMAGES_PER_BATCH, FRAMES_PER_BATCH = 8, 32
GROUP = "networks"
SHARE = "share of the matrix multiplication rate"
COLUMNS = ("model", "batch", "GMACs", "float32", "share", "bfloat16", "share", "speed-up")


def one_config_per_model(paths: Sequence[Path]) -> dict[str, Path]:
    """Return one config for each model of images or clips and each input size, by name."""
    chosen: dict[tuple[str, int, int], Path] = {}
    for path in paths:
        cfg = load_config(path)
        if find_network(cfg).input_kind not in (IMAGES, CLIPS):
            continue
        chosen.setdefault((read_header(path).network, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE), path)
    return {path.stem: path for path in chosen.values()}


def measure_networks(
    device: torch.device,
    runs: int,
    settings: Sequence[Path] | None = None,
    side: int | None = None,
    shares: bool = False,
) -> Iterator[list[Measurement]]:
    """Measure models one after another.

    Args:
        device: Device to run on.
        runs: Number of timed runs.
        settings: Configs of the models; None for all published ones.
        side: Side of the matrices that are multiplied for comparison; None for the default of the device.
        shares: Also measure the fraction of time of each kind of operator.
    """
    side = side or MATRIX_SIDE[device.type]
    for name, path in one_config_per_model(published_configs() if settings is None else settings).items():
        yield _measure(name, load_config(path), device, runs, side, shares)


def batch_of(cfg: ConfigNode) -> int:
    """Return the views per batch: 8 images, or clips of 32 frames in total."""
    frames = cfg.DATA.NUM_FRAMES
    return IMAGES_PER_BATCH if frames == 1 else max(FRAMES_PER_BATCH // frames, 1)


def _measure(name: str, cfg: ConfigNode, device: torch.device, runs: int, side: int, shares: bool) -> list[Measurement]:
    views = batch_of(cfg)
    group, unit = f"{GROUP}, {name}", f"views/s, batch {views}"
    cases, macs = _cases(cfg, device, views, side)
    timings = time_interleaved(cases, runs, device)
    measurements = [Measurement(group, "MACs", macs / 1e9, "GMACs/view", 1)]
    dtypes = measured_dtypes(device)
    for dtype in dtypes:
        measurements.append(Measurement(group, f"{dtype}, forward", views / timings.median(dtype), unit, runs))
        share = _share(timings, dtype, 2 * macs * views, 2 * side**3)
        measurements.append(Measurement(group, f"{dtype}, {SHARE}", 100 * share, "%", runs))
    if BFLOAT16 in dtypes:
        measurements.append(Measurement(group, "speed-up of bfloat16", timings.ratio(FLOAT32, BFLOAT16), "x", runs))
    if shares:
        measurements += [
            Measurement(group, kind, 100 * part, "% of float32", 1) for kind, part in time_by_kind(cases[FLOAT32])
        ]
    return measurements


def _cases(
    cfg: ConfigNode, device: torch.device, views: int, side: int
) -> tuple[dict[str, Callable[[], object]], float]:
    """Return forward passes as in evaluation and matrix multiplications, and the MACs per view."""
    torch.manual_seed(cfg.RNG_SEED)
    model, batch = build_model(cfg).to(device).eval(), example_batch(cfg, views)
    cases: dict[str, Callable[[], object]] = {}
    macs = 0.0
    for dtype in measured_dtypes(device):
        forward = forward_in(cfg, device, dtype)
        inputs = forward.prepare(batch.clips)
        macs = macs or count_macs(model, inputs, views)
        cases[dtype] = partial(forward_case, model, forward, inputs)
        cases[f"{dtype} {MATMUL}"] = partial(
            torch.mm, *torch.randn(2, side, side, device=device).to(getattr(torch, dtype))
        )
    pack_linears(model)  # packed weights are used in float32 only
    return cases, macs


def _share(timings: Timings, dtype: str, flops: float, matmul_flops: float) -> float:
    return timings.ratio(f"{dtype} {MATMUL}", dtype) * flops / matmul_flops


def networks_table(measurements: Sequence[Measurement]) -> str:
    """Return a table with a row per model; shares refer to the matrix multiplication rate of the same dtype."""
    by_group: dict[str, dict[str, Measurement]] = {}
    for measurement in measurements:
        by_group.setdefault(measurement.group, {})[measurement.name] = measurement
    rows = []
    for group, named in by_group.items():
        row = [group.removeprefix(f"{GROUP}, "), named[f"{FLOAT32}, forward"].unit.rpartition(" ")[2]]
        row.append(f"{named['MACs'].value:.3g}")
        for dtype in DTYPES:
            if f"{dtype}, forward" in named:
                row += [f"{named[f'{dtype}, forward'].value:.3g}/s", f"{named[f'{dtype}, {SHARE}'].value:.0f} %"]
        if "speed-up of bfloat16" in named:
            row.append(f"{named['speed-up of bfloat16'].value:.1f} x")
        rows.append(row)
    return tabulate(rows, headers=COLUMNS, tablefmt="simple", disable_numparse=True)
