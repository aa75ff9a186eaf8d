"""Self-supervised pre-training: the model makes its own targets, or predicts the coordinates of masked events.

Notation: M masked events. Coordinates are p, y and x in [-1, 1] (Event2Vec v3, arXiv 2504.15371 v3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.forward import unwrap_model
from slowfast.engine.losses import Loss, get_loss
from slowfast.engine.tasks.base import CPU, TASK_REGISTRY, Task
from slowfast.engine.tasks.classification import TOP1
from slowfast.errors import ConfigError
from slowfast.models.build import build_model
from slowfast.models.protocol import Network
from slowfast.visualization.results import Metric

NAME = "pretraining"
Pretext = Callable[[Any], tuple[Any, torch.Tensor]]  # inputs -> corrupted inputs, targets (M,)
NEAR = 3  # maximum distance in y and x, in pixels, of a near prediction


def pretext_of(model: nn.Module) -> Pretext | None:
    """Return the function that makes the targets of a model set up for pre-training; None for other models."""
    network = unwrap_model(model)
    return network.pretext if isinstance(network, Network) and network.pretraining else None


def required_pretext(cfg: ConfigNode, model: nn.Module | None) -> Pretext:
    """Return `pretext_of` a model. Raises ConfigError if it is not set up for pre-training."""
    pretext = None if model is None else pretext_of(model)
    if pretext is None:
        raise ConfigError(
            f"MODEL.TASK {NAME}: MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} is not set up for pre-training. Use "
            "Event2Vec or Event2VecV3 with EVENT2VEC.MASK_RATIO above 0"
        )
    return pretext


@TASK_REGISTRY.register(name=NAME)
class Pretraining(Task):
    """Pre-training on targets that the model makes; labels are not used and there is no validation.

    Args:
        pretext: Function of the inputs that returns corrupted inputs and their targets.
        loss: Loss of logits and targets.
    """

    step_metrics: ClassVar[tuple[Metric, ...]] = (TOP1,)

    def __init__(self, pretext: Pretext, loss: Loss) -> None:
        self.pretext, self._loss = pretext, loss

    @classmethod
    def from_config(
        cls,
        cfg: ConfigNode,
        *,
        labels: Sequence[Any] = (),
        model: nn.Module | None = None,
        device: torch.device = CPU,
    ) -> Pretraining:
        """Build from the model to train and MODEL.LOSS_FUNC.

        Raises:
            ConfigError: If the model is not set up for pre-training.
        """
        return cls(required_pretext(cfg, model), get_loss(cfg.MODEL.LOSS_FUNC))

    @classmethod
    def check_config(cls, cfg: ConfigNode) -> None:
        """Check that the model is set up for pre-training."""
        with torch.device("meta"):
            cls.from_config(cfg, model=build_model(cfg))

    def targets(self, inputs: Any, labels: torch.Tensor, rng: np.random.Generator) -> tuple[Any, torch.Tensor]:
        """Return the corrupted inputs and their targets (M,)."""
        return self.pretext(inputs)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy."""
        return self._loss(outputs, targets)

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the percentage of correct predictions."""
        return 100.0 * (outputs.argmax(1) == targets).float().mean()[None]

    def shown(self, labels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the labels, because targets are not classes."""
        return labels


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
