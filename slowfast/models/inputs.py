"""What a network takes: single images, whole clips or events."""

from __future__ import annotations

import torch
from torch import nn

from slowfast.errors import ConfigError

IMAGES, CLIPS, EVENTS = "images", "clips", "events"
Events = dict[str, torch.Tensor]  # x, y, t, p (B, L) and valid (B, L) bool
EVENT_KEYS = ("x", "y", "t", "p", "valid")


def takes(network: nn.Module | type[nn.Module]) -> str:
    """IMAGES for networks of (B, 3, H, W) and EVENTS for those of dicts, which say so in `TAKES`; else CLIPS."""
    kind: str = getattr(network, "TAKES", CLIPS)
    return kind


def check_input(network: type[nn.Module], framewise: bool, dataset: str, gives: str) -> None:
    """Raise ConfigError unless the network, which may go over clips frame by frame, takes what the dataset gives."""
    wanted = takes(network)
    if framewise and wanted != IMAGES:
        name = network.__name__
        raise ConfigError(f"MODEL.FRAMEWISE is for image networks, but {name} takes {wanted}: leave it empty")
    if framewise and gives != CLIPS:
        raise ConfigError(f"MODEL.FRAMEWISE is for clips, but the dataset {dataset} gives {gives}: leave it empty")
    if framewise or wanted == gives:
        return
    if wanted == IMAGES and gives == CLIPS:
        raise ConfigError(
            f"{network.__name__} takes images, but the dataset {dataset} gives clips: set MODEL.FRAMEWISE logits"
        )
    raise ConfigError(
        f"{network.__name__} takes {wanted}, but the dataset {dataset} gives {gives}: choose another of them"
    )


def input_shape(network: nn.Module, frames: int, side: int) -> tuple[int, ...]:
    """Shape of one clip (3, frames, side, side) or image (3, side, side), whichever the network takes.

    Raises ConfigError for a network of neither.
    """
    kind = takes(network)
    if kind not in (CLIPS, IMAGES):
        raise ConfigError(f"MODEL.MODEL_NAME: {type(network).__name__} takes {kind}, not clips or images")
    return (3, frames, side, side) if kind == CLIPS else (3, side, side)


def check_image(x: torch.Tensor) -> None:
    """Raise ConfigError unless x is a batch of images (B, 3, H, W)."""
    if x.dim() != 4:
        raise ConfigError(
            f"MODEL.MODEL_NAME: this network takes images (B, 3, H, W), not {tuple(x.shape)}; "
            "for clips set MODEL.FRAMEWISE logits"
        )


def check_events(events: Events) -> None:
    """Raise ConfigError unless these are events: a dict of tensors (B, L)."""
    if not isinstance(events, dict) or any(key not in events for key in EVENT_KEYS):
        raise ConfigError(
            f"MODEL.MODEL_NAME: this network takes a dict of {', '.join(EVENT_KEYS)}, each (B, L): choose a data set "
            "of events"
        )
