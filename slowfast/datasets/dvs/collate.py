"""Samples of event recordings to batches.

L events of a sample, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

PADDING = -1  # of x, y, t and p, as published


def pad_events(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Dicts of x, y, t, p, valid (L,) to one of (N, L), L that of the longest; valid is False where nothing was."""
    longest = max(len(sample["valid"]) for sample in samples)
    return {
        key: torch.stack([_pad(sample[key], longest, value=0 if key == "valid" else PADDING) for sample in samples])
        for key in samples[0]
    }


def _pad(values: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return F.pad(values, (0, length - len(values)), value=value)


def to_tensors(events: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The same as tensors."""
    return {key: torch.from_numpy(values) for key, values in events.items()}
