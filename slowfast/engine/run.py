"""A run: train if TRAIN.ENABLE, then test if TEST.ENABLE; or event-driven inference on videos."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from slowfast.config.merge import on_videos
from slowfast.config.node import ConfigNode
from slowfast.config.validate import check_pretrain
from slowfast.datasets.build import TEST, TRAIN, VAL, class_names, train_batches, train_dataset, views_dataset
from slowfast.datasets.media_dataset import TestMedia, TrainMedia
from slowfast.engine import checkpoint
from slowfast.engine.distillation import check_teacher_weights
from slowfast.engine.run_folder import RunFolder
from slowfast.engine.test import test
from slowfast.engine.train import Trainer
from slowfast.errors import ConfigError
from slowfast.event_driven.clips import EventDrivenTest
from slowfast.event_driven.videos import run_on_videos
from slowfast.report.pictures import draw_test_pictures, draw_training_curves
from slowfast.report.scores import scores_path
from slowfast.report.tables import files_table, results_table
from slowfast.runtime.distributed import (
    LaunchedAs,
    World,
    gpus_to_launch_on,
    join,
    launch_on,
    leave,
    other_processes_named,
    response_timeout,
    usable_gpus,
)
from slowfast.runtime.first import nothing_to_save
from slowfast.runtime.heartbeat import phase
from slowfast.runtime.logging import get_logger, log_table, logging_started, start_logging, stop_logging
from slowfast.runtime.memory import keep_freed_memory
from slowfast.runtime.stop_signal import Stopped, StopSignal


def run(cfg: ConfigNode) -> None:
    """Do what the frozen config says.

    Indices are read before any network is built or worker started; nothing in OUTPUT_DIR changes before the network and
    its weights are there. A run that is stopped by SIGTERM or SIGHUP saves and returns. Several GPUs get a process
    each; this one then does not return.

    Raises:
        UserError: For everything that the user can correct.
    """
    if gpus := gpus_to_launch_on(cfg.NUM_GPUS):
        _read_indices(cfg, World())  # user errors in them are reported here, once, with their own exit status
        launch_on(gpus)
    with ExitStack() as at_end:
        if not logging_started():
            start_logging(LaunchedAs.from_environment().rank)
            at_end.callback(stop_logging)
        stop = at_end.enter_context(StopSignal())
        keep_freed_memory()
        timeout = response_timeout(cfg.DATA_LOADER.TIMEOUT)
        try:
            with stop.at_once():
                world = join(cfg.NUM_GPUS, timeout)
            with other_processes_named(world, timeout), RunFolder(cfg, world) as folder:
                _Run(cfg, world, folder, stop).do()
            leave(world)
        except Stopped as stopped:  # before anything was to save
            get_logger().warning(nothing_to_save(stopped.name))


class _Run:
    """Parts of a run, one after another. A signal ends those at once that have nothing to save."""

    def __init__(self, cfg: ConfigNode, world: World, folder: RunFolder, stop: StopSignal) -> None:
        self.cfg, self.world, self.folder, self.stop = cfg, world, folder, stop

    def do(self) -> None:
        """Train and test, or run on videos."""
        _announce(self.cfg, self.world, self.folder.path)
        if on_videos(self.cfg):
            with self.stop.at_once():
                _say_where(run_on_videos(self.cfg, self.world.device, self.folder.begin))
            return
        with self.stop.at_once(), phase("reading index files"):
            data = self.world.agreed(lambda: _read_indices(self.cfg, self.world))
        if data.train is not None and data.val is not None and not self._train(data.train, data.val):
            return
        if data.test is not None:
            try:
                with self.stop.at_once():
                    self._test(data.test)
            except Stopped as stopped:
                get_logger().warning(f"Received {stopped.name} during the test. Run the same command to test again")

    def _train(self, train: TrainMedia, val: TestMedia) -> bool:
        with self.stop.at_once(), phase("building the network and loading its weights"):
            trainer = Trainer(self.cfg, self.world, train, val)
            trainer.start()
            self.folder.begin()
        finished = trainer.run(self.stop)
        if self.world.is_main:
            try:
                with self.stop.at_once(finished), phase("drawing plots"):
                    _say_where(draw_training_curves(self.folder.path))
            except Stopped as stopped:
                get_logger().warning(f"Received {stopped.name} after the training, whose checkpoints are complete")
                return False
        return finished

    def _test(self, dataset: TestMedia) -> None:
        cfg, output = self.cfg, self.folder.path
        self.folder.wait_for_tests()
        mode = EventDrivenTest(cfg) if cfg.EVENT.ENABLE else None
        report, predictions = test(cfg, self.world, dataset, self._begin_test, mode)
        if not self.world.is_main:
            return
        files = {name: output / name for name in ("test_results.json", "predictions.csv")}
        if report.failed:
            files["failed.csv"] = output / "failed.csv"
        if (scores := scores_path(cfg)) is not None:
            files["all scores"] = scores
        log_table(results_table(report))
        try:
            with phase("drawing plots"):
                files |= draw_test_pictures(output, dataset, predictions, class_names(cfg, TEST))
        except Stopped as stopped:
            get_logger().warning(f"Received {stopped.name} while plots were drawn; the results are complete")
        _say_where(files)

    def _begin_test(self) -> None:
        if not self.cfg.TRAIN.ENABLE:
            self.folder.begin()


def _announce(cfg: ConfigNode, world: World, output: Path) -> None:
    if not world.is_main:
        return
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


def _say_where(files: dict[str, Path]) -> None:
    if files:
        log_table(files_table(files))
