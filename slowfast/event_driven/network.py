"""Stages of an evMLP that run on any subset of their patches.

Notation: R rows (patches, in any order), I input features, C token dimensions, N patches per stage and image in nested
order (models/evmlp.py): the children of a patch in the stage below are consecutive rows.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.event_driven.kernels import Gate, Kernels, takes_frames
from slowfast.event_driven.kernels.stage import CompiledNetwork, CompiledStage
from slowfast.event_driven.linear_kernels import BFLOAT16, PyTorchStage, rows_dtype
from slowfast.event_driven.stage_choice import Choice, MeasuredStage, StageTimes, cached_times, choose, measure_stages
from slowfast.models.build import MODEL_REGISTRY, find_network
from slowfast.models.evmlp import EvMLP, Stage, nested_patches
from slowfast.utils.logging import warn_once

# Environment variable; "compiled" uses the compiled kernels for any number of rows instead of measuring.
KERNELS_VARIABLE = "SLOWFAST_EVENT_KERNELS"


class PatchNetwork:
    """Stages and classifier of an evMLP in one precision; the weights are copied on construction.

    Attributes:
        stages: Stages, callable on any number of rows.
        counts: Number of patches per stage in an image.
        merges: Number of patches that form a patch of the next stage, for every stage except the last.
        order: Row-major index of each patch of the first stage in nested order, (N,).
    """

    def __init__(self, model: EvMLP, precision: str, kernels: Kernels | None = None) -> None:
        _warn_of_float32(precision, model.linear.weight.device, kernels is not None)
        stages = [*(stage for stage in model.blks if isinstance(stage, Stage)), _as_stage(model.linear)]
        choices = _choices(stages, precision, kernels)
        pairs = zip(stages, choices, strict=True)
        *self.stages, self._head = (StageRows(stage, precision, kernels, choice) for stage, choice in pairs)
        self.side, self.patch = model.side, model.patch_sizes[0]
        self.merges = [side**2 for side in model.patch_sizes[1:]]
        self.counts = [math.prod(self.merges[i:]) for i in range(len(self.stages))]
        self.classes, self.head_macs = model.linear.out_features, model.linear.weight.numel()
        self.device = model.linear.weight.device
        self.sides = model.patch_sizes
        self.order = self._row_major(0)
        self._kernels, self._gate = kernels, self.gate()

    @property
    def dense_macs(self) -> int:
        """Multiply-adds of a frame in dense inference."""
        stages = zip(self.counts, self.stages, strict=True)
        return sum(count * stage.macs for count, stage in stages) + self.head_macs

    def _row_major(self, stage: int) -> torch.Tensor:
        """Return the row-major index of each patch of a stage in nested order: (N,)."""
        side = math.isqrt(self.counts[stage])
        indices = torch.arange(side**2, device=self.device).view(1, 1, side, side)
        return nested_patches(indices, (1, *self.sides[stage + 1 :])).flatten()

    def as_map(self, rows: torch.Tensor, stage: int) -> torch.Tensor:
        """Arrange a stage's tokens in nested order as a map: (N, C) -> (n, n, C)."""
        side = math.isqrt(len(rows))
        grid = torch.empty_like(rows)
        grid[self._row_major(stage)] = rows
        return grid.view(side, side, -1)

    def tokens_of_constant(self, value: float) -> list[torch.Tensor]:
        """Return each stage's token (C,) for an image whose pixels are all `value`; it is equal for all patches."""
        x = torch.full((1, self.patch**2 * 3), value, dtype=torch.float32, device=self.device)
        tokens = []
        for stage, merge in zip(self.stages, (*self.merges, 1), strict=True):
            x = stage(x)
            tokens.append(x[0])
            x = x.repeat(1, merge)
        return tokens

    @torch.inference_mode()
    def dense(self, frames: torch.Tensor) -> torch.Tensor:
        """Compute the logits of frames in full: float (B, 3, side, side) -> float (B, classes)."""
        self.check(frames)
        if frames.ndim != 4:
            raise ConfigError(f"expected frames (B, 3, {self.side}, {self.side}), got {tuple(frames.shape)}")
        x = self._split(frames.to(self.device, torch.float32))
        for stage, merge in zip(self.stages, (*self.merges, 1), strict=True):
            tokens = stage(x)
            x = tokens.reshape(-1, merge * tokens.shape[1])
        return self.classify(x)

    def _split(self, frames: torch.Tensor) -> torch.Tensor:
        """Cut frames (B, 3, side, side) into the patches of the first stage, (B N, p p 3), in nested order."""
        if self._kernels is None or not takes_frames(frames[None]):
            return nested_patches(frames, self.sides).flatten(0, 1)
        indices = torch.arange(len(frames) * self.counts[0])
        return self._kernels.take_patches(frames[None], indices, self._gate, self.order)

    def gate(self, threshold: float = 0.0, mean: bool = False, hold: bool = False) -> Gate:
        """Describe the patches and the settings of a change detector to the compiled kernels, see :meth:`Gate.of`."""
        return Gate.of(self.side, self.patch, threshold, mean, hold, self.order.argsort())

    def compiled(self) -> CompiledNetwork | None:
        """Return the stages and the classifier as a network of the compiled kernels; None if they do not have all."""
        stages = [stage.compiled for stage in (*self.stages, self._head)]
        found = [stage for stage in stages if stage is not None]
        return CompiledNetwork(found, self.counts, self.merges) if len(found) == len(stages) else None

    def uses_compiled(self, patches: int, images: int) -> bool:
        """Check if the compiled kernels run every stage when so many patches change in some images."""
        stages = zip((*self.stages, self._head), (*self.counts, 1), strict=True)
        return all(not stage.choice.may_use_pytorch(min(patches, images * count)) for stage, count in stages)

    def classify(self, tokens: torch.Tensor) -> torch.Tensor:
        """Compute the logits of tokens of the last stage: (R, C) -> (R, classes)."""
        return self._head(tokens).contiguous()

    def check(self, frame: torch.Tensor) -> None:
        """Raise ConfigError unless the frames (..., 3, H, W) are floats of the network's input size."""
        if not frame.is_floating_point():
            raise ConfigError(f"event-driven inference takes normalized float frames, not {frame.dtype}")
        if frame.shape[-3:] != (3, self.side, self.side):
            raise ConfigError(
                f"EVMLP.PATCH_SIZES {list(self.sides)}: the network takes frames of 3 x {self.side} x {self.side}, "
                f"not {' x '.join(map(str, frame.shape[-3:]))}"
            )


class StageRows:
    """Stage that runs on the faster implementation for the number of rows: float (R, I) -> float (R, C).

    Args:
        stage: Stage to copy the weights from.
        precision: Precision of the weights.
        kernels: Compiled kernels, if available.
        choice: Implementation for every number of rows. Weights are kept only for those that it uses.
    """

    def __init__(self, stage: Stage, precision: str, kernels: Kernels | None, choice: Choice) -> None:
        linears = linear_layers(stage)
        self.macs = sum(layer.weight.numel() for layer in linears)  # per row
        self.inputs, self.width = linears[0].in_features, linears[0].out_features
        self.choice = choice
        self.compiled = (
            CompiledStage(stage, precision, kernels) if kernels is not None and False in choice.needs else None
        )
        self.pytorch = PyTorchStage(stage, precision, kernels is not None) if True in choice.needs else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        implementation = self.pytorch if self.choice.uses_pytorch(len(x)) else self.compiled
        assert implementation is not None
        return implementation(x)


def linear_layers(stage: Stage) -> list[nn.Linear]:
    """Return the linear layers of a stage in order."""
    return [layer for layer in stage.modules() if isinstance(layer, nn.Linear)]


def _as_stage(head: nn.Linear) -> Stage:
    """Return the classifier as a stage without blocks."""
    with torch.device("meta"):  # draws no random weights
        stage = Stage(head.in_features, head.out_features, blocks=0, mlp_ratio=1, dropout_rate=0)
    stage[1] = head
    return stage


def _choices(stages: list[Stage], precision: str, kernels: Kernels | None) -> list[Choice]:
    """Choose the implementation of each stage, based on one measurement per machine."""
    if kernels is None or _are_kernels_fixed():
        return [Choice(pytorch=kernels is None)] * len(stages)
    layers = [[list(layer.weight.shape) for layer in linear_layers(stage)] for stage in stages]
    library = Path(kernels.library._name).stem  # the file name contains a digest of sources, compiler and CPU
    about = {"kernels": library, "precision": precision, "layers": layers}

    def measure() -> list[StageTimes] | None:
        return measure_stages([_measured(stage, precision, kernels) for stage in stages])

    times = cached_times(about, len(stages), measure)
    return list(map(choose, times)) if times is not None else [Choice(pytorch=False)] * len(stages)


def _measured(stage: Stage, precision: str, kernels: Kernels) -> MeasuredStage:
    compiled, pytorch = CompiledStage(stage, precision, kernels), PyTorchStage(stage, precision, rounded=True)
    return MeasuredStage(compiled, pytorch, linear_layers(stage)[0].in_features)


def _are_kernels_fixed() -> bool:
    """Return whether the environment requests the compiled kernels for any number of rows, without measurement.

    Raises:
        ConfigError: If it requests anything else.
    """
    value = os.environ.get(KERNELS_VARIABLE, "")
    if value not in ("", "compiled"):
        raise ConfigError(
            f"{KERNELS_VARIABLE}={value}: set it to compiled, or leave it unset to measure what is faster"
        )
    return bool(value)


def _warn_of_float32(precision: str, device: torch.device, compiled: bool) -> None:
    """Warn once if bfloat16 weights are not multiplied in bfloat16."""
    if precision != BFLOAT16 or rows_dtype(precision, device) == torch.bfloat16:
        return
    instead = "Running in float32, without compiled kernels."
    if compiled:
        instead = "The compiled kernels multiply bfloat16 weights in float32."
    warn_once(
        f"EVENT.PRECISION bfloat16: PyTorch has no fast bfloat16 matrix multiplication on this CPU. {instead} "
        "Set EVENT.PRECISION to float32 or int8 to avoid this warning."
    )


def check_network(cfg: ConfigNode) -> None:
    """Raise ConfigError unless the configured network computes every patch independently."""
    if not issubclass(find_network(cfg), EvMLP):
        possible = [name for name, network in MODEL_REGISTRY if issubclass(network, EvMLP)]
        raise ConfigError(f"EVENT.ENABLE: MODEL.MODEL_NAME must be {' or '.join(possible)}, not {cfg.MODEL.MODEL_NAME}")
