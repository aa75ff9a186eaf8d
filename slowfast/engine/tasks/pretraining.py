"""Self-supervised pre-training: the model derives its targets from the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.losses import Loss, get_loss
from slowfast.engine.parallel import unwrap_model
from slowfast.engine.tasks.base import CPU, TASK_REGISTRY, Task
from slowfast.engine.tasks.classification import TOP1
from slowfast.errors import ConfigError
from slowfast.models.build import build_model
from slowfast.models.protocol import Network
from slowfast.visualization.results import Metric

NAME = "pretraining"
Pretext = Callable[[Any], tuple[Any, torch.Tensor]]  # inputs -> corrupted inputs, targets (M,)


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
