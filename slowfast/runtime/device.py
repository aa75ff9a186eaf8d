"""What CPUs and GPUs do differently."""

from __future__ import annotations

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
