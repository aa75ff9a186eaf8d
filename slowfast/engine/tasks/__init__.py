"""Tasks: training targets, losses, metrics and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.forward import unwrap_model
from slowfast.engine.tasks.base import CPU, TASK_REGISTRY, Evaluator, Task
from slowfast.engine.tasks.classification import Classification
from slowfast.engine.tasks.multi_label import MultiLabel
from slowfast.engine.tasks.pretraining import CoordinatePretraining, Pretraining, pretext_of
from slowfast.errors import ConfigError
from slowfast.models.protocol import Network

# Importing a class registers it.
BUILT_IN = (Classification, MultiLabel, Pretraining)


def task_class(cfg: ConfigNode) -> type[Task]:
    """Return the class named by MODEL.TASK. Raises ConfigError for an unknown name."""
    return TASK_REGISTRY.find(cfg.MODEL.TASK, "MODEL.TASK")


def build_task(
    cfg: ConfigNode,
    *,
    labels: Sequence[Any] = (),
    model: nn.Module | None = None,
    device: torch.device = CPU,
) -> Task:
    """Build the task of a config; a model set up for pre-training is pre-trained regardless of MODEL.TASK.

    Args:
        cfg: Config of the run.
        labels: Labels of the training set; empty for evaluation.
        model: Model to train, not wrapped; None for evaluation.
        device: Device of the loss.
    """
    chosen = task_class(cfg)
    if model is not None and pretext_of(model) is not None:
        network = unwrap_model(model)
        coordinates = isinstance(network, Network) and network.predicts_coordinates
        chosen = CoordinatePretraining if coordinates else Pretraining
    return chosen.from_config(cfg, labels=labels, model=model, device=device)


def check_task(cfg: ConfigNode) -> None:
    """Raise ConfigError for settings that the task of a config does not support."""
    task = task_class(cfg)
    task.check_config(cfg)
    if cfg.TEST.ENABLE and task.evaluator is Task.evaluator:
        raise ConfigError(f"MODEL.TASK {cfg.MODEL.TASK} has no evaluation. Set TEST.ENABLE False")
    if cfg.TEST.ENABLE and cfg.TEST.SAVE_RESULTS_PATH:
        try:
            task.ensemble(cfg)
        except ConfigError as error:
            raise ConfigError(f'{error} to save. Set TEST.SAVE_RESULTS_PATH ""') from None
    if cfg.TRAIN.ENABLE and cfg.TRAIN.EARLY_STOP and not task.metrics:
        raise ConfigError(f"TRAIN.EARLY_STOP: MODEL.TASK {cfg.MODEL.TASK} has no validation. Set it to 0")
    if cfg.TRAIN.ENABLE and cfg.DISTILL.ENABLE and not task.distillable:
        raise ConfigError(
            f"DISTILL.ENABLE distills the probabilities of exclusive classes, which MODEL.TASK {cfg.MODEL.TASK} does "
            "not have. Set DISTILL.ENABLE False"
        )


__all__ = ["TASK_REGISTRY", "Evaluator", "Task", "build_task", "check_task", "task_class"]
