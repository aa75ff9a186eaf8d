"""Image networks on clips: applied to each frame, averaged over time.

Notation: B clips, T frames, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import frames_as_batch
from slowfast.models.protocol import CLIPS, IMAGES, Network, StateDict

AVERAGES = ("logits", "features")
_PREFIX = "image."


class FramewiseVideo(Network):
    """Image network applied to clips: float (B, 3, T, H, W), any T -> logits (B, classes).

    The state dict has the image network's keys, so that its weights load as they are.

    Args:
        image: The image network.
        average: Average ``logits`` or ``features`` over the frames of a clip. With a linear head they differ only in
            rounding.
    """

    input_kind = CLIPS

    def __init__(self, image: Network, average: str = "logits") -> None:
        super().__init__()
        if average not in AVERAGES:
            raise ConfigError(f"MODEL.FRAMEWISE: unknown value {average!r}. Choices: {', '.join(AVERAGES)}")
        if image.input_kind != IMAGES:
            name = type(image).__name__
            raise ConfigError(f"MODEL.FRAMEWISE is for image networks, but {name} takes {image.input_kind}")
        self.average, self.image = average, image
        self.register_state_dict_post_hook(_remove_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    @property
    def named(self) -> nn.Module:
        return self.image

    def head_names(self) -> tuple[str, ...]:
        return self.image.head_names()

    def no_weight_decay(self) -> tuple[str, ...]:
        return self.image.no_weight_decay()

    def adapt_start_weights(self, state: StateDict, path: str | Path) -> StateDict:
        return self.image.adapt_start_weights(state, path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.average == "features":
            return self.classify(self.features(x))
        return self._mean_over_time(self.image, x)

    def forward_heads(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.average == "features":
            return self.image.classify_heads(self.features(x))

        def heads(images: torch.Tensor) -> torch.Tensor:
            return torch.stack(self.image.forward_heads(images), 1)  # (B T) heads classes

        return self._mean_over_time(heads, x).unbind(1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of the frames' features, (B, D)."""
        return self._mean_over_time(self.image.features, x)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, classes) of features (B, D)."""
        return self.image.classify(features)

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        return self.image.on_grid(values)

    def _mean_over_time(self, apply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Average the outputs for the frames of a clip: (B, 3, T, H, W) -> (B, ...)."""
        frames = x.shape[2]
        images = x.transpose(1, 2).flatten(0, 1)  # (B T) 3 H W
        with frames_as_batch(self, frames):
            values = apply(images)  # (B T) ..
        return values.unflatten(0, (-1, frames)).mean(1)


def _remove_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Rename image.KEY to KEY when a state dict is saved."""
    own = f"{prefix}{_PREFIX}"
    for key in [key for key in state if key.startswith(own)]:
        state[prefix + key.removeprefix(own)] = state.pop(key)


def _add_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename KEY to image.KEY before a state dict is loaded."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}{_PREFIX}{key.removeprefix(prefix)}"] = state.pop(key)
