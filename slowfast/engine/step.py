"""One optimizer step: forward, loss, backward, update; with loss scaling, gradient clipping and accumulation.

N clips of this process, A accumulation steps, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import process_parts
from slowfast.datasets.collate import split_clips
from slowfast.datasets.mixup import Mixup, smooth_one_hot
from slowfast.datasets.order import MIX, clip_rows, generator
from slowfast.datasets.types import TrainBatch
from slowfast.engine.distillation import Distillation
from slowfast.engine.forward import ClipForward, Show
from slowfast.engine.freezing import freeze_modes
from slowfast.engine.losses import SOFT_LOSSES, Loss, get_loss
from slowfast.engine.optim import set_lr
from slowfast.engine.parallel import no_sync, unwrap_model
from slowfast.models.layers import global_batch
from slowfast.utils.distributed import World

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


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
    network = unwrap_model(model)
    return network.pretext if isinstance(network, Pretrains) and network.pretraining else None


@dataclass(frozen=True)
class Clipping:
    """Limits of gradients; 0 for none."""

    value: float = 0.0
    norm: float = 0.0

    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clip the gradients in place."""
        if self.value:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm:
            nn.utils.clip_grad_norm_(parameters, self.norm)


class TrainStep:
    """Performs steps; everything random in one depends on RNG_SEED, the epoch and the step alone."""

    def __init__(
        self,
        cfg: ConfigNode,
        world: World,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        forward: ClipForward,
        class_weights: torch.Tensor | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        """`class_weights`: of each class in the loss (K,), on the device; None: all the same.

        model: gives logits, or, for distillation, a tuple of those of its class head and its distillation head.
        """
        self.model, self.optimizer, self.forward = model, optimizer, forward
        self.distillation, self.probing = distillation, cfg.MODEL.FREEZE_BACKBONE
        self.frozen = bool(cfg.MODEL.FREEZE_BACKBONE or cfg.MODEL.FREEZE)
        self.seed = cfg.RNG_SEED
        self.show: Show | None = None  # gets the first batch as the network does
        self.loss: Loss = get_loss(cfg.MODEL.LOSS_FUNC, class_weights)
        self.soft = cfg.MODEL.LOSS_FUNC in SOFT_LOSSES
        self.classes, self.smoothing = cfg.MODEL.NUM_CLASSES, cfg.MIXUP.LABEL_SMOOTH_VALUE
        self.mixup = Mixup.from_config(cfg) if cfg.MIXUP.ENABLE else None
        self.pretext = pretext_of(model)
        self.rows = [clip_rows(videos, cfg.AUG.NUM_SAMPLE) for videos in process_parts(cfg, world)]
        self.total_clips = cfg.TRAIN.BATCH_SIZE * cfg.AUG.NUM_SAMPLE
        self.clipping = Clipping(cfg.SOLVER.CLIP_GRAD_VAL, cfg.SOLVER.CLIP_GRAD_L2NORM)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=forward.amp_dtype == torch.float16)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, batch: TrainBatch, epoch: int, step: int, rate: float) -> torch.Tensor:
        """Train on one batch at a learning rate; gives (mean loss, share of right clips) on the device."""
        self.model.train()
        if self.frozen:
            freeze_modes(self.model, self.probing)
        set_lr(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        figures = []
        size = len(self.rows[0])
        clips, labels = split_clips(batch.clips, size), batch.labels.split(size)
        for part, rows in enumerate(self.rows):
            with no_sync(self.model, part < len(self.rows) - 1), global_batch(self.total_clips, rows):
                figures.append(self._backward(clips[part], labels[part], epoch, step))
        self.scaler.unscale_(self.optimizer)
        self.clipping(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack(figures).mean(0)

    def _backward(self, clips: Clips, labels: torch.Tensor, epoch: int, step: int) -> torch.Tensor:
        # Every part and process starts from the same numbers and takes those of its own clips.
        torch.manual_seed(int(generator(MIX, self.seed, epoch, step, 0).integers(2**62)))
        inputs = self.forward.prepare(clips)
        labels = labels.to(self.forward.device, non_blocking=True)
        inputs, targets = self._targets(inputs, labels, generator(MIX, self.seed, epoch, step, 1))
        if self.show is not None:
            self.show(inputs, labels if self.pretext is not None else targets)
            self.show = None
        with self.forward.autocast():
            loss, logits = self._loss(inputs, targets)
        self.scaler.scale(loss / len(self.rows)).backward()
        answers = targets.argmax(1) if targets.ndim == 2 else targets
        right = (logits.detach().argmax(1) == answers).float().mean()
        return torch.stack([loss.detach().float(), right])

    def _loss(self, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss and the logits (N, K), the mean of all heads' as in evaluation."""
        if self.distillation is None:
            logits = self.model(inputs)
            return self.loss(logits, targets), logits
        taught = self.distillation.ask(inputs)  # first: its activations are gone when the student's are made
        heads = self.model(inputs)
        loss = self.distillation.join(self.loss(heads[0], targets), heads[-1], taught)
        return loss, torch.stack(heads).mean(0)

    def _targets(self, inputs: Any, labels: torch.Tensor, rng: np.random.Generator) -> tuple[Any, torch.Tensor]:
        """The network's inputs and what it should make of them."""
        if self.pretext is not None:
            return self.pretext(inputs)
        if self.mixup is not None:
            return self.mixup(inputs, labels, rng)
        return inputs, smooth_one_hot(labels, self.classes, self.smoothing) if self.soft else labels
