"""What a network takes: single images or whole clips."""

from __future__ import annotations

import torch
from torch import nn

from slowfast.errors import ConfigError

IMAGES, CLIPS = "images", "clips"


def takes(network: nn.Module | type[nn.Module]) -> str:
    """IMAGES for networks of (B, 3, H, W), which say so in `TAKES`; CLIPS for those of (B, 3, T, H, W)."""
    kind: str = getattr(network, "TAKES", CLIPS)
    return kind


def check_input(network: type[nn.Module], framewise: bool, dataset: str, gives_images: bool) -> None:
    """Raise ConfigError unless the network, which may go over clips frame by frame, takes what the dataset gives."""
    for_images = takes(network) == IMAGES
    if framewise and not for_images:
        raise ConfigError(f"MODEL.FRAMEWISE is for image networks, but {network.__name__} takes clips: leave it empty")
    if framewise and gives_images:
        raise ConfigError(f"MODEL.FRAMEWISE is for clips, but the dataset {dataset} gives images: leave it empty")
    if gives_images and not for_images:
        raise ConfigError(
            f"{network.__name__} takes clips, but the dataset {dataset} gives images: choose another of them"
        )
    if for_images and not framewise and not gives_images:
        raise ConfigError(
            f"{network.__name__} takes images, but the dataset {dataset} gives clips: set MODEL.FRAMEWISE logits"
        )


def check_image(x: torch.Tensor) -> None:
    """Raise ConfigError unless x is a batch of images (B, 3, H, W)."""
    if x.dim() != 4:
        raise ConfigError(
            f"MODEL.MODEL_NAME: this network takes images (B, 3, H, W), not {tuple(x.shape)}; "
            "for clips set MODEL.FRAMEWISE logits"
        )
