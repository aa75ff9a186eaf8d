"""Run of a config: training (TRAIN.ENABLE), then testing (TEST.ENABLE), or event-driven inference on videos."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import yaml

from slowfast.cli.validate import check_pretrain
from slowfast.config.defaults import on_videos
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, TRAIN, VAL, class_names, eval_dataset, train_batches, train_dataset
from slowfast.datasets.clip_dataset import EvalDataset, TrainDataset
from slowfast.engine import checkpoints
from slowfast.engine.distillation import check_teacher_weights
from slowfast.engine.run_report import report_run
from slowfast.engine.test import test
from slowfast.engine.trackers import Trackers
from slowfast.engine.trackers.base import FAILED, FINISHED, STOPPED
from slowfast.engine.trackers.run_images import record_test
from slowfast.engine.train import Trainer
from slowfast.errors import ConfigError, DiskError, LostProcessError, system_reason
from slowfast.event_driven.clips import EventDrivenTest
from slowfast.event_driven.videos import run_on_videos
from slowfast.utils.distributed import (
    World,
    explain_lost_processes,
    init_distributed,
    processes_to_launch,
    response_timeout,
    shut_down_distributed,
    usable_gpus,
)
from slowfast.utils.files import MIB, atomic_write_text
from slowfast.utils.folder_lock import TESTING, TRAINING, FolderLock, exclusive_lock
from slowfast.utils.launch import LaunchEnvironment, Launcher
from slowfast.utils.logging import (
    get_logger,
    log_table,
    logging_started,
    open_log,
    start_logging,
    stop_logging,
    warn_main,
)
from slowfast.utils.machine import keep_freed_memory
from slowfast.utils.nodes import check_same_code, check_same_settings, check_shared_folder, wait_for_restart
from slowfast.utils.paths import UnreadableTextError, read_text_file
from slowfast.utils.screen import phase
from slowfast.utils.signals import Stopped, StopSignal, nothing_to_save
from slowfast.visualization.html_report.run_files import CONFIG, TEST_CONFIG, RunStatus
from slowfast.visualization.results import files_table, results_table
from slowfast.visualization.sheets import draw_training_curves

# Keys that may differ between nodes: hardware and locations of files.
_OF_A_NODE = {
    *("NUM_GPUS", "SHARD_ID", "OUTPUT_DIR", "DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX"),
    *("DATA_LOADER.NUM_WORKERS", "DATA_LOADER.PIN_MEMORY"),
}


class RunFolder:
    """Output folder of a run.

    While entered, it is locked against other runs that train there or, if this run only tests, against other tests.
    Entering raises ConfigError if it is locked.

    Args:
        cfg: Config of the run.
        world: Processes of the run; the first one writes.

    Attributes:
        begun: Whether the run has written something.
    """

    def __init__(self, cfg: ConfigNode, world: World) -> None:
        self.cfg, self.world, self.path, self.begun = cfg, world, Path(cfg.OUTPUT_DIR), False
        self._at_end = ExitStack()
        self._locked = TRAINING if cfg.TRAIN.ENABLE else TESTING

    def __enter__(self) -> RunFolder:
        self.world.run_or_raise_everywhere(self._lock)
        try:
            check_shared_folder(self.world, self.path)
        except BaseException:
            self._at_end.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._at_end.close()

    def _lock(self) -> None:
        if self.world.is_main:
            self._at_end.enter_context(exclusive_lock(self.path, self._locked))

    def begin(self) -> None:
        """Write the config and open the log. Call it after all checks that can reject the run.

        A run that only tests keeps the config of a training and writes config_test.yaml.
        """
        self.world.run_or_raise_everywhere(self._write)
        self.begun = True

    def _write(self) -> None:
        if not self.world.is_main:
            return
        name = TEST_CONFIG if not self.cfg.TRAIN.ENABLE and self._has_config_of_training() else CONFIG
        try:
            atomic_write_text(self.path / name, self.cfg.dump(), "OUTPUT_DIR")
            open_log(self.path)
        except DiskError:
            raise
        except OSError as error:
            raise ConfigError(f"OUTPUT_DIR {self.path} is not writable: {system_reason(error)}") from error

    def _has_config_of_training(self) -> bool:
        try:
            text = read_text_file(self.path / CONFIG, MIB)
            return bool(yaml.safe_load(text)["TRAIN"]["ENABLE"])
        except UnreadableTextError as error:
            return not error.missing
        except (ValueError, TypeError, KeyError, yaml.YAMLError):
            return True  # it was not written by a run, so it must not be replaced

    def wait_for_tests(self) -> None:
        """Before the test that follows a training, wait until other tests in the folder have finished."""
        if self._locked == TESTING:
            return
        lock = FolderLock(self.path, TESTING)
        self._at_end.callback(lock.release)
        reported = False
        with phase("waiting for another run that is testing in OUTPUT_DIR"):
            while self.world.any(self.world.is_main and not lock.acquire()):
                if not reported and self.world.is_main:
                    get_logger().info(f"waiting for another run that is testing in {self.path}")
                reported = True
                time.sleep(1)


def run(cfg: ConfigNode, processes: int = 0) -> None:
    """Train, test or run event-driven inference on videos, as configured by a frozen config.

    Index files are read before a model is built or a worker is started, and nothing in OUTPUT_DIR changes before the
    model and its weights are loaded. A run that receives SIGTERM or SIGHUP saves a checkpoint and returns.

    Args:
        cfg: The config.
        processes: Number of processes to start; 0 for one per GPU.

    Raises:
        UserError: For user errors.
        SystemExit: With the exit status of the processes, if some were started.
    """
    if count := processes_to_launch(cfg.NUM_GPUS, processes):
        _read_indices(cfg, World())  # report user errors once, with their exit status
        stop_logging()  # the processes log
        raise SystemExit(Launcher(count).run())
    with ExitStack() as at_end:
        if not logging_started():
            start_logging(LaunchEnvironment.from_environment().rank)
            at_end.callback(stop_logging)
        stop = at_end.enter_context(StopSignal())
        keep_freed_memory()
        timeout = response_timeout(cfg.DIST_TIMEOUT, cfg.DATA_LOADER.TIMEOUT)
        try:
            with stop.at_once():
                world = init_distributed(cfg.NUM_GPUS, timeout)
            with explain_lost_processes(world, timeout):
                _check_nodes(cfg, world)
                with RunFolder(cfg, world) as folder:
                    _Run(cfg, world, folder, stop).do()
            shut_down_distributed(world)
        except Stopped as stopped:  # there is nothing to save yet
            warn_main(nothing_to_save(stopped.name))
        except LostProcessError as error:
            wait_for_restart(lambda: stop.seen, partial(get_logger().warning, f"{error}. Waiting for torchrun"))
            raise


def _check_nodes(cfg: ConfigNode, world: World) -> None:
    """Raise UserError if the nodes of the run differ in code or config."""
    check_same_code(world)
    public = ConfigNode(yaml.safe_load(cfg.dump()))  # without secrets
    keys = {key: value for key, value in public.keys_by_path() if key not in _OF_A_NODE}
    check_same_settings(world, "their configs", keys, "Start the same command on all nodes")


class _Run:
    """Sequence of the parts of a run. A signal immediately ends parts that have nothing to save."""

    def __init__(self, cfg: ConfigNode, world: World, folder: RunFolder, stop: StopSignal) -> None:
        self.cfg, self.world, self.folder, self.stop = cfg, world, folder, stop
        self.trackers = Trackers.from_config(cfg, world)

    def do(self) -> None:
        """Train and test, or run on videos; pass the outcome to the report and the trackers."""
        outcome = FAILED
        try:
            outcome = FINISHED if self._do() else STOPPED
        except BaseException:
            if self.folder.begun:
                self._report(RunStatus.STOPPED)
            raise
        finally:
            self.trackers.close(outcome)

    def _do(self) -> bool:
        """Run all parts; return False if a signal stopped the run."""
        _announce(self.cfg, self.world, self.folder.path)
        if on_videos(self.cfg):
            with self.stop.at_once():
                _log_files(run_on_videos(self.cfg, self.world.device, self.folder.begin))
            return True
        with self.stop.at_once(), phase("reading index files"):
            data = self.world.run_or_raise_everywhere(lambda: _read_indices(self.cfg, self.world))
            counts = {name: len(part) for name, part in data.parts().items()}
            check_same_settings(self.world, "the number of videos", counts, "Use the same index files on all nodes")
        if data.train is not None and data.val is not None and not self._train(data.train, data.val):
            return False
        if data.test is not None:
            try:
                with self.stop.at_once():
                    self._test(data.test)
            except Stopped as stopped:
                warn_main(f"Received {stopped.name} during the test. Run the same command to test again")
                self._report(RunStatus.STOPPED)
                return False
        return True

    def _report(self, state: RunStatus) -> dict[str, Path]:
        return report_run(self.cfg, state) if self.world.is_main else {}

    def _train(self, train: TrainDataset, val: EvalDataset) -> bool:
        with self.stop.at_once(), phase("building the model and loading its weights"):
            trainer = Trainer(self.cfg, self.world, train, val, self.trackers)
            trainer.start()
            self.folder.begin()
        finished = trainer.run(self.stop)
        if self.world.is_main:
            try:
                with self.stop.at_once(finished), phase("drawing plots"):
                    files = draw_training_curves(self.folder.path, trainer.task.best)
                    ended = RunStatus.RUNNING if self.cfg.TEST.ENABLE else RunStatus.FINISHED
                    _log_files(files | self._report(ended if finished else RunStatus.STOPPED))
            except Stopped as stopped:
                warn_main(f"Received {stopped.name} after training; its checkpoints are complete")
                return False
        return finished

    def _test(self, dataset: EvalDataset) -> None:
        cfg = self.cfg
        self.folder.wait_for_tests()
        mode = EventDrivenTest(cfg) if cfg.EVENT.ENABLE else None
        outcome = test(cfg, self.world, dataset, self._begin_test, mode, self.trackers)
        if not self.world.is_main:
            return
        files = outcome.files
        log_table(results_table(outcome.report))
        try:
            with phase("drawing plots"):
                names = class_names(cfg, TEST)
                files |= outcome.evaluator.draw(cfg, dataset, names)
                record_test(self.trackers, cfg, dataset, outcome.evaluator, names, files)
        except Stopped as stopped:
            warn_main(f"Received {stopped.name} while plots were drawn; the results are complete")
        _log_files(files | self._report(RunStatus.FINISHED))

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
    available = usable_gpus(max(cfg.NUM_GPUS, world.size))
    on_cpu = world.device.type == "cpu"
    if cfg.NUM_GPUS > available or (cfg.NUM_GPUS and on_cpu):
        found = f"{available} are available for {world.size} processes" if available else "no GPU is available"
        using = "the CPU" if on_cpu else f"{available}"
        get_logger().warning(f"NUM_GPUS is {cfg.NUM_GPUS}, but {found}; running on {using}")


@dataclass(frozen=True)
class _Data:
    """Datasets of the parts of a run."""

    train: TrainDataset | None = None
    val: EvalDataset | None = None
    test: EvalDataset | None = None

    def parts(self) -> dict[str, TrainDataset | EvalDataset]:
        """Return the datasets by description."""
        named = {"training": self.train, "validation": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


def _read_indices(cfg: ConfigNode, world: World) -> _Data:
    """Read all index files of the run and run the checks that need them."""
    data = _Data(
        train=train_dataset(cfg) if cfg.TRAIN.ENABLE else None,
        val=eval_dataset(cfg, VAL) if cfg.TRAIN.ENABLE else None,
        test=eval_dataset(cfg, TEST) if cfg.TEST.ENABLE else None,
    )
    if data.train is not None:
        train_batches(cfg, world, data.train)
        class_names(cfg, TRAIN)  # class names are stored in checkpoints
        last = checkpoints.find_last(cfg.OUTPUT_DIR)
        if last is not None and not cfg.TRAIN.AUTO_RESUME:
            raise ConfigError(
                f"TRAIN.AUTO_RESUME is False, but OUTPUT_DIR contains {last}, a checkpoint of another run. Choose "
                "another OUTPUT_DIR or remove it"
            )
        check_pretrain(cfg, last is not None)
        check_teacher_weights(cfg)
    if data.test is not None:
        class_names(cfg, TEST)
    get_logger().info(", ".join(f"{len(part)} {name}" for name, part in data.parts().items()) + " videos")
    return data


def _log_files(files: dict[str, Path]) -> None:
    if files:
        log_table(files_table(files))
