"""A task from a user's file: predict the speed of the object in a clip.

Index files have one number per line, `clips/0001.mp4 2.75`, and the model has one output (MODEL.NUM_CLASSES 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.labels import LabelFormat
from slowfast.datasets.types import Record
from slowfast.engine.tasks import TASK_REGISTRY, Evaluator, Task
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World
from slowfast.visualization.results import Metric, PredictionRow, Results

ERROR = Metric("mae", "mean error", unit="px/frame", digits=3, higher_is_better=False)


@dataclass(frozen=True)
class Speed:
    """Label and prediction of a clip, in pixels per frame."""

    name: str
    label: float
    prediction: float | None  # None for an unreadable clip


class SpeedEvaluator(Evaluator[Speed]):
    """Mean absolute error of the speed, over the readable clips."""

    def predict(self, record: Record, outputs: torch.Tensor | None) -> Speed:
        """Average the outputs (V, 1) of all views."""
        return Speed(record.name, record.label, None if outputs is None else float(outputs.mean()))

    def compute(self, predictions: Sequence[Speed]) -> Results:
        """Return the mean absolute error."""
        errors = [abs(one.prediction - one.label) for one in predictions if one.prediction is not None]
        error = float(np.mean(errors)) if errors else float("nan")
        return Results({ERROR.key: error}, [(ERROR.title, ERROR.text(error))])

    def row(self, prediction: Speed, class_names: Sequence[str]) -> PredictionRow:
        """Return the line of a clip in predictions.csv."""
        speed = "" if prediction.prediction is None else f"{prediction.prediction:.3f}"
        return PredictionRow(prediction.name, f"{prediction.label:g}", speed)


def parse_speed(text: str, num_classes: int | None) -> float:
    """Return the number at the end of an index line."""
    speed = float(text)
    if not 0 <= speed < 1e6:
        raise ValueError("not a speed")
    return speed


@TASK_REGISTRY.register()
class SpeedRegression(Task):
    """Regression of one number with the smooth L1 loss."""

    step_metrics = (ERROR,)
    metrics = (ERROR,)
    label_format = LabelFormat(parse_speed, "a speed from 0, in pixels per frame")

    @classmethod
    def check_config(cls, cfg: ConfigNode) -> None:
        """Check that the model has one output."""
        if cfg.MODEL.NUM_CLASSES != 1:
            raise ConfigError(f"MODEL.NUM_CLASSES ({cfg.MODEL.NUM_CLASSES}) must be 1 for MODEL.TASK SpeedRegression")

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the smooth L1 loss of outputs (N, 1) and speeds (N,)."""
        return F.smooth_l1_loss(outputs[:, 0].float(), targets)

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean absolute error of a batch."""
        return (outputs[:, 0].float() - targets).abs().mean()[None]

    def evaluator(self, cfg: ConfigNode, world: World, split: str = "test") -> SpeedEvaluator:
        """Return an evaluator of a split."""
        return SpeedEvaluator(world)
