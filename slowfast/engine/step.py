"""Optimizer step: forward, loss, backward, update; with loss scaling, gradient clipping and accumulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import process_parts
from slowfast.datasets.loader import split_clips
from slowfast.datasets.sampling import MIX, clip_rows, generator
from slowfast.datasets.types import TrainBatch
from slowfast.engine.distillation import Distillation
from slowfast.engine.forward import BatchHook, ClipForward, no_sync
from slowfast.engine.meters import BACKWARD, FORWARD, OPTIMIZER, named_range
from slowfast.engine.optim import set_lr
from slowfast.engine.parameters import freeze_modes
from slowfast.engine.tasks import Task, build_task
from slowfast.models.layers import global_batch
from slowfast.utils.distributed import World

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


class TrainStep:
    """Optimizer step. All its random numbers only depend on RNG_SEED, the epoch and the step.

    Args:
        cfg: Config of the run.
        world: Processes of the run.
        model: Model, possibly wrapped in DistributedDataParallel. With distillation its output is a tuple of the logits
            of its class head and, if it has one, its distillation head.
        optimizer: Optimizer of the model's parameters.
        forward: Preparation of the clips.
        task: Task to train; by default that of the config, without class weights.
        distillation: Teacher and its loss; None for none.

    Attributes:
        batch_hook: Called once with the inputs and targets of the first batch; None for none.
    """

    def __init__(
        self,
        cfg: ConfigNode,
        world: World,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        forward: ClipForward,
        task: Task | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        self.model, self.optimizer, self.forward = model, optimizer, forward
        self.distillation, self.probing = distillation, cfg.MODEL.FREEZE_BACKBONE
        self.frozen = bool(cfg.MODEL.FREEZE_BACKBONE or cfg.MODEL.FREEZE)
        self.seed = cfg.RNG_SEED
        self.batch_hook: BatchHook | None = None
        self.task = build_task(cfg, model=model, device=forward.device) if task is None else task
        self.rows = [clip_rows(videos, cfg.AUG.NUM_SAMPLE) for videos in process_parts(cfg, world)]
        self.total_clips = cfg.TRAIN.BATCH_SIZE * cfg.AUG.NUM_SAMPLE
        self.clip_value, self.clip_norm = cfg.SOLVER.CLIP_GRAD_VAL, cfg.SOLVER.CLIP_GRAD_L2NORM  # 0 for no clipping
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=forward.amp_dtype == torch.float16)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, batch: TrainBatch, epoch: int, step: int, lr: float) -> torch.Tensor:
        """Train on one batch at a learning rate.

        Returns:
            The loss and the task's step metrics, float32 (1 + M,), on the device.
        """
        self.model.train()
        if self.frozen:
            freeze_modes(self.model, self.probing)
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        size = len(self.rows[0])
        clips, labels = split_clips(batch.clips, size), batch.labels.split(size)
        for part, rows in enumerate(self.rows):
            with no_sync(self.model, part < len(self.rows) - 1), global_batch(self.model, self.total_clips, rows):
                parts.append(self._backward(clips[part], labels[part], epoch, step))
        with named_range(OPTIMIZER):
            self.scaler.unscale_(self.optimizer)
            if self.clip_value:
                nn.utils.clip_grad_value_(self.parameters, self.clip_value)
            if self.clip_norm:
                nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return torch.stack(parts).mean(0)

    def _backward(self, clips: Clips, labels: torch.Tensor, epoch: int, step: int) -> torch.Tensor:
        # All parts and processes start from the same random state and use the random numbers of their own clips.
        torch.manual_seed(int(generator(MIX, self.seed, epoch, step, 0).integers(2**62)))
        inputs = self.forward.prepare(clips)
        labels = labels.to(self.forward.device, non_blocking=True)
        inputs, targets = self.task.targets(inputs, labels, generator(MIX, self.seed, epoch, step, 1))
        if self.batch_hook is not None:
            self.batch_hook(inputs, self.task.shown(labels, targets))
            self.batch_hook = None
        with named_range(FORWARD), self.forward.autocast():
            loss, outputs = self._loss(inputs, targets)
        with named_range(BACKWARD):
            self.scaler.scale(loss / len(self.rows)).backward()
        metrics = self.task.measure(outputs.detach(), targets)
        return torch.cat([loss.detach().float()[None], metrics])

    def _loss(self, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and the outputs of the model, averaged over its heads as in evaluation."""
        if self.distillation is None:
            outputs = self.model(inputs)
            return self.task.loss(outputs, targets), outputs
        # First, so that the teacher's activations are freed before the student's are allocated.
        teacher_logits = self.distillation.teacher_logits(inputs)
        heads = self.model(inputs)
        loss = self.distillation.combine(self.task.loss(heads[0], targets), heads[-1], teacher_logits)
        return loss, torch.stack(heads).mean(0)
