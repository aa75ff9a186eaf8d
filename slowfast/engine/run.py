"""A run: train if TRAIN.ENABLE, then test if TEST.ENABLE; or event-driven inference on videos."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from slowfast.config.node import ConfigNode
from slowfast.config.validate import check_pretrain
from slowfast.datasets.build import TEST, TRAIN, VAL, class_names, train_batches, train_dataset, views_dataset
from slowfast.datasets.media_dataset import TestMedia, TrainMedia
from slowfast.engine import checkpoint
from slowfast.engine.distillation import check_teacher_weights
from slowfast.engine.test import test
from slowfast.engine.train import Trainer
from slowfast.errors import ConfigError
from slowfast.event_driven.mode import on_videos
from slowfast.event_driven.videos import run_on_videos
from slowfast.report.pictures import draw_test_pictures, draw_training_curves
from slowfast.report.tables import files_table, results_table
from slowfast.runtime.claim import claimed
from slowfast.runtime.distributed import World, gpus_to_launch_on, join, launch_on, leave, usable_gpus
from slowfast.runtime.logging import get_logger, start_logging, stop_logging
from slowfast.runtime.memory import keep_freed_memory
from slowfast.runtime.unfinished import write_whole


def run(cfg: ConfigNode) -> None:
    """Do what the frozen config says; raises UserError for what is the user's to mend.

    Indices are read before any network is built or worker started. A run stopped by SIGTERM saves and returns.
    Several GPUs get a process each; this one then does not return.
    """
    if gpus := gpus_to_launch_on(cfg.NUM_GPUS):
        _read_indices(cfg, World())  # a mistake in them is told here, once, with its own exit status
        launch_on(gpus)
    output = Path(cfg.OUTPUT_DIR)
    output.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    world = join(cfg.NUM_GPUS)
    with ExitStack() as at_end:
        if cfg.TRAIN.ENABLE:
            world.agreed(lambda: at_end.enter_context(claimed(output)) if world.is_main else None)
        start_logging(output, world.rank)
        at_end.callback(stop_logging)
        _announce(cfg, world, output)
        if on_videos(cfg):
            _say_where(run_on_videos(cfg, world.device))
        else:
            _train_and_test(cfg, world)
        leave(world)


def _train_and_test(cfg: ConfigNode, world: World) -> None:
    data = world.agreed(lambda: _read_indices(cfg, world))
    finished = True
    if data.train is not None and data.val is not None:
        finished = _train(cfg, world, data.train, data.val)
    if finished and data.test is not None:
        _test(cfg, world, data.test)


def _announce(cfg: ConfigNode, world: World, output: Path) -> None:
    if not world.is_main:
        return
    write_whole(output / "config.yaml", cfg.dump())
    for warning in cfg.merge_warnings:
        get_logger().warning(warning)
    where = (
        torch.cuda.get_device_name(world.device)
        if world.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    get_logger().info(f"{world.size} process{'es' if world.size > 1 else ''} on {where}; results in {output}")
    there = usable_gpus(max(cfg.NUM_GPUS, world.size))
    on_cpu = world.device.type == "cpu"
    if cfg.NUM_GPUS > there or (cfg.NUM_GPUS and on_cpu):
        enough = f" for {world.size} processes" if there else ""
        using = "the CPU" if on_cpu else there
        get_logger().warning(f"NUM_GPUS is {cfg.NUM_GPUS}, this machine has {there}{enough}: using {using}")


@dataclass(frozen=True)
class _Data:
    """The datasets of the parts that run."""

    train: TrainMedia | None = None
    val: TestMedia | None = None
    test: TestMedia | None = None


def _read_indices(cfg: ConfigNode, world: World) -> _Data:
    """Read every index file that is needed, and with it find every mistake that they can hold."""
    data = _Data(
        train=train_dataset(cfg) if cfg.TRAIN.ENABLE else None,
        val=views_dataset(cfg, VAL) if cfg.TRAIN.ENABLE else None,
        test=views_dataset(cfg, TEST) if cfg.TEST.ENABLE else None,
    )
    if data.train is not None:
        train_batches(cfg, world, data.train)
        if cfg.DATA_LOADER.DRAW_SAMPLES:
            class_names(cfg, TRAIN)
        last = checkpoint.find_last(cfg.OUTPUT_DIR)
        if last is not None and not cfg.TRAIN.AUTO_RESUME:
            raise ConfigError(
                f"TRAIN.AUTO_RESUME False: {last} is there, of a run that this one would be taken for; choose another "
                "OUTPUT_DIR or remove it"
            )
        check_pretrain(cfg, last is not None)
        check_teacher_weights(cfg)
    if data.test is not None:
        class_names(cfg, TEST)
    sizes = {"training": data.train, "validation": data.val, "test": data.test}
    get_logger().info(", ".join(f"{len(part)} {name}" for name, part in sizes.items() if part is not None) + " videos")
    return data


def _train(cfg: ConfigNode, world: World, train: TrainMedia, val: TestMedia) -> bool:
    finished = Trainer(cfg, world, train, val).run()
    if world.is_main:
        _say_where(draw_training_curves(Path(cfg.OUTPUT_DIR)))
    return finished


def _test(cfg: ConfigNode, world: World, dataset: TestMedia) -> None:
    report, predictions = test(cfg, world, dataset)
    if not world.is_main:
        return
    output = Path(cfg.OUTPUT_DIR)
    files = {name: output / name for name in ("test_results.json", "predictions.csv")}
    if report.failed:
        files["failed.csv"] = output / "failed.csv"
    files |= draw_test_pictures(output, dataset, predictions, class_names(cfg, TEST))
    get_logger().info("\n" + results_table(report))
    _say_where(files)


def _say_where(files: dict[str, Path]) -> None:
    if files:
        get_logger().info("\n" + files_table(files))
