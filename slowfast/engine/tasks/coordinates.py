"""Pre-training of Event2Vec v3: predict the coordinates of masked events (arXiv 2504.15371 v3).

Notation: M masked events. Coordinates are p, y and x in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.tasks.base import CPU
from slowfast.engine.tasks.pretraining import Pretext, Pretraining, required_pretext
from slowfast.visualization.results import Metric

NEAR = 3  # maximum distance in y and x, in pixels, of a near prediction


class CoordinatePretraining(Pretraining):
    """Pre-training on the coordinates of masked events; labels are not used and there is no validation.

    Args:
        pretext: Function of the inputs that returns corrupted inputs and the coordinates (M, 3) of masked events.
        sensor_size: Height and width of the sensor in pixels, for the metrics.
    """

    step_metrics = (
        Metric("polarity", "polarity"),
        Metric("error_y", "error in y", "pixels", higher_is_better=False),
        Metric("error_x", "error in x", "pixels", higher_is_better=False),
        Metric("exact", "exact"),
        Metric("near", f"within {NEAR} pixels"),
    )

    def __init__(self, pretext: Pretext, sensor_size: tuple[int, int]) -> None:
        super().__init__(pretext, squared_errors)
        self.sensor_size = sensor_size

    @classmethod
    def from_config(
        cls,
        cfg: ConfigNode,
        *,
        labels: Sequence[Any] = (),
        model: nn.Module | None = None,
        device: torch.device = CPU,
    ) -> CoordinatePretraining:
        """Build from the model to train and DVS.SENSOR_SIZE.

        Raises:
            ConfigError: If the model is not set up for pre-training.
        """
        return cls(required_pretext(cfg, model), (cfg.DVS.SENSOR_SIZE[0], cfg.DVS.SENSOR_SIZE[1]))

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the accuracy of polarities, the mean errors, and the percentages of exact and of near predictions."""
        height, width = self.sensor_size
        sizes = outputs.new_tensor([2, height, width], dtype=torch.float32) - 1
        predicted, wanted = (((values.float() + 1) / 2 * sizes).round() for values in (outputs, targets))
        polarity, y, x = (predicted - wanted).abs().unbind(1)
        right = polarity == 0
        shares = [right, right & (y == 0) & (x == 0), right & (y <= NEAR) & (x <= NEAR)]
        accuracy, exact, near = (100.0 * share.float().mean() for share in shares)
        return torch.stack([accuracy, y.mean(), x.mean(), exact, near])


def squared_errors(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum of the squared errors of the three coordinates, averaged over the events."""
    return (outputs.float() - targets).square().sum(1).mean()
