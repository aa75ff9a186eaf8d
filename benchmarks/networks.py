"""The networks of the published settings side by side: views a second in float32 and bfloat16.

Each is timed in turn with a product of square matrices, whose rate is what its own is a share of.
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

from benchmarks.measure import Figure, Timings, time_interleaved
from benchmarks.network import BFLOAT16, DTYPES, FLOAT32, MATRIX_SIDE, PRODUCT, example_batch, forward_case, forward_in
from slowfast.cli.model_table import published_configs, read_header
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.models.build import build_model, find_network
from slowfast.models.inputs import CLIPS, IMAGES
from slowfast.models.linear import count_macs, pack_linears

PRODUCTS, CONVOLUTIONS, DEPTHWISE, ATTENTION, MEMORY, NORMS, REST = KINDS = (
    "matrix products",
    "convolutions",
    "depthwise convolutions",
    "attention",
    "copies and element-wise sums",
    "normalization and activations",
    "other",
)
# What an operator's name holds -> its kind; the first that fits counts.
_BY_NAME = {
    "convolution": CONVOLUTIONS,
    "attention": ATTENTION,
    "linear": PRODUCTS,
    "addmm": PRODUCTS,
    "bmm": PRODUCTS,
    "::mm": PRODUCTS,
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
    """The share of a forward pass's time in each kind of work, largest first; kinds that take none are left out."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        forward()
    seconds: dict[str, float] = defaultdict(float)
    for event in record.key_averages(group_by_input_shape=True):
        seconds[kind_of(event.key, event.input_shapes)] += event.self_cpu_time_total
    whole = sum(seconds.values())
    shares = [(kind, spent / whole) for kind, spent in seconds.items() if spent > 0]
    return sorted(shares, key=lambda pair: -pair[1])


def kind_of(operator: str, shapes: Sequence[Any]) -> str:
    """The kind of an operator with inputs of these shapes; a convolution's second is (out, in / groups, height, ..)."""
    for part, kind in _BY_NAME.items():
        if part in operator:
            depthwise = kind == CONVOLUTIONS and len(shapes) > 1 and len(shapes[1]) > 2 and shapes[1][1] == 1
            return DEPTHWISE if depthwise else kind
    return REST


IMAGES_A_BATCH, FRAMES_A_BATCH = 8, 32
GROUP = "networks"
SHARE = "share of the matrix product's rate"
COLUMNS = ("network", "batch", "GMACs", "float32", "share", "bfloat16", "share", "speed-up")


def one_setting_a_network(paths: Sequence[Path]) -> dict[str, Path]:
    """One setting of each network of images or clips and each input, not those that differ in data or training."""
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
) -> Iterator[list[Figure]]:
    """The figures of one network after another; `side`: of the matrices; shares: also where a forward's time goes."""
    side = side or MATRIX_SIDE[device.type]
    for name, path in one_setting_a_network(published_configs() if settings is None else settings).items():
        yield _measure(name, load_config(path), device, runs, side, shares)


def batch_of(cfg: ConfigNode) -> int:
    """Views of a batch: 8 images, or clips of 32 frames together."""
    frames = cfg.DATA.NUM_FRAMES
    return IMAGES_A_BATCH if frames == 1 else max(FRAMES_A_BATCH // frames, 1)


def _measure(name: str, cfg: ConfigNode, device: torch.device, runs: int, side: int, shares: bool) -> list[Figure]:
    views = batch_of(cfg)
    group, unit = f"{GROUP}, {name}", f"views/s, batch {views}"
    cases, macs = _cases(cfg, device, views, side)
    timings = time_interleaved(cases, runs, device)
    figures = [Figure(group, "multiply-adds", macs / 1e9, "GMACs a view", 1)]
    for dtype in DTYPES:
        figures.append(Figure(group, f"{dtype}, forward", views / timings.median(dtype), unit, runs))
        share = _share(timings, dtype, 2 * macs * views, 2 * side**3)
        figures.append(Figure(group, f"{dtype}, {SHARE}", 100 * share, "%", runs))
    figures.append(Figure(group, "speed-up of bfloat16", timings.ratio(FLOAT32, BFLOAT16), "x", runs))
    if shares:
        figures += [Figure(group, kind, 100 * part, "% of float32", 1) for kind, part in time_by_kind(cases[FLOAT32])]
    return figures


def _cases(
    cfg: ConfigNode, device: torch.device, views: int, side: int
) -> tuple[dict[str, Callable[[], object]], float]:
    """What takes turns: forward passes as evaluation makes them, and products; and a view's multiply-adds."""
    torch.manual_seed(cfg.RNG_SEED)
    model, batch = build_model(cfg).to(device).eval(), example_batch(cfg, views)
    cases: dict[str, Callable[[], object]] = {}
    macs = 0.0
    for dtype in DTYPES:
        forward = forward_in(cfg, device, dtype)
        inputs = forward.prepare(batch.clips)
        macs = macs or count_macs(model, inputs, views)
        cases[dtype] = partial(forward_case, model, forward, inputs)
        cases[f"{dtype} {PRODUCT}"] = partial(
            torch.mm, *torch.randn(2, side, side, device=device).to(getattr(torch, dtype))
        )
    pack_linears(model)  # float32 takes the packed weights, autocast the plain ones
    return cases, macs


def _share(timings: Timings, dtype: str, flops: float, product_flops: float) -> float:
    return timings.ratio(f"{dtype} {PRODUCT}", dtype) * flops / product_flops


def networks_table(figures: Sequence[Figure]) -> str:
    """A row a network; shares are those of the matrix product's rate in the same type."""
    by_group: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        by_group.setdefault(figure.group, {})[figure.name] = figure
    rows = []
    for group, named in by_group.items():
        row = [group.removeprefix(f"{GROUP}, "), named[f"{FLOAT32}, forward"].unit.rpartition(" ")[2]]
        row.append(f"{named['multiply-adds'].value:.3g}")
        for dtype in DTYPES:
            row += [f"{named[f'{dtype}, forward'].value:.3g}/s", f"{named[f'{dtype}, {SHARE}'].value:.0f} %"]
        rows.append([*row, f"{named['speed-up of bfloat16'].value:.1f} x"])
    return tabulate(rows, headers=COLUMNS, tablefmt="simple", disable_numparse=True)
