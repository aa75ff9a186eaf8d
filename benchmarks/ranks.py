"""Benchmark of the overhead of a distributed run: gathering predictions and writing checkpoints.

python benchmarks/ranks.py                           # 100,000 predictions of 4 processes; MorphMLP-S and B
python benchmarks/ranks.py --predictions 10000 --processes 2 --configs K400/K400_MLP_S16x4
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate

from slowfast.config.defaults import merge_config
from slowfast.config.node import ConfigNode
from slowfast.engine.checkpoint_writer import CheckpointWriter
from slowfast.engine.evaluate import Ensemble
from slowfast.engine.tasks.classification import ClassificationEvaluator
from slowfast.models import build_model
from slowfast.utils.distributed import World, init_distributed, shut_down_distributed
from slowfast.visualization.results import VideoPrediction

CLASSES, VIEWS = 400, 4
RUNS = 3


def memory() -> float:
    """Return the peak memory of this process in MB."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1000


class TimedEvaluator(ClassificationEvaluator):
    """Evaluator that records when the predictions have arrived."""

    gathered = 0.0

    def compute(self, predictions: Sequence[VideoPrediction]) -> Any:
        """Compute the metrics."""
        self.gathered = time.perf_counter()
        return super().compute(predictions)


def fill(evaluator: ClassificationEvaluator, world: World, count: int) -> None:
    """Add this process's share of `count` predictions, none of which share objects."""
    for number in range(world.rank, count, world.size):
        name = f"class_{number % CLASSES:03d}/clip_{number:07d}_000012_000022.mp4"
        best = [((number + place) % CLASSES, 0.5 ** (place + 1) + 1e-9 * number) for place in range(5)]
        views = tuple((number + view) % CLASSES for view in range(VIEWS))
        prediction = VideoPrediction(number, name, number % CLASSES, best, views)
        evaluator._own.append((number, True, prediction))


def gather(environment: dict[str, str], count: int, results: Any) -> None:
    """Gather predictions and report rank, seconds until arrival, total seconds and memory in MB."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    world = init_distributed(0)
    evaluator = TimedEvaluator(world, CLASSES, Ensemble(), views=VIEWS)
    fill(evaluator, world, count)
    world.barrier()
    before, start = memory(), time.perf_counter()
    evaluator.evaluate()
    results.put((world.rank, evaluator.gathered - start, time.perf_counter() - start, memory() - before))
    world.barrier()
    shut_down_distributed(world)


def measure_gathering(processes: int, count: int) -> list[tuple[int, float, float, float]]:
    """Return the results of `gather` of all processes, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("spawn")
    results, started = context.Queue(), []
    for rank in range(processes):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        environment |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
        environment |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        started.append(context.Process(target=gather, args=(environment, count, results)))
        started[-1].start()
    found = sorted(results.get(timeout=600) for _ in started)
    for process in started:
        process.join()
    return found


def measure_checkpoint(cfg: ConfigNode, folder: Path) -> tuple[float, float, float]:
    """Return the size of a checkpoint in MB, and the seconds training pauses: with and without background writing."""
    model = build_model(cfg)
    optimizer = torch.optim.AdamW(model.parameters())
    for one in model.parameters():
        optimizer.state[one] = {"step": torch.tensor(1.0), "exp_avg": one.detach() + 1, "exp_avg_sq": one.detach() + 2}
    state = {"model_state": model.state_dict(), "optimizer_state": optimizer.state_dict(), "epoch": 1, "step": 0}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    path = folder / "checkpoint.pyth"
    for _ in range(RUNS):
        for in_background in (True, False):
            with CheckpointWriter(in_background) as writer:
                start = time.perf_counter()
                writer.save(path, state)
                seconds[in_background].append(time.perf_counter() - start)
    return path.stat().st_size / 1e6, median(seconds[True]), median(seconds[False])


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--configs", nargs="*", default=["K400/K400_MLP_S16x4", "K400/K400_MLP_B16x4"])
    parser.add_argument("--folder", help="folder for the checkpoints (default: that of temporary files)")
    chosen = parser.parse_args()
    rows: list[Any] = measure_gathering(chosen.processes, chosen.predictions)
    shown = [
        [rank, f"{first:.2f} s" if first > 0 else "-", f"{all_:.2f} s", f"{mb:.0f} MB"]
        for rank, first, all_, mb in rows
    ]
    print(tabulate(shown, ["rank", "gathered after", "metrics after", "additional memory"]))
    rows = []
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for name in chosen.configs:
            size, background, direct = measure_checkpoint(merge_config(name, []), Path(folder))
            rows.append([name, f"{size:.0f} MB", f"{background:.2f} s", f"{direct:.2f} s"])
    print(tabulate(rows, ["checkpoint", "size", "stops training, in background", "CHECKPOINT_ASYNC False"]))


if __name__ == "__main__":
    main()
