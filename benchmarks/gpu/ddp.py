"""Training step under DistributedDataParallel in one process started by torchrun: NCCL on a GPU, Gloo on a CPU.

torchrun runs this file as a module, with the file for the results as its argument.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.cases import Cases, Values
from benchmarks.gpu.machine import WARM_UP, can_run
from benchmarks.gpu.networks import batch_size, main_config, on_device
from benchmarks.gpu.processes import run_or_raise
from benchmarks.measure import time_interleaved
from benchmarks.network import BFLOAT16, FLOAT32, LEARNING_RATE, example_batch, train_steps
from slowfast.cli.setup import load_config
from slowfast.engine.step import TrainStep

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
_PLAIN, _DDP = "plain", "ddp"
_MAX_DIFFERENCE = 0.05  # relative to the largest gradient: bf16 sums with atomics are not deterministic


def measure(cases: Cases) -> None:
    """Run the part."""
    backend = "NCCL" if cases.on_gpu else "Gloo"
    cases.run(f"training step over {backend}", partial(_launch, cases.seconds_left()))


def _launch(seconds: float) -> Values:
    """Start torchrun and return the measurements of its process."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, *TORCHRUN, "-m", "benchmarks.gpu.ddp", str(result)]
        run_or_raise(command, seconds)
        values: dict[str, Any] = json.loads(result.read_text())
    return values


def compare_steps(device: torch.device, runs: int) -> Values:
    """Time a step with and without DistributedDataParallel, interleaved, in an initialized process group.

    Raises:
        RuntimeError: If their gradients differ.
    """
    cfg, on_gpu = load_config(main_config(device.type == "cuda")), device.type == "cuda"
    clips, dtype = batch_size(cfg, on_gpu), BFLOAT16 if can_run("bf16", device) else FLOAT32
    batch = on_device(example_batch(cfg, clips), device)
    steps = {name: train_steps(cfg, device, clips, False, (dtype,))[dtype] for name in (_PLAIN, _DDP)}
    wrapped = steps[_DDP]
    wrapped.model = DistributedDataParallel(wrapped.model, device_ids=[device] if on_gpu else None)
    calls = {name: partial(step, batch, 0, 0, LEARNING_RATE) for name, step in steps.items()}
    timings = time_interleaved(calls, runs, device, WARM_UP)
    difference = _gradient_difference(steps[_PLAIN], wrapped)
    if not difference <= _MAX_DIFFERENCE:
        raise RuntimeError(f"gradients differ from those without DistributedDataParallel: {difference:.3g}")
    return {
        "batch": clips,
        "dtype": dtype,
        "plain, ms": 1e3 * timings.median(_PLAIN),
        "DDP, ms": 1e3 * timings.median(_DDP),
        "DDP / plain": timings.ratio(_DDP, _PLAIN),
        "gradient difference": difference,
    }


def _gradient_difference(one: TrainStep, other: TrainStep) -> float:
    """Return the largest difference between gradients, relative to the largest gradient."""
    pairs = [(a.grad, b.grad) for a, b in zip(one.parameters, other.parameters, strict=True)]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    largest = max(float(a.abs().max()) for a, _ in known)
    return max(float((a - b).abs().max()) for a, b in known) / largest


def main(result: Path) -> None:
    """Join the process group of torchrun, measure, and write the results as JSON."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        values = compare_steps(device, runs=5 if on_gpu else 1)
    finally:
        dist.destroy_process_group()
    result.write_text(json.dumps(values))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
