"""Training loop: epochs of steps, validation, checkpoints, and resuming after an interruption."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, VAL, class_names, eval_loader, find_dataset, train_loader
from slowfast.datasets.clip_dataset import EvalDataset, TrainDataset
from slowfast.datasets.loader import UnreadableBatch
from slowfast.datasets.records import labels_of
from slowfast.datasets.types import Failure, FailureLedger, TrainBatch
from slowfast.engine import checkpoints
from slowfast.engine.averaging import ModelEMA, recompute_bn_stats
from slowfast.engine.checkpoints import CheckpointWriter
from slowfast.engine.distillation import AllHeads, Distillation
from slowfast.engine.execution import compile_model, run_on_main, same_everywhere, use_channels_last, wrap_model
from slowfast.engine.forward import ClipForward
from slowfast.engine.freezing import freeze_parameters
from slowfast.engine.meters import EarlyStop, EvalLoss, LossMonitor, TrainMeter, timed_iter
from slowfast.engine.optim import build_optimizer, build_schedule, lr_range
from slowfast.engine.profiler import StepProfiler
from slowfast.engine.run_report import TrainingReport
from slowfast.engine.state import RunState, load_start_weights
from slowfast.engine.step import TrainStep
from slowfast.engine.tasks import Evaluator, build_task
from slowfast.engine.test import evaluate_split
from slowfast.engine.trackers import Trackers
from slowfast.engine.trackers.run_images import ValidationMatrices
from slowfast.errors import CheckpointError, DataError, ReportedByRankZero
from slowfast.models import build_model
from slowfast.utils.distributed import World
from slowfast.utils.files import remove_leftovers
from slowfast.utils.logging import get_logger, warn_main
from slowfast.utils.machine import peak_memory_gib
from slowfast.utils.screen import Progress, phase
from slowfast.utils.signals import Stopped, StopSignal, nothing_to_save
from slowfast.visualization.first_batch import FirstBatch
from slowfast.visualization.metrics_log import METRICS, MetricsLog, Row
from slowfast.visualization.results import LOSS, write_failed

FAILED_TRAIN = "failed_train.csv"  # file in OUTPUT_DIR


class Trainer:
    """Training of the model of a config; writes checkpoints and metrics to OUTPUT_DIR.

    Args:
        cfg: Config of the run.
        world: Processes of the run.
        train_set: Training set.
        val_set: Validation set.
        trackers: Record the metrics; the caller closes them.
    """

    def __init__(
        self,
        cfg: ConfigNode,
        world: World,
        train_set: TrainDataset,
        val_set: EvalDataset,
        trackers: Trackers | None = None,
    ) -> None:
        self.cfg, self.world, self.output = cfg, world, Path(cfg.OUTPUT_DIR)
        self.loader = train_loader(cfg, world, train_set)
        self.val_loader = eval_loader(cfg, world, val_set)
        self.steps = self.loader.batches.steps
        labels = labels_of(train_set.records)
        torch.manual_seed(cfg.RNG_SEED)
        self.model = build_model(cfg).to(world.device)
        if cfg.MODEL.CHANNELS_LAST:
            use_channels_last(self.model)
        freeze_parameters(self.model, cfg.MODEL.FREEZE_BACKBONE, cfg.MODEL.FREEZE)
        self.ema = ModelEMA(self.model, cfg.MODEL.EMA_DECAY) if cfg.MODEL.EMA else None
        self.optimizer = build_optimizer(cfg, self.model)
        self.forward = ClipForward.from_config(cfg, world.device)
        self.task = build_task(cfg, labels=labels, model=self.model, device=world.device)
        distillation = Distillation.from_config(cfg, world.device) if cfg.DISTILL.ENABLE else None
        trained: torch.nn.Module = self.model if distillation is None else AllHeads(self.model)
        trained = wrap_model(compile_model(trained) if cfg.TRAIN.COMPILE else trained, world)
        self.step = TrainStep(cfg, world, trained, self.optimizer, self.forward, self.task, distillation)
        names = find_dataset(cfg, TRAIN).read_class_names()
        self.state = RunState(cfg, self.model, self.optimizer, self.step.scaler, self.ema, self.steps, names)
        self.trackers = trackers or Trackers()
        self.matrices = ValidationMatrices(self.trackers, partial(class_names, cfg, VAL))
        self.schedule, self.early_stop = build_schedule(cfg), EarlyStop.from_config(cfg)
        self.loss_monitor, self.writer = LossMonitor(), CheckpointWriter(cfg.TRAIN.CHECKPOINT_ASYNC)
        self.report = TrainingReport(cfg, self.task) if world.is_main else None
        self._saved = (0, 0)  # epoch and step of the last checkpoint, at first those of the initial weights

    def start(self) -> None:
        """Load the last checkpoint of this run, or the initial weights. Raises CheckpointError."""
        self.world.run_or_raise_everywhere(self._load)
        at = self.state.at
        same = same_everywhere(self.world, (at.epoch, at.step))
        self.world.run_or_raise_everywhere(lambda: self._check_start(same))
        self._saved = at.epoch, at.step

    def _load(self) -> None:
        if not (self.cfg.TRAIN.AUTO_RESUME and self.state.resume(self.output)):
            load_start_weights(self.cfg, self.model, self.state)
            if self.ema is not None and self.state.at.total(self.steps) == 0:
                self.ema.reset(self.model)

    def _check_start(self, same: bool) -> None:
        """Raise CheckpointError unless all processes start from the same position."""
        if not same:
            raise CheckpointError(f"{self.output}: the processes read different checkpoints. Check the shared disk")

    def run(self, stop: StopSignal) -> bool:
        """Train until the last epoch; return False if a signal stopped the training early."""
        self.stop, at = stop, self.state.at
        run_on_main(self.world, self._clean_up)
        self.log, self.progress = self._open_reports()
        record = self.trackers.image
        self.step.batch_hook = FirstBatch.from_config(self.cfg, self.world, TRAIN, record, self.task.captions)
        try:
            with self.writer, self.loader, self.val_loader:
                while at.epoch < self.cfg.SOLVER.MAX_EPOCH and not self.early_stop.is_due(at):
                    self._epoch()
                    self._end_epoch()
                    if self.world.any(stop.seen):
                        raise Interrupted
                self._finish_saving()
                if self.world.any(stop.seen):
                    raise Interrupted
        except (Interrupted, Stopped):
            if self._saved != (at.epoch, at.step):
                self._save()
            self._finish_saving()
            warn_main(self._stop_message())
            return False
        finally:
            self._close_reports()
        if self.early_stop.is_due(at) and self.task.best is not None and self.world.is_main:
            get_logger().info(self.early_stop.message(at, self.task.best))
        return True

    def _clean_up(self) -> None:
        """Remove the temporary files of earlier runs."""
        remove_leftovers(self.output)
        checkpoints.clean_up(self.output, self.cfg.TRAIN.CHECKPOINT_KEEP)

    def _stop_message(self) -> str:
        at, name = self.state.at, self.stop.name or "a signal in another process"
        if at.total(self.steps) == 0:
            return nothing_to_save(name)
        again = "" if self.cfg.TRAIN.AUTO_RESUME else " with TRAIN.AUTO_RESUME True"
        action = f"to resume at epoch {at.epoch + 1}, step {at.step}"
        if at.epoch == self.cfg.SOLVER.MAX_EPOCH or self.early_stop.is_due(at):
            action = "to test; the training is complete" if self.cfg.TEST.ENABLE else "again; the training is complete"
        return f"Received {name}, checkpoint saved. Run the same command{again} {action}"

    def _interruptible(self) -> AbstractContextManager[None]:
        """Return a context in which a signal stops the work immediately; the state must not change inside.

        With several processes the signal is checked after each step instead, as all must stop after the same one.
        """
        return self.stop.at_once() if self.world.size == 1 else nullcontext()

    def _epoch(self) -> None:
        """Train the remaining steps of an epoch.

        Raises:
            Interrupted: If a signal was received.
            DataError: If too many samples are unreadable.
        """
        at, meter = self.state.at, TrainMeter(self.world, self.task.step_metrics)
        ledger = FailureLedger(len(self.loader.dataset))
        self.loader.batches.start_at(at.epoch, at.step)
        for batch in timed_iter(self._batches(ledger), meter.wait):
            lr = self.schedule(at.epoch + at.step / self.steps)
            values = self.step(batch, at.epoch, at.step, lr)
            self.loss_monitor.add(values[0], at.epoch + 1, at.step + 1, lr, batch.names)
            if self.ema is not None:
                self.ema.update(self.model)
            meter.add(values)
            at.step += 1
            if at.total(self.steps) % self.cfg.LOG_PERIOD == 0 or at.step == self.steps:
                self._report_steps(meter.read(), lr)
            self.progress.advance(self.note)
            if self.profiler is not None:
                self.profiler.step()
        failures = self._gather_failures(ledger)
        self._stop_if_too_many(ledger)
        if failures and self.world.is_main:
            write_failed(failures, self.output / FAILED_TRAIN)

    def _batches(self, ledger: FailureLedger) -> Iterator[TrainBatch]:
        """Yield the remaining batches of the epoch as long as all processes can continue.

        Failures are added to the ledger. The processes communicate once per batch, so that all stop together.
        """
        left = iter(self.loader)
        for _ in range(len(self.loader)):
            batch: TrainBatch | None = None
            try:
                with self._interruptible():
                    batch = next(left)
                ledger.add(batch.failures)
            except UnreadableBatch as error:
                ledger.add(error.failures)
            too_many = batch is None or ledger.complaint(self.cfg.DATA.MAX_FAILED) is not None
            if self.world.any(too_many or self.stop.seen or self.writer.failed):
                unfilled = self.world.any(batch is None)
                self._gather_failures(ledger)
                self._stop_if_too_many(ledger, unfilled)
                raise Interrupted
            assert batch is not None
            yield batch

    def _gather_failures(self, ledger: FailureLedger) -> list[Failure]:
        """Add the failures of all processes to the ledger of every process and return them."""
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
        raise ReportedByRankZero(complaint)

    def _end_epoch(self) -> None:
        """Validate and save if this epoch is due; the last epoch always is."""
        cfg, at = self.cfg, self.state.at
        last = at.epoch + 1 == cfg.SOLVER.MAX_EPOCH
        if self.task.best is not None and (last or (at.epoch + 1) % cfg.TRAIN.EVAL_PERIOD == 0):
            self._validate()
        at.epoch, at.step = at.epoch + 1, 0
        if last or at.epoch % cfg.TRAIN.CHECKPOINT_PERIOD == 0 or self.early_stop.is_due(at):
            self._save()
        if self.report is not None:
            self.report.update()

    def _validate(self) -> None:
        """Evaluate the center views; save the weights as checkpoint_best.pyth if the metric is the best so far."""
        at, model = self.state.at, self.model if self.ema is None else self.ema.model
        ledger, evaluator = FailureLedger(len(self.val_loader.dataset)), self.task.evaluator(self.cfg, self.world, VAL)
        loss = EvalLoss(self.task.eval_loss, self.world.device)
        with self._interruptible():
            if self.cfg.BN.USE_PRECISE_STATS:
                with phase("recomputing batch-norm statistics"):
                    recompute_bn_stats(model, self._statistics_batches(), self.world)
            videos = itertools.takewhile(lambda _: not self.stop.seen, self.val_loader)
            pace = evaluate_split(self.cfg, self.world, model, videos, ledger, VAL, evaluator, loss=loss)
        if self.world.any(self.stop.seen):  # only here: processes differ in their number of videos
            raise Interrupted
        results, metric = evaluator.evaluate().values, self.task.metrics[0]
        mean_loss = loss.mean(self.world)
        values = {} if mean_loss is None else {LOSS.key: mean_loss}
        values |= {one.key: results[one.key] for one in self.task.metrics}
        videos_read = {"videos": len(evaluator.predictions), "failed": evaluator.failed}
        row = {"split": "val", "epoch": at.epoch + 1, "step": at.total(self.steps), **values, **videos_read}
        self._write(row | {"seconds": round(pace.data + pace.compute, 3)})
        is_best = metric.is_better(values[metric.key], at.best_metric)
        self._log_validation(values, evaluator, is_best)
        self.matrices.record(evaluator, last=at.epoch + 1 == self.cfg.SOLVER.MAX_EPOCH)
        if is_best:
            at.best_metric, at.best_epoch = values[metric.key], at.epoch + 1
            run_on_main(self.world, self._write_best)

    def _log_validation(self, values: dict[str, float], evaluator: Evaluator, is_best: bool) -> None:
        reported = [one for one in (*self.task.metrics, LOSS) if one.key in values]
        text = ", ".join(f"{one.title} {one.text(values[one.key])}" for one in reported)
        failed = f", {evaluator.failed} of them unreadable" if evaluator.failed else ""
        best = "; best so far" if is_best else ""
        videos = len(evaluator.predictions)
        get_logger().info(f"epoch {self.state.at.epoch + 1}: validation {text} of {videos} videos{failed}{best}")

    def _write_best(self) -> None:
        self.loss_monitor.check()
        self.writer.save(self.state.best_path(self.output), self.state.pack_best())

    def _statistics_batches(self) -> Iterator[torch.Tensor]:
        """Yield normalized batches of the current epoch, for precise batch-norm statistics."""
        self.loader.batches.start_at(self.state.at.epoch)
        count = self.cfg.BN.NUM_BATCHES_PRECISE
        for batch in itertools.islice(self._batches(FailureLedger(len(self.loader.dataset))), count):
            yield self.forward.prepare(batch.clips)

    def _save(self) -> None:
        self.loss_monitor.check()
        run_on_main(self.world, self._write_checkpoint)
        self._saved = self.state.at.epoch, self.state.at.step

    def _write_checkpoint(self) -> None:
        with phase("writing a checkpoint"):
            clean_up = partial(checkpoints.clean_up, self.output, self.cfg.TRAIN.CHECKPOINT_KEEP)
            self.writer.save(self.state.path(self.output), self.state.pack(), clean_up)

    def _finish_saving(self) -> None:
        """Wait until all checkpoints are complete. Raises DiskError in every process if one cannot be written."""
        with phase("writing a checkpoint"):
            run_on_main(self.world, self.writer.wait)

    def _report_steps(self, values: dict[str, float], lr: float) -> None:
        at = self.state.at
        values |= {"lr": lr} | lr_range(self.optimizer)
        values |= {"memory_gib": peak_memory_gib(self.world.device), "left_s": self.progress.left()}
        epoch = at.epoch + at.step / self.steps
        self._write({"split": "train", "epoch": round(epoch, 4), "step": at.total(self.steps), **values})
        metrics = "".join(f"{one.title} {one.text(values[one.key], digits=1)}  " for one in self.task.step_metrics)
        self.note = (
            f"epoch {epoch:.2f}  loss {values['loss']:.4f}  {metrics}lr {lr:.2e}  "
            f"data {values['data_s']:.3f} s  compute {values['compute_s']:.3f} s  {values['memory_gib']:.2f} GiB"
        )

    def _write(self, row: Row) -> None:
        if self.log is not None:
            self.log.write(row)
        self.trackers.write(row)

    def _open_reports(self) -> tuple[MetricsLog | None, Progress]:
        cfg, main, done = self.cfg, self.world.is_main, self.state.at.total(self.steps)
        self.note = ""
        progress = Progress("train", cfg.SOLVER.MAX_EPOCH * self.steps, "steps", main, cfg.LOG_PERIOD, done)
        log = MetricsLog(self.output / METRICS, done) if main else None
        self.profiler = StepProfiler.from_config(cfg, self.world, TRAIN)
        self.trackers.open((*self.task.step_metrics, *self.task.metrics), done)
        return log, progress

    def _close_reports(self) -> None:
        for report in (self.progress, self.log, self.profiler):
            if report is not None:
                report.close()


class Interrupted(Exception):
    """Raised after a signal; the state is that of the last complete step."""
