"""The training loop: epochs of steps, validation, checkpoints, and going on after an interruption."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, VAL, train_loader, views_loader
from slowfast.datasets.failures import FailureLedger
from slowfast.datasets.media_dataset import TestMedia, TrainMedia
from slowfast.datasets.types import Failure
from slowfast.engine import checkpoint
from slowfast.engine.class_weights import class_weights
from slowfast.engine.distillation import Distillation, HeadsApart
from slowfast.engine.ema import WeightAverage
from slowfast.engine.forward import ClipForward
from slowfast.engine.freeze import freeze_backbone
from slowfast.engine.loss_watch import LossWatch
from slowfast.engine.meters import TrainMeter
from slowfast.engine.optimizer import build_optimizer
from slowfast.engine.precise_bn import recompute_statistics
from slowfast.engine.run_state import RunState
from slowfast.engine.schedule import build_schedule
from slowfast.engine.start_weights import load_start_weights
from slowfast.engine.step import TrainStep
from slowfast.engine.test import evaluate_videos
from slowfast.engine.waiting import timed
from slowfast.errors import CheckpointError, DataError
from slowfast.models import build_model
from slowfast.report.batch_picture import FirstBatch
from slowfast.report.metrics_log import MetricsLog, Row
from slowfast.report.results import BEST, accuracy, write_failed
from slowfast.report.tensorboard import Board
from slowfast.runtime.distributed import World
from slowfast.runtime.logging import get_logger
from slowfast.runtime.memory import peak_memory_gib
from slowfast.runtime.progress import Progress
from slowfast.runtime.stop_signal import StopSignal
from slowfast.runtime.unfinished import remove_leftovers


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
        if cfg.MODEL.FREEZE_BACKBONE:
            freeze_backbone(self.model)
        self.ema = WeightAverage(self.model, cfg.MODEL.EMA_DECAY) if cfg.MODEL.EMA else None
        self.optimizer = build_optimizer(cfg, self.model)
        self.forward = ClipForward.from_config(cfg, world.device)
        weights = None if weights is None else weights.to(world.device)
        distillation = Distillation.from_config(cfg, world.device) if cfg.DISTILL.ENABLE else None
        trained = _parallel(self.model if distillation is None else HeadsApart(self.model), world)
        self.step = TrainStep(cfg, world, trained, self.optimizer, self.forward, weights, distillation)
        self.state = RunState(cfg, self.model, self.optimizer, self.step.scaler, self.ema, self.steps)
        self.schedule = build_schedule(cfg)
        self.watch = LossWatch()

    def run(self) -> bool:
        """Train from where the last checkpoint left off to the last epoch; False when SIGTERM came before."""
        self.world.agreed(self._start)
        at = self.state.at
        starts = set(self.world.gather([(at.epoch, at.step)]))
        self.world.agreed(lambda: self._tidy(starts))
        self.log, self.board, self.progress = self._open_reports()
        self.step.show = FirstBatch.from_config(self.cfg, self.world, TRAIN, self.board)
        try:
            with StopSignal() as self.stop:
                while at.epoch < self.cfg.SOLVER.MAX_EPOCH:
                    self._epoch()
                    self._end_epoch()
        except Interrupted:
            self._save()
            again = "" if self.cfg.TRAIN.AUTO_RESUME else " with TRAIN.AUTO_RESUME True"
            get_logger().warning(
                f"stopped by SIGTERM; the same command{again} goes on from epoch {at.epoch + 1}, step {at.step}"
            )
            return False
        finally:
            self._close_reports()
        return True

    def _start(self) -> None:
        """The last checkpoint of this run, or the weights to start from."""
        if not (self.cfg.TRAIN.AUTO_RESUME and self.state.resume(self.output)):
            load_start_weights(self.cfg, self.model, self.state)
            if self.ema is not None and self.state.at.total(self.steps) == 0:
                self.ema.restart(self.model)

    def _tidy(self, starts: set[tuple[int, int]]) -> None:
        """Remove what earlier runs left unfinished; `starts` are the positions that the processes start from."""
        if len(starts) > 1:
            raise CheckpointError(f"{self.output}: the processes read different checkpoints. Check the shared disk")
        if self.world.is_main:
            remove_leftovers(self.output)
            checkpoint.tidy(self.output, self.cfg.TRAIN.CHECKPOINT_KEEP)

    def _epoch(self) -> None:
        """The steps of an epoch that are still to do; raises Interrupted after the step in which SIGTERM came."""
        at, meter, ledger = self.state.at, TrainMeter(self.world), FailureLedger(len(self.loader.dataset))
        self.loader.batches.start_at(at.epoch, at.step)
        with self.loader.watched():
            for batch in timed(self.loader, meter.wait):
                self._note(ledger, batch.failures)
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
                if self.world.any(self.stop.seen):
                    raise Interrupted
        failures = self.world.gather(ledger.all)
        self.world.agreed(lambda: self._note(ledger, failures if self.world.is_main else [], of_all=True))
        if ledger.all and self.world.is_main:
            write_failed(ledger.all, self.output / "failed_train.csv")

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
        if self.cfg.BN.USE_PRECISE_STATS:
            recompute_statistics(model, self._statistics_batches(), self.world)
        ledger = FailureLedger(len(self.val_loader.dataset))
        with self.val_loader.watched():
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
            self.world.agreed(self._write_best)

    def _write_best(self) -> None:
        if self.world.is_main:
            self.watch.check()
            checkpoint.save_checkpoint(self.state.best_path(self.output), self.state.weights())

    def _statistics_batches(self) -> Iterator[torch.Tensor]:
        """Normalized batches of the epoch that ends, for precise batch-norm statistics."""
        self.loader.batches.start_at(self.state.at.epoch)
        count = self.cfg.BN.NUM_BATCHES_PRECISE
        with self.loader.watched():
            for batch in itertools.islice(self.loader, count):
                if self.world.any(self.stop.seen):
                    raise Interrupted
                yield self.forward.prepare(batch.clips)

    def _note(self, ledger: FailureLedger, failures: Sequence[Failure], of_all: bool = False) -> None:
        """of_all: the main process's ledger has those of all processes."""
        ledger.add(failures)
        complaint = ledger.complaint(self.cfg.DATA.MAX_FAILED)
        if complaint is not None:
            path = self.output / f"failed_train{f'_{self.world.rank}' if self.world.rank else ''}.csv"
            write_failed(ledger.all, path)
            whose = "" if of_all or self.world.size == 1 else " of one process"
            raise DataError(f"{complaint} (the whole list{whose}: {path})")

    def _save(self) -> None:
        self.watch.check()
        self.world.agreed(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        if self.world.is_main:
            checkpoint.save_checkpoint(self.state.path(self.output), self.state.pack())
            checkpoint.tidy(self.output, self.cfg.TRAIN.CHECKPOINT_KEEP)

    def _report_steps(self, figures: dict[str, float], rate: float) -> None:
        at = self.state.at
        figures |= {"lr": rate, "memory_gib": peak_memory_gib(self.world.device), "left_s": self.progress.left()}
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
    """SIGTERM came; the state is that of the last whole step."""


def _parallel(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[world.device] if world.device.type == "cuda" else None)
