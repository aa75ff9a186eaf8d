"""The training loop: epochs of steps, validation, checkpoints, and going on after an interruption."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, VAL, train_loader, views_loader
from slowfast.datasets.clip_dataset import TestMedia, TrainMedia
from slowfast.datasets.collate import UnreadableBatch
from slowfast.datasets.types import Failure, FailureLedger, TrainBatch
from slowfast.engine import checkpoints
from slowfast.engine.averaging import WeightAverage, recompute_statistics
from slowfast.engine.distillation import Distillation, HeadsApart
from slowfast.engine.forward import ClipForward
from slowfast.engine.freezing import freeze_parameters
from slowfast.engine.losses import class_weights
from slowfast.engine.meters import LossWatch, TrainMeter, timed
from slowfast.engine.optim import build_optimizer, build_schedule, lr_range
from slowfast.engine.parallel import run_on_main, same_everywhere, wrap_model
from slowfast.engine.state import RunState, load_start_weights
from slowfast.engine.step import TrainStep
from slowfast.engine.test import evaluate_videos
from slowfast.errors import CheckpointError, DataError, ToldElsewhere
from slowfast.models import build_model
from slowfast.utils.distributed import World
from slowfast.utils.files import remove_leftovers
from slowfast.utils.heartbeat import phase
from slowfast.utils.logging import get_logger, warn_main
from slowfast.utils.machine import peak_memory_gib
from slowfast.utils.progress import Progress
from slowfast.utils.signals import Stopped, StopSignal, nothing_to_save
from slowfast.visualization.metrics_log import Board, MetricsLog, Row
from slowfast.visualization.results import BEST, accuracy, write_failed
from slowfast.visualization.sheets import FirstBatch

FAILED_TRAIN = "failed_train.csv"  # in OUTPUT_DIR


class Trainer:
    """Trains the configured network and leaves its checkpoints and metrics in OUTPUT_DIR."""

    def __init__(self, cfg: ConfigNode, world: World, train_set: TrainMedia, val_set: TestMedia) -> None:
        self.cfg, self.world, self.output = cfg, world, Path(cfg.OUTPUT_DIR)
        self.loader = train_loader(cfg, world, train_set)
        self.val_loader = views_loader(cfg, world, val_set)
        self.steps = self.loader.batches.steps
        labels = [record.label for record in train_set.records]
        weights = class_weights(cfg.MODEL.CLASS_WEIGHTS, labels, cfg.MODEL.NUM_CLASSES)
        torch.manual_seed(cfg.RNG_SEED)
        self.model = build_model(cfg).to(world.device)
        freeze_parameters(self.model, cfg.MODEL.FREEZE_BACKBONE, cfg.MODEL.FREEZE)
        self.ema = WeightAverage(self.model, cfg.MODEL.EMA_DECAY) if cfg.MODEL.EMA else None
        self.optimizer = build_optimizer(cfg, self.model)
        self.forward = ClipForward.from_config(cfg, world.device)
        weights = None if weights is None else weights.to(world.device)
        distillation = Distillation.from_config(cfg, world.device) if cfg.DISTILL.ENABLE else None
        trained = wrap_model(self.model if distillation is None else HeadsApart(self.model), world)
        self.step = TrainStep(cfg, world, trained, self.optimizer, self.forward, weights, distillation)
        self.state = RunState(cfg, self.model, self.optimizer, self.step.scaler, self.ema, self.steps)
        self.schedule = build_schedule(cfg)
        self.watch = LossWatch()
        self._saved = (0, 0)  # epoch and step of the last checkpoint; before the first, of the weights to start from

    def start(self) -> None:
        """Load the last checkpoint of this run, or the weights to start from. Raises CheckpointError."""
        self.world.agreed(self._load)
        at = self.state.at
        same = same_everywhere(self.world, (at.epoch, at.step))
        self.world.agreed(lambda: self._check_start(same))
        self._saved = at.epoch, at.step

    def _load(self) -> None:
        if not (self.cfg.TRAIN.AUTO_RESUME and self.state.resume(self.output)):
            load_start_weights(self.cfg, self.model, self.state)
            if self.ema is not None and self.state.at.total(self.steps) == 0:
                self.ema.restart(self.model)

    def _check_start(self, same: bool) -> None:
        """Raise CheckpointError unless all processes start from the same position."""
        if not same:
            raise CheckpointError(f"{self.output}: the processes read different checkpoints. Check the shared disk")

    def run(self, stop: StopSignal) -> bool:
        """Train from where `start` left off to the last epoch; False if a signal came before."""
        self.stop, at = stop, self.state.at
        run_on_main(self.world, self._tidy)
        self.log, self.board, self.progress = self._open_reports()
        self.step.show = FirstBatch.from_config(self.cfg, self.world, TRAIN, self.board)
        try:
            with self.loader, self.val_loader:
                while at.epoch < self.cfg.SOLVER.MAX_EPOCH:
                    self._epoch()
                    self._end_epoch()
                    if self.world.any(stop.seen):
                        raise Interrupted
        except (Interrupted, Stopped):
            if self._saved != (at.epoch, at.step):
                self._save()
            warn_main(self._where_it_stopped())
            return False
        finally:
            self._close_reports()
        return True

    def _tidy(self) -> None:
        """Remove what earlier runs left unfinished."""
        remove_leftovers(self.output)
        checkpoints.tidy(self.output, self.cfg.TRAIN.CHECKPOINT_KEEP)

    def _where_it_stopped(self) -> str:
        at, name = self.state.at, self.stop.name or "a signal in another process"
        if at.total(self.steps) == 0:
            return nothing_to_save(name)
        again = "" if self.cfg.TRAIN.AUTO_RESUME else " with TRAIN.AUTO_RESUME True"
        goes_on = f"to resume at epoch {at.epoch + 1}, step {at.step}"
        if at.epoch == self.cfg.SOLVER.MAX_EPOCH:
            goes_on = "to test; the training is complete" if self.cfg.TEST.ENABLE else "again; the training is complete"
        return f"Received {name}, checkpoint saved. Run the same command{again} {goes_on}"

    def _at_once(self) -> AbstractContextManager[None]:
        """While entered, a signal ends the work at once: the state is not changed inside.

        With several processes the signal is looked at after each step instead, because all must end at the same one.
        """
        return self.stop.at_once() if self.world.size == 1 else nullcontext()

    def _epoch(self) -> None:
        """Do the steps of an epoch that are left.

        Raises:
            Interrupted: If a signal came.
            DataError: If too many samples are unreadable.
        """
        at, meter, ledger = self.state.at, TrainMeter(self.world), FailureLedger(len(self.loader.dataset))
        self.loader.batches.start_at(at.epoch, at.step)
        for batch in timed(self._batches(ledger), meter.wait):
            rate = self.schedule(at.epoch + at.step / self.steps)
            figures = self.step(batch, at.epoch, at.step, rate)
            self.watch.add(figures[0], at.epoch + 1, at.step + 1, rate, batch.names)
            if self.ema is not None:
                self.ema.update(self.model)
            meter.add(figures)
            at.step += 1
            if at.total(self.steps) % self.cfg.LOG_PERIOD == 0 or at.step == self.steps:
                self._report_steps(meter.read(), rate)
            self.progress.advance(self.note)
        failures = self._gather_failures(ledger)
        self._stop_if_too_many(ledger)
        if failures and self.world.is_main:
            write_failed(failures, self.output / FAILED_TRAIN)

    def _batches(self, ledger: FailureLedger) -> Iterator[TrainBatch]:
        """Yield the batches that are left of the epoch, as long as all processes can go on.

        Failures are added to the ledger. One exchange between processes per batch tells them that one of them cannot
        go on, so that all end together.
        """
        left = iter(self.loader)
        for _ in range(len(self.loader)):
            batch: TrainBatch | None = None
            try:
                with self._at_once():
                    batch = next(left)
                ledger.add(batch.failures)
            except UnreadableBatch as error:
                ledger.add(error.failures)
            too_many = batch is None or ledger.complaint(self.cfg.DATA.MAX_FAILED) is not None
            if self.world.any(too_many or self.stop.seen):
                unfilled = self.world.any(batch is None)
                self._gather_failures(ledger)
                self._stop_if_too_many(ledger, unfilled)
                raise Interrupted
            assert batch is not None
            yield batch

    def _gather_failures(self, ledger: FailureLedger) -> list[Failure]:
        """Add the failures of all processes to the ledger of each and return them."""
        ledger.add(self.world.gather(ledger.all), log=self.world.is_main)
        return ledger.all

    def _stop_if_too_many(self, ledger: FailureLedger, unfilled: bool = False) -> None:
        """Raise DataError in every process if too many samples are unreadable; the main one writes their list first.

        Args:
            ledger: Ledger with the failures of all processes.
            unfilled: Whether a batch could not be filled.
        """
        complaint = ledger.complaint(self.cfg.DATA.MAX_FAILED)
        if complaint is None and unfilled:
            complaint = f"Stopping: a batch could not be filled, {len(ledger.lost)} training videos are unreadable"
        if complaint is None:
            return
        if self.world.is_main:
            write_failed(ledger.all, self.output / FAILED_TRAIN)
            raise DataError(f"{complaint}. Full list: {self.output / FAILED_TRAIN}")
        raise ToldElsewhere(complaint)

    def _end_epoch(self) -> None:
        """Validate and save where the periods say so; both always after the last epoch. Pre-training has no classes."""
        cfg, at = self.cfg, self.state.at
        last = at.epoch + 1 == cfg.SOLVER.MAX_EPOCH
        labels_learned = self.step.pretext is None
        if labels_learned and (last or (at.epoch + 1) % cfg.TRAIN.EVAL_PERIOD == 0):
            self._validate()
        at.epoch, at.step = at.epoch + 1, 0
        if last or at.epoch % cfg.TRAIN.CHECKPOINT_PERIOD == 0:
            self._save()

    def _validate(self) -> None:
        """Top-1 of the centre views; the weights that reached the highest are kept as checkpoint_best.pyth."""
        at, model = self.state.at, self.model if self.ema is None else self.ema.model
        ledger = FailureLedger(len(self.val_loader.dataset))
        with self._at_once():
            if self.cfg.BN.USE_PRECISE_STATS:
                with phase("recomputing batch-norm statistics"):
                    recompute_statistics(model, self._statistics_batches(), self.world)
            videos = itertools.takewhile(lambda _: not self.stop.seen, self.val_loader)
            predictions, pace = evaluate_videos(self.cfg, self.world, model, videos, ledger, VAL)
        if self.world.any(self.stop.seen):  # agreed upon only now: processes have not as many videos
            raise Interrupted
        figures = {"top1": accuracy(predictions, 1), "top5": accuracy(predictions, BEST)}
        row = {"split": "val", "epoch": at.epoch + 1, "step": at.total(self.steps), **figures}
        row |= {"videos": len(predictions), "failed": len(ledger.lost), "seconds": round(pace.data + pace.compute, 3)}
        self._write(row)
        best = figures["top1"] > at.best_top1
        get_logger().info(
            f"epoch {at.epoch + 1}: validation top-1 {figures['top1']:.2f} %, top-5 {figures['top5']:.2f} % of "
            f"{len(predictions)} videos, {len(ledger.lost)} of them not readable{'; the best so far' if best else ''}"
        )
        if best:
            at.best_top1, at.best_epoch = figures["top1"], at.epoch + 1
            run_on_main(self.world, self._write_best)

    def _write_best(self) -> None:
        self.watch.check()
        checkpoints.save_checkpoint(self.state.best_path(self.output), self.state.weights())

    def _statistics_batches(self) -> Iterator[torch.Tensor]:
        """Normalized batches of the epoch that ends, for precise batch-norm statistics."""
        self.loader.batches.start_at(self.state.at.epoch)
        count = self.cfg.BN.NUM_BATCHES_PRECISE
        for batch in itertools.islice(self._batches(FailureLedger(len(self.loader.dataset))), count):
            yield self.forward.prepare(batch.clips)

    def _save(self) -> None:
        self.watch.check()
        run_on_main(self.world, self._write_checkpoint)
        self._saved = self.state.at.epoch, self.state.at.step

    def _write_checkpoint(self) -> None:
        with phase("writing a checkpoint"):
            checkpoints.save_checkpoint(self.state.path(self.output), self.state.pack())
            checkpoints.tidy(self.output, self.cfg.TRAIN.CHECKPOINT_KEEP)

    def _report_steps(self, figures: dict[str, float], rate: float) -> None:
        at = self.state.at
        figures |= {"lr": rate} | lr_range(self.optimizer)
        figures |= {"memory_gib": peak_memory_gib(self.world.device), "left_s": self.progress.left()}
        epoch = at.epoch + at.step / self.steps
        self._write({"split": "train", "epoch": round(epoch, 4), "step": at.total(self.steps), **figures})
        self.note = (
            f"epoch {epoch:.2f}  loss {figures['loss']:.4f}  top-1 {figures['top1']:.1f} %  lr {rate:.2e}  "
            f"data {figures['data_s']:.3f} s  compute {figures['compute_s']:.3f} s  {figures['memory_gib']:.2f} GiB"
        )

    def _write(self, row: Row) -> None:
        if self.log is not None:
            self.log.write(row)
        if self.board is not None:
            self.board.write(row)

    def _open_reports(self) -> tuple[MetricsLog | None, Board | None, Progress]:
        cfg, main, done = self.cfg, self.world.is_main, self.state.at.total(self.steps)
        self.note = ""
        progress = Progress("train", cfg.SOLVER.MAX_EPOCH * self.steps, "steps", main, cfg.LOG_PERIOD, done)
        log = MetricsLog(self.output / "metrics.jsonl", done) if main else None
        return log, Board.from_config(cfg, self.world), progress

    def _close_reports(self) -> None:
        for report in (self.progress, self.log, self.board):
            if report is not None:
                report.close()


class Interrupted(Exception):
    """A signal came; the state is that of the last whole step."""
