"""Any image network on clips: frame by frame, averaged over time.

Shapes: B clips, T frames, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.depth import blocks_by_stage
from slowfast.models.inputs import CLIPS, IMAGES, takes
from slowfast.models.layers import BatchRows, batch_rows_as, current_batch_rows
from slowfast.models.weights import AdaptsWeights, StateDict

AVERAGES = ("logits", "features")


class ImageNetwork(Protocol):
    """What an image network offers: its head apart from the rest."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, D), what the head sees."""

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D) -> logits (B, classes)."""


class FramewiseVideo(nn.Module):
    """An image network on clips: float (B, 3, T, H, W), any T -> logits (B, classes).

    average: "logits" or "features", what is averaged over a clip's frames; with a linear head they differ only in
    rounding. State dict and names of parameters are those of the image network, so its weights load as they are.
    """

    TAKES = CLIPS
    _image: nn.Module

    def __init__(self, image: nn.Module, average: str = "logits") -> None:
        super().__init__()
        if average not in AVERAGES:
            raise ConfigError(f"MODEL.FRAMEWISE {average} is none of {', '.join(AVERAGES)}")
        if takes(image) != IMAGES:
            raise ConfigError(f"MODEL.FRAMEWISE is for image networks, but {type(image).__name__} takes clips")
        self.average = average
        # One set of layers and parameters under the same names in both, and the image network itself not a layer.
        self._modules, self._parameters, self._buffers = image._modules, image._parameters, image._buffers
        self.__dict__["_image"] = image
        self.HEAD, self.NO_DECAY = getattr(image, "HEAD", ("head",)), getattr(image, "NO_DECAY", ())

    @property
    def image(self) -> nn.Module:
        """The image network."""
        return self._image

    def train(self, mode: bool = True) -> FramewiseVideo:
        """Training or evaluation mode, of the image network too."""
        self._image.training = mode
        return super().train(mode)

    def blocks_by_stage(self) -> list[list[str]]:
        """Return the names of the image network's blocks by stage."""
        return blocks_by_stage(self._image)

    def adapt_start_weights(self, state: StateDict, path: Path) -> StateDict:
        """As the image network does, where it does."""
        return self._image.adapt_start_weights(state, path) if isinstance(self._image, AdaptsWeights) else state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        network = cast(ImageNetwork, self._image)
        if self.average == "features":
            return network.classify(self._mean_over_time(network.features, x))
        return self._mean_over_time(self._image, x)

    def forward_heads(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The logits of each head (B, classes); of an image network that does not tell its heads apart, one."""
        heads = getattr(self._image, "classify_heads", None)
        if heads is None:
            return (self(x),)
        logits: tuple[torch.Tensor, ...] = heads(self._mean_over_time(cast(ImageNetwork, self._image).features, x))
        return logits

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """One value a token of the image network at its place: (B, N) -> (B, H, W)."""
        grid: torch.Tensor = getattr(self._image, "on_grid")(values)  # noqa: B009 - nn.Module declares no such attribute
        return grid

    def _mean_over_time(self, apply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Of what an image gives: (B, 3, T, H, W) -> (B, ...)."""
        frames = x.shape[2]
        images = x.transpose(1, 2).flatten(0, 1)  # (B T) 3 H W
        with batch_rows_as(_rows_of_frames(current_batch_rows(), frames)):
            values = apply(images)  # (B T) ..
        return values.unflatten(0, (-1, frames)).mean(1)


def _rows_of_frames(clips: BatchRows | None, frames: int) -> BatchRows | None:
    """The rows of the whole batch's frames, for networks that draw by them."""
    if clips is None:
        return None
    return BatchRows(clips.total * frames, tuple(row * frames + t for row in clips.rows for t in range(frames)))
