"""Pre-training without labels: a network that makes its targets out of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Pretext = Callable[[Any], tuple[Any, torch.Tensor]]  # inputs -> inputs to predict from, targets (M,)


@runtime_checkable
class Pretrains(Protocol):
    """A network with a form that is pre-trained: its outputs for the pretext's inputs are logits (M, targets)."""

    @property
    def pretraining(self) -> bool:
        """Whether it is that form."""

    def pretext(self, inputs: Any) -> tuple[Any, torch.Tensor]:
        """Inputs with something left out, and what it was."""


def pretext_of(model: nn.Module) -> Pretext | None:
    """How the network's targets are made where it is to be pre-trained; None for training on labels."""
    network = model.module if isinstance(model, DistributedDataParallel) else model
    return network.pretext if isinstance(network, Pretrains) and network.pretraining else None
