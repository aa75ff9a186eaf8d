"""Kinds of inputs of networks, and checks that an input is of the right kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from slowfast.errors import ConfigError

if TYPE_CHECKING:
    from slowfast.models.protocol import Network

IMAGES, CLIPS, EVENTS = "images", "clips", "events"
Events = dict[str, torch.Tensor]  # x, y, t, p (B, L) and valid (B, L) bool
EVENT_KEYS = ("x", "y", "t", "p", "valid")


def check_input(network: type[Network], framewise: bool, dataset: str, kind: str) -> None:
    """Raise ConfigError unless a network takes what a dataset contains.

    Args:
        network: Class of the network.
        framewise: Whether it runs on each frame of a clip (MODEL.FRAMEWISE).
        dataset: Name of the dataset, for the message.
        kind: What the dataset contains: ``IMAGES``, ``CLIPS`` or ``EVENTS``.
    """
    wanted, name = network.input_kind, network.__name__
    if framewise and wanted != IMAGES:
        raise ConfigError(f"MODEL.FRAMEWISE is for image networks, but {name} takes {wanted}. Leave it empty")
    if framewise and kind != CLIPS:
        raise ConfigError(f"MODEL.FRAMEWISE is for clips, but the dataset {dataset} contains {kind}. Leave it empty")
    if framewise or wanted == kind:
        return
    problem = f"{name} takes {wanted}, but the dataset {dataset} contains {kind}"
    if wanted == IMAGES and kind == CLIPS:
        raise ConfigError(f"{problem}. Set MODEL.FRAMEWISE logits")
    raise ConfigError(f"{problem}. Choose another MODEL.MODEL_NAME or another dataset")


def input_shape(network: Network, frames: int, side: int) -> tuple[int, ...]:
    """Return the shape of one input: (3, frames, side, side) of a clip or (3, side, side) of an image.

    Raises:
        ConfigError: If the network takes neither.
    """
    kind = network.input_kind
    if kind not in (CLIPS, IMAGES):
        raise ConfigError(f"MODEL.MODEL_NAME: {type(network).__name__} takes {kind}, not clips or images")
    return (3, frames, side, side) if kind == CLIPS else (3, side, side)


def check_image(x: torch.Tensor) -> None:
    """Raise ConfigError unless x is a batch of images (B, 3, H, W)."""
    if x.dim() != 4:
        raise ConfigError(
            f"MODEL.MODEL_NAME: this network takes images (B, 3, H, W), not {tuple(x.shape)}. "
            "For clips set MODEL.FRAMEWISE logits"
        )


def check_events(events: Events) -> None:
    """Raise ConfigError unless x is a batch of events: a dict of tensors (B, L)."""
    if not isinstance(events, dict) or any(key not in events for key in EVENT_KEYS):
        raise ConfigError(
            f"MODEL.MODEL_NAME: this network takes a dict of {', '.join(EVENT_KEYS)}, each (B, L). Choose a dataset of "
            "event recordings"
        )
