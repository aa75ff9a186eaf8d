"""Benchmark of the speed switches: torch.compile, channels-last weights and fused optimizers.

    python benchmarks/switches.py --cfg ImageNet/CONVMLP_S --batch 4 --runs 5 --compile

All cases take turns in one process, with random weights and inputs. With --pause, the measurement waits for a line on
the standard input after everything is compiled.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate
from torch import nn

from benchmarks.measure import time_interleaved
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.engine.forward import compile_model, normalize, use_channels_last
from slowfast.engine.optim import build_optimizer
from slowfast.models.build import build_model
from slowfast.models.layers import global_batch
from slowfast.models.linear import pack_linears
from slowfast.models.protocol import CLIPS
from slowfast.utils.machine import keep_freed_memory

CPU = torch.device("cpu")
TRAIN, TEST, OPTIMIZER = "forward + backward", "forward, evaluation", "optimizer step"
DEFAULT, CHANNELS_LAST, COMPILED, FUSED = "default", "channels-last weights", "compiled", "fused"


def example_inputs(cfg: ConfigNode, model: nn.Module, batch: int) -> torch.Tensor:
    """Return normalized random clips or images of the size for training."""
    side = cfg.DATA.TRAIN_CROP_SIZE
    frames = (cfg.DATA.NUM_FRAMES,) if getattr(model, "input_kind", CLIPS) == CLIPS else ()
    pixels = torch.randint(0, 256, (batch, *frames, side, side, 3), dtype=torch.uint8)
    return normalize(pixels, cfg.DATA.MEAN, cfg.DATA.STD)


def backward(model: nn.Module, inputs: torch.Tensor) -> None:
    """Compute the gradients of a training step."""
    model.train()
    model.zero_grad(set_to_none=True)
    with global_batch(model, len(inputs), range(len(inputs))):
        model(inputs).square().mean().backward()


@torch.inference_mode()
def forward(model: nn.Module, inputs: torch.Tensor) -> None:
    """Evaluate a batch."""
    model(inputs)


def build_cases(cfg: ConfigNode, batch: int, with_compile: bool) -> dict[tuple[str, str], Callable[[], object]]:
    """Return what is timed, by kind and switch; everything has been called once."""
    torch.manual_seed(0)
    model = build_model(cfg)
    inputs = example_inputs(cfg, model, batch)
    channels_last = copy.deepcopy(model)
    use_channels_last(channels_last)
    cases: dict[tuple[str, str], Callable[[], object]] = {}
    for name, network in ((DEFAULT, model), (CHANNELS_LAST, channels_last)):
        cases[TRAIN, name] = partial(backward, network, inputs)
        evaluated = copy.deepcopy(network).eval()
        pack_linears(evaluated)
        cases[TEST, name] = partial(forward, evaluated, inputs)
    if with_compile:
        cases[TRAIN, COMPILED] = partial(backward, compile_model(model), inputs)
        cases[TEST, COMPILED] = partial(forward, compile_model(copy.deepcopy(model).eval()), inputs)
    for name, value in ((DEFAULT, "never"), (FUSED, "always")):
        with_value = cfg.clone()
        with_value.defrost()
        with_value.SOLVER.FUSED = value
        trained = copy.deepcopy(model)
        for parameter in trained.parameters():
            parameter.grad = torch.randn_like(parameter)
        cases[OPTIMIZER, name] = build_optimizer(with_value, trained).step
    for (kind, switch), case in cases.items():
        start = time.perf_counter()
        case()
        print(f"{kind}, {switch}: first call {time.perf_counter() - start:.1f} s", flush=True)
    return cases


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, help="config")
    parser.add_argument("--batch", type=int, default=4, help="clips or images")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each case")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, which takes minutes")
    parser.add_argument("--pause", action="store_true", help="wait for a line on the standard input")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    options = parser.parse_args()
    keep_freed_memory()
    cfg = load_config(options.cfg, ["TRAIN.ENABLE", False, "NUM_GPUS", 0, *options.overrides])
    cases = build_cases(cfg, options.batch, options.compile)
    if options.pause:
        print("ready", flush=True)
        sys.stdin.readline()
    timings = time_interleaved({", ".join(key): case for key, case in cases.items()}, options.runs, CPU, warm_up=0)
    rows = []
    for kind, switch in sorted(cases):
        own, default = ", ".join((kind, switch)), ", ".join((kind, DEFAULT))
        rows.append((kind, switch, f"{1000 * timings.median(own):.1f}", f"{timings.ratio(default, own):.2f}"))
    print(tabulate(rows, headers=("", "", "median, ms", "speed-up"), disable_numparse=True), flush=True)


if __name__ == "__main__":
    main()
