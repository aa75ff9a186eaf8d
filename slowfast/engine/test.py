"""Testing: all views of every video, joined over the processes, reported once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, class_names, find_dataset, views_loader
from slowfast.datasets.clip_dataset import TestMedia
from slowfast.datasets.types import FailureLedger, TestMedium
from slowfast.engine.evaluate import Ensemble, Pace, VideoResult, evaluate
from slowfast.engine.forward import ClipForward, Show
from slowfast.engine.state import load_test_checkpoint
from slowfast.models import build_model
from slowfast.models.inputs import EVENTS
from slowfast.models.protocol import Network
from slowfast.utils.distributed import World
from slowfast.utils.heartbeat import phase
from slowfast.utils.machine import peak_memory_gib
from slowfast.utils.progress import Progress
from slowfast.visualization.metrics_log import Board
from slowfast.visualization.results import (
    BEST,
    TestReport,
    VideoPrediction,
    scores_path,
    summarize,
    write_failed,
    write_predictions,
    write_results,
    write_scores,
)
from slowfast.visualization.sheets import FirstBatch


def prediction_of(result: VideoResult) -> VideoPrediction:
    """A video's best classes."""
    best: list[tuple[int, float]] = []
    if result.scores is not None:
        scores, classes = result.scores.topk(min(BEST, len(result.scores)))
        best = list(zip(classes.tolist(), scores.tolist(), strict=True))
    logits = None if result.logits is None else result.logits.numpy()
    return VideoPrediction(result.record.index, result.record.name, result.record.label, best, result.answers, logits)


def evaluate_videos(
    cfg: ConfigNode,
    world: World,
    model: nn.Module,
    videos: Iterable[TestMedium],
    ledger: FailureLedger,
    split: str,
    show: Show | None = None,
) -> tuple[list[VideoPrediction], Pace]:
    """Predictions of all processes in the order of the index file, and this process's pace.

    `videos` are this process's; the main one's ledger ends up with the failures of all; `show` gets the first batch.
    """
    forward = ClipForward.from_config(cfg, world.device, split)
    ensemble = Ensemble(cfg.DATA.ENSEMBLE_METHOD, cfg.TEST.ENSEMBLE_ON)
    keep = ensemble.join if split == TEST and cfg.TEST.SAVE_RESULTS_PATH else None
    batch_clips = max(1, cfg.TEST.BATCH_SIZE // world.size)
    mine = -(-(ledger.total - world.rank) // world.size)  # this process's share, rounded up
    progress = Progress("test" if split == TEST else "validate", mine, "videos", world.is_main, cfg.LOG_PERIOD)
    try:
        results, pace = evaluate(model, videos, forward, ensemble, batch_clips, ledger, progress, show, keep)
    finally:
        progress.close()
    failures = world.gather(ledger.all)
    if world.is_main:
        ledger.add(failures)
    predictions = world.gather([prediction_of(result) for result in results])
    return sorted(predictions, key=lambda prediction: prediction.index), pace


def network_to_test(cfg: ConfigNode, device: torch.device) -> Network:
    """The network on the device with the weights that `load_test_checkpoint` finds, in evaluation mode."""
    torch.manual_seed(cfg.RNG_SEED)  # of the weights, where no checkpoint gives them
    model = build_model(cfg).to(device)
    load_test_checkpoint(cfg, model)
    return model.eval()


class TestMode(Protocol):
    """Another way to compute the logits of a test, which adds results of its own."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module that takes the place of the model."""

    def results(self, world: World) -> dict[str, Any]:
        """Return values for fields of the :class:`TestReport`, gathered over the processes."""


def test(
    cfg: ConfigNode,
    world: World,
    dataset: TestMedia,
    begin: Callable[[], None] = lambda: None,
    mode: TestMode | None = None,
) -> tuple[TestReport, list[VideoPrediction]]:
    """Test the weights that `load_test_checkpoint` finds, and write the results to OUTPUT_DIR.

    Args:
        cfg: Config of the run.
        world: Processes of the run.
        dataset: Test set.
        begin: Called once the network has its weights, before anything is written.
        mode: Another way to compute the logits.

    Returns:
        The metrics and the prediction of each video.
    """
    with phase("building the network and loading its weights"):
        model: nn.Module = world.agreed(lambda: network_to_test(cfg, world.device))
    begin()
    if mode is not None:
        model = mode.wrap(model)
    loader = views_loader(cfg, world, dataset)
    ledger = FailureLedger(len(dataset))
    board = Board.from_config(cfg, world)
    show = FirstBatch.from_config(cfg, world, TEST, board)
    start = time.perf_counter()
    try:
        with loader:
            predictions, _ = evaluate_videos(cfg, world, model, loader, ledger, TEST, show)
    finally:
        if board is not None:
            board.close()
    report = summarize(
        predictions,
        num_classes=cfg.MODEL.NUM_CLASSES,
        views=cfg.TEST.NUM_ENSEMBLE_VIEWS,
        crops=cfg.TEST.NUM_SPATIAL_CROPS,
        seconds=time.perf_counter() - start,
        peak_memory=int(peak_memory_gib(world.device) * 2**30),
        config_digest=hashlib.sha256(cfg.dump().encode()).hexdigest()[:16],
    )
    if find_dataset(cfg, TEST).input_kind == EVENTS:
        report = replace(report, top1_single=report.top1_view, top1_single_std=report.top1_view_std)
    if mode is not None:
        report = replace(report, **mode.results(world))
    if world.is_main:
        _write(cfg, report, predictions, ledger)
    return report, predictions


def _write(cfg: ConfigNode, report: TestReport, predictions: list[VideoPrediction], ledger: FailureLedger) -> None:
    output = Path(cfg.OUTPUT_DIR)
    write_results(report, output / "test_results.json")
    write_predictions(predictions, class_names(cfg, TEST), output / "predictions.csv")
    write_failed(ledger.all, output / "failed.csv")
    if (scores := scores_path(cfg)) is not None:
        write_scores(predictions, cfg.MODEL.NUM_CLASSES, scores, cfg.TEST.SAVE_RESULTS_PATH)
