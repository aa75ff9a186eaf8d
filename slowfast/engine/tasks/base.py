"""Tasks: training targets, losses, metrics and evaluation.

A task turns labels into targets, computes the loss and the metrics of a training step, and provides an evaluator. The
training loop, evaluation, reports and checkpoints use nothing else, so a new task needs no change to them.

Notation: N clips, V views of a sample, K outputs of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST
from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.index.labels import LABEL_FORMATS, ONE_CLASS, LabelFormat
from slowfast.datasets.types import Record
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World
from slowfast.utils.registry import ClassRegistry
from slowfast.visualization.first_batch import captions
from slowfast.visualization.results import Metric, PredictionRow, Results

CPU = torch.device("cpu")
Prediction = TypeVar("Prediction")
# Combines the outputs (V, K) of a sample's views into its class scores (K,).
Ensemble = Callable[[torch.Tensor], torch.Tensor]


class Evaluator(ABC, Generic[Prediction]):
    """Evaluator of a dataset: collects one prediction per sample and computes the metrics over all processes.

    Call `reset`, then `process` for each sample of this process, then `evaluate` in all processes.

    Args:
        world: Processes of the run, each of which evaluates a part of the dataset.

    Attributes:
        predictions: Predictions of all processes in the order of the index file; set by `evaluate`, in all processes
            or, without `compute_everywhere`, in the main one.
        failed: Number of unreadable samples; set together with `predictions`.
        compute_everywhere: Whether all processes call `compute`, because it exchanges values between them. False
            gathers the predictions in the main process only, which takes less time and memory.
    """

    compute_everywhere: ClassVar[bool] = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self.predictions: list[Prediction] = []
        self.failed = 0
        self._own: list[tuple[int, bool, Prediction]] = []  # index, is readable, prediction

    def process(self, record: Record, outputs: torch.Tensor | None) -> None:
        """Add a sample.

        Args:
            record: Sample of the index.
            outputs: Outputs of the model for its views, float32 (V, K) on the CPU; None if it is unreadable.
        """
        self._own.append((record.index, outputs is not None, self.predict(record, outputs)))

    def evaluate(self) -> Results:
        """Gather the predictions of all processes and return the metrics; every process gets the same."""
        gather = self.world.gather if self.compute_everywhere else self.world.gather_to_main
        gathered = sorted(gather(self._own), key=lambda entry: entry[0])
        self.predictions = [prediction for _, _, prediction in gathered]
        self.failed = sum(not readable for _, readable, _ in gathered)
        if self.compute_everywhere:
            return self.compute(self.predictions)
        return self.world.from_main(self.compute(self.predictions) if self.world.is_main else Results())

    @abstractmethod
    def predict(self, record: Record, outputs: torch.Tensor | None) -> Prediction:
        """Return the prediction for a sample with everything that `compute` needs; it must be picklable."""

    @abstractmethod
    def compute(self, predictions: Sequence[Prediction]) -> Results:
        """Compute the metrics of all predictions; `Results.values` contains at least those of `Task.metrics`."""

    @abstractmethod
    def row(self, prediction: Prediction, class_names: Sequence[str]) -> PredictionRow:
        """Return the line of a prediction in predictions.csv."""

    def write(self, cfg: ConfigNode, class_names: Sequence[str]) -> dict[str, Path]:
        """Write additional output files of a test to OUTPUT_DIR; return their descriptions and paths."""
        return {}

    def draw(self, cfg: ConfigNode, dataset: EvalDataset, class_names: Sequence[str]) -> dict[str, Path]:
        """Draw plots of a test to OUTPUT_DIR; return their descriptions and paths."""
        return {}


class Task(ABC):
    """Base class of tasks, with defaults for everything that a subclass does not override.

    Attributes:
        step_metrics: Metrics of a training step besides the loss, for the progress line and metrics.jsonl.
        metrics: Metrics of a validation. The first one selects the best checkpoint and is plotted. A task without any
            is not validated.
        label_format: Format of the labels in index files of paths and labels.
        distillable: True if the outputs are logits of exclusive classes, as knowledge distillation needs.
    """

    step_metrics: ClassVar[tuple[Metric, ...]] = ()
    metrics: ClassVar[tuple[Metric, ...]] = ()
    label_format: ClassVar[LabelFormat] = ONE_CLASS
    distillable: ClassVar[bool] = False

    @classmethod
    def from_config(
        cls,
        cfg: ConfigNode,
        *,
        labels: Sequence[Any] = (),
        model: nn.Module | None = None,
        device: torch.device = CPU,
    ) -> Task:
        """Build the task of a config.

        Args:
            cfg: Config of the run.
            labels: Labels of the training set, for class weights; empty for evaluation.
            model: Model to train, not wrapped; None for evaluation.
            device: Device of the loss.
        """
        return cls()

    @classmethod  # noqa: B027 - an optional hook
    def check_config(cls, cfg: ConfigNode) -> None:
        """Raise ConfigError for a config that the task cannot be used with. Called before anything is built."""

    @property
    def best(self) -> Metric | None:
        """Metric that selects the best checkpoint; None for a task without validation."""
        return self.metrics[0] if self.metrics else None

    @classmethod
    def reported_metrics(cls) -> tuple[Metric, ...]:
        """Return all metrics of validations and training steps; the first one selects the best checkpoint."""
        return tuple(dict.fromkeys((*cls.metrics, *cls.step_metrics)))

    def targets(self, inputs: Any, labels: torch.Tensor, rng: np.random.Generator) -> tuple[Any, torch.Tensor]:
        """Return the inputs of the model and the targets of its outputs.

        Args:
            inputs: Normalized clips (N, 3, T, H, W), images (N, 3, H, W), or a dict of events; may be changed in place.
            labels: Labels as `stack_labels` returns them, on the device.
            rng: Source of all random numbers, such as those of MixUp.
        """
        return inputs, labels

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss, averaged over the clips, in float32 even under autocast."""

    def eval_loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
        """Return the validation loss, computed from plain labels without MixUp and label smoothing.

        By default, the loss of the labels themselves; None, for no loss in reports, if `targets` converts them.

        Args:
            outputs: Outputs of the model for the views of one sample, float32 (V, K).
            labels: Label of each view, as `stack_labels` returns them, on the same device.
        """
        return self.loss(outputs, labels) if type(self).targets is Task.targets else None

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the values of `step_metrics` as a tensor on the device; they are averaged over steps and processes."""
        return outputs.new_empty(0, dtype=torch.float32)

    def evaluator(self, cfg: ConfigNode, world: World, split: str = TEST) -> Evaluator:
        """Return a new evaluator of a split."""
        raise ConfigError(f"MODEL.TASK {cfg.MODEL.TASK} has no evaluation. Set TEST.ENABLE False")

    @classmethod
    def ensemble(cls, cfg: ConfigNode) -> Ensemble:
        """Return the function that combines the outputs of a sample's views into class scores in [0, 1]."""
        raise ConfigError(f"MODEL.TASK {cfg.MODEL.TASK} has no class scores")

    def shown(self, labels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the targets or labels that the captions of the first training batch describe."""
        return targets

    def captions(self, targets: torch.Tensor, class_names: Sequence[str], count: int) -> list[str]:
        """Return a caption for each of the first `count` samples of a batch.

        Args:
            targets: Result of `shown` in training, labels as `stack_labels` returns them in evaluation.
            class_names: Names of all classes.
            count: Number of captions at most.
        """
        return captions(targets, class_names, count)


class TaskRegistry(ClassRegistry[Task]):
    """Registry of tasks by the name in MODEL.TASK."""

    def _do_register(self, name: str, obj: Any) -> None:
        super()._do_register(name, obj)
        LABEL_FORMATS[name] = obj.label_format


TASK_REGISTRY = TaskRegistry("TASK", Task)  # type: ignore[type-abstract]
