"""Testing: evaluates all views of each sample and writes the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, class_names, eval_loader, names_of_classes
from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.types import EvalSample, FailureLedger, Record
from slowfast.engine.cluster_evaluation import Counters, evaluate_on_cluster, on_cluster
from slowfast.engine.evaluate import EvaluationTime, evaluate
from slowfast.engine.forward import BatchHook, ClipForward, CompiledForTest
from slowfast.engine.meters import EvalLoss, StepProfiler
from slowfast.engine.state import network_to_test, sha256_of_tested
from slowfast.engine.tasks import Evaluator, Task, build_task
from slowfast.engine.trackers import Trackers
from slowfast.models.protocol import LoadedWeights, Network
from slowfast.utils.cpu import cpu_model
from slowfast.utils.distributed import World
from slowfast.utils.machine import peak_memory_gib
from slowfast.utils.screen import Progress, phase
from slowfast.utils.text import redact
from slowfast.visualization.first_batch import FirstBatch
from slowfast.visualization.results import (
    PREDICTIONS,
    TEST_RESULTS,
    Results,
    Tested,
    TestReport,
    write_failed,
    write_predictions,
    write_results,
)


def evaluate_split(
    cfg: ConfigNode,
    world: World,
    model: nn.Module,
    samples: Iterable[EvalSample],
    ledger: FailureLedger,
    split: str,
    evaluator: Evaluator,
    batch_hook: BatchHook | None = None,
    loss: EvalLoss | None = None,
    profiler: StepProfiler | None = None,
) -> EvaluationTime:
    """Run the model on this process's samples of a split.

    Args:
        cfg: Config of the run.
        world: Processes of the run.
        model: Model to evaluate.
        samples: Samples of this process.
        ledger: Collects the failures; in the main process, those of all processes.
        split: Split of the samples.
        evaluator: Receives the outputs; the caller calls its `evaluate`.
        batch_hook: Called with the inputs and labels of the first batch.
        loss: Receives the outputs, too; the caller calls its `mean`.
        profiler: Profiles the batches.

    Returns:
        The duration and throughput of this process.
    """
    forward = ClipForward.from_config(cfg, world.device, split)
    batch_clips = max(1, cfg.TEST.BATCH_SIZE // world.size)
    own = -(-(ledger.total - world.rank) // world.size)  # number of samples of this process, rounded up
    progress = Progress("test" if split == TEST else "validate", own, "videos", world.is_main, cfg.LOG_PERIOD)
    evaluator.reset()

    def process(record: Record, outputs: torch.Tensor | None) -> None:
        evaluator.process(record, outputs)
        if loss is not None:
            loss.add(record, outputs)

    try:
        pace = evaluate(model, samples, forward, process, batch_clips, ledger, progress, batch_hook, profiler)
    finally:
        progress.close()
        if profiler is not None:
            profiler.close()
    failures = world.gather(ledger.all)
    if world.is_main:
        ledger.add(failures)
    return pace


def class_names_of(cfg: ConfigNode, model: nn.Module) -> list[str]:
    """Return the class names of the dataset, else those of the checkpoint that the model was loaded from, or labels."""
    loaded = model.loaded if isinstance(model, Network) else None
    return names_of_classes(cfg, None if loaded is None else loaded.class_names)


class TestMode(Protocol):
    """Mode of a test that replaces the forward pass and adds results, such as event-driven inference."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module that replaces the model."""

    def build(self, cfg: ConfigNode, model: Network) -> nn.Module:
        """Build such a module on a node of a cluster; the method itself can be sent there."""

    def add(self, counters: Counters) -> None:
        """Add what such a module has counted."""

    def results(self, world: World) -> Results:
        """Return the results of the mode, gathered over the processes."""


@dataclass(frozen=True)
class TestOutcome:
    """Outcome of a test.

    Attributes:
        report: Metrics and facts about the run.
        evaluator: Evaluator with the predictions.
        files: Descriptions and paths of the files that the main process wrote.
    """

    __test__ = False  # not a pytest class

    report: TestReport
    evaluator: Evaluator
    files: dict[str, Path]


def test(
    cfg: ConfigNode,
    world: World,
    dataset: EvalDataset,
    begin: Callable[[], None] = lambda: None,
    mode: TestMode | None = None,
    trackers: Trackers | None = None,
) -> TestOutcome:
    """Test the weights loaded by `load_test_checkpoint` and write the results to OUTPUT_DIR.

    Args:
        cfg: Config of the run.
        world: Processes of the run.
        dataset: Test set.
        begin: Called once the model has its weights, before anything is written.
        mode: Replacement of the forward pass; None for the model itself.
        trackers: Record the metrics; the caller closes them.
    """
    trackers = trackers or Trackers()
    with phase("building the network and loading its weights"):
        network = world.run_or_raise_everywhere(lambda: network_to_test(cfg, world.device))
        tested = world.run_or_raise_everywhere(lambda: _tested(cfg, world, network.loaded))
    begin()
    model = network if mode is None else mode.wrap(network)
    if cfg.TEST.COMPILE:
        model = CompiledForTest(model)
    task = build_task(cfg)
    trackers.open(task.metrics)
    evaluator = task.evaluator(cfg, world, TEST)
    ledger, start = FailureLedger(len(dataset)), time.perf_counter()
    if on_cluster(cfg, world):
        _run_on_cluster(cfg, dataset, ledger, network.loaded, evaluator, mode)
    else:
        _run(cfg, world, model, dataset, ledger, task, evaluator, trackers)
    results = evaluator.evaluate()
    report = TestReport.from_run(
        results,
        videos=len(evaluator.predictions),
        failed=evaluator.failed,
        views=cfg.TEST.NUM_ENSEMBLE_VIEWS,
        crops=cfg.TEST.NUM_SPATIAL_CROPS,
        seconds=time.perf_counter() - start,
        peak_memory=int(peak_memory_gib(world.device) * 2**30),
        config_digest=cfg.digest(),
        tested=tested,
        extra=Results() if mode is None else mode.results(world),
    )
    trackers.results(results.values)
    return TestOutcome(report, evaluator, _write(cfg, report, evaluator, ledger) if world.is_main else {})


def _tested(cfg: ConfigNode, world: World, loaded: LoadedWeights | None) -> Tested:
    """Return the provenance of a test; only the main process, which writes it, reads the checkpoint for its SHA-256."""
    return Tested(
        model=cfg.MODEL.MODEL_NAME,
        checkpoint="random" if loaded is None else loaded.path,
        checkpoint_sha256=sha256_of_tested(cfg, loaded) if loaded is not None and world.is_main else None,
        checkpoint_choice=None if loaded is None else loaded.choice,
        checkpoint_epoch=None if loaded is None else loaded.epoch,
        dataset=cfg.TEST.DATASET,
        data=redact(cfg.DATA.PATH_TO_DATA_DIR),
        device=torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else cpu_model(),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
    )


def _run(
    cfg: ConfigNode,
    world: World,
    model: nn.Module,
    dataset: EvalDataset,
    ledger: FailureLedger,
    task: Task,
    evaluator: Evaluator,
    trackers: Trackers,
) -> None:
    batch_hook = FirstBatch.from_config(cfg, world, TEST, trackers.image, task.captions)
    with eval_loader(cfg, world, dataset) as loader:
        profiler = StepProfiler.from_config(cfg, world, TEST)
        evaluate_split(cfg, world, model, loader, ledger, TEST, evaluator, batch_hook, profiler=profiler)


def _run_on_cluster(
    cfg: ConfigNode,
    dataset: EvalDataset,
    ledger: FailureLedger,
    loaded: LoadedWeights | None,
    evaluator: Evaluator,
    mode: TestMode | None,
) -> None:
    progress = Progress("test", len(dataset), "videos", True, cfg.LOG_PERIOD)
    evaluator.reset()
    try:
        # The mode counts what the nodes have computed, as if this process had.
        replaced = () if mode is None else (mode.build, mode.add)
        evaluate_on_cluster(cfg, TEST, dataset.records, loaded, evaluator.process, ledger, progress, *replaced)
    finally:
        progress.close()


def _write(cfg: ConfigNode, report: TestReport, evaluator: Evaluator, ledger: FailureLedger) -> dict[str, Path]:
    """Write all result files; return those to report to the user."""
    output, names = Path(cfg.OUTPUT_DIR), class_names(cfg, TEST)
    files = {name: output / name for name in (TEST_RESULTS, PREDICTIONS)}
    write_results(report, files[TEST_RESULTS])
    write_predictions((evaluator.row(one, names) for one in evaluator.predictions), files[PREDICTIONS])
    files |= evaluator.write(cfg, names)
    write_failed(ledger.all, output / "failed.csv")
    if report.failed:
        files["failed.csv"] = output / "failed.csv"
    return files
