"""End-to-end training with `tools/run_net.py`: clips/s, and the share of the time spent waiting for data."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.cases import CannotRunHere, Cases, Values
from benchmarks.gpu.networks import main_config
from benchmarks.gpu.processes import run_or_raise
from benchmarks.videos import link_videos, make_videos, on_folder
from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.cli.setup import load_config
from slowfast.config.parse import configs_folder
from slowfast.utils.cpu import usable_cores
from slowfast.visualization.metrics_log import Row, read_metrics

_DEMO = configs_folder() / "Demo" / "KINETICS_MORPHMLP.yaml"
_SMALL, _SMALL_BATCH = DemoSettings(train=8, val=8, test=8), 4  # for CPUs
_MAX_WORKERS = 16
_VIDEOS, _BATCH = 480, 16  # for MorphMLP-S16: links to one video, and videos per batch
_GPU_AUGMENTATION = "not implemented: clips are augmented in the worker processes of the loader"


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        config: Config file.
        overrides: KEY VALUE pairs.
        clips: Clips per step.
    """

    config: Path
    overrides: Sequence[object]
    clips: int


def measure(cases: Cases) -> None:
    """Run the part: the demo with one and with many worker processes, then MorphMLP-S16 on 256-line videos."""
    with tempfile.TemporaryDirectory() as folder:
        data = functools.cache(functools.partial(_demo_data, Path(folder) / "demo", cases.on_gpu))
        many = min(usable_cores(), _MAX_WORKERS)
        for workers in (1, many) if cases.on_gpu else (1,):
            name = f"demo_{workers}"
            run = functools.partial(_demo_run, data, workers, cases.on_gpu)
            cases.run(f"demo, workers: {workers}", functools.partial(_train, cases, Path(folder) / name, run))
        large = functools.partial(_large_run, Path(folder), many, cases.on_gpu)
        cases.run(
            f"MorphMLP-S16 on 10 s videos, workers: {many}",
            functools.partial(_train, cases, Path(folder) / "large", large),
        )
    cases.skip("augmentation on the GPU", _GPU_AUGMENTATION)


def _demo_data(folder: Path, on_gpu: bool) -> Path:
    build(folder, DemoSettings() if on_gpu else _SMALL, usable_cores() if on_gpu else 1)
    return folder


def _demo_run(data: Callable[[], Path], workers: int, on_gpu: bool) -> Run:
    folder, clips = data(), load_config(_DEMO).TRAIN.BATCH_SIZE if on_gpu else _SMALL_BATCH
    overrides = ["DATA.PATH_TO_DATA_DIR", folder, "DATA.PATH_PREFIX", folder, "DATA_LOADER.NUM_WORKERS", workers]
    overrides += ["SOLVER.MAX_EPOCH", 3, "LOG_PERIOD", 20 if on_gpu else 1, "TRAIN.EVAL_PERIOD", 3]
    overrides += ["TRAIN.BATCH_SIZE", clips]
    return Run(_DEMO, overrides, clips)


def _large_run(folder: Path, workers: int, on_gpu: bool) -> Run:
    """Prepare an epoch of 30 steps, with a validation on a single video."""
    if not on_gpu:
        raise CannotRunHere("needs a GPU")
    config = main_config(on_gpu)
    [video] = make_videos(folder / "made", count=1)
    cfg = on_folder(load_config(config), link_videos([video] * _VIDEOS, folder / "videos"))
    index = Path(cfg.DATA.PATH_TO_DATA_DIR) / "val.csv"
    index.write_text(index.read_text().splitlines(keepends=True)[0])
    overrides = ["DATA.PATH_TO_DATA_DIR", index.parent, "DATA.PATH_PREFIX", cfg.DATA.PATH_PREFIX, "LOG_PERIOD", 5]
    overrides += ["DATA_LOADER.NUM_WORKERS", workers, "TRAIN.BATCH_SIZE", _BATCH, "SOLVER.MAX_EPOCH", 1]
    overrides += ["SOLVER.WARMUP_EPOCHS", 0.0, "MORPH.PRETRAIN_PATH", ""]
    return Run(config, overrides, _BATCH * cfg.AUG.NUM_SAMPLE)


def _train(cases: Cases, output: Path, prepare: Callable[[], Run]) -> Values:
    """Train and return throughput and waiting time."""
    run = prepare()
    overrides = [*run.overrides, "NUM_GPUS", int(cases.on_gpu), "OUTPUT_DIR", output, "TEST.ENABLE", False]
    if cases.on_gpu:
        overrides += ["TRAIN.MIXED_PRECISION", True, "TRAIN.AMP_DTYPE", "bfloat16"]
    command = [sys.executable, "tools/run_net.py", "--cfg", run.config, *overrides]
    run_or_raise([str(word) for word in command], cases.seconds_left())
    return time_shares(read_metrics(output / "metrics.jsonl"), run.clips)


def time_shares(rows: Sequence[Row], clips: int) -> Values:
    """Return throughput and waiting time of a training run, ignoring the first third of its rows as warm-up.

    Args:
        rows: Rows of metrics.jsonl.
        clips: Clips per step.
    """
    steps = [row for row in rows if row["split"] == "train"]
    steps = steps[len(steps) // 3 :]
    data = sum(row["data_s"] for row in steps) / len(steps)
    compute = sum(row["compute_s"] for row in steps) / len(steps)
    return {
        "clips/step": clips,
        "clips/s": clips / (data + compute),
        "waiting for data, %": 100 * data / (data + compute),
        "data, ms/step": 1e3 * data,
        "compute, ms/step": 1e3 * compute,
        "GiB": steps[-1]["memory_gib"],
        "loss": steps[-1]["loss"],
    }
