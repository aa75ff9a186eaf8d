"""Tokens of events from their coordinates and times, as in versions 2 and 3 of Event2Vec (arXiv 2504.15371).

Notation: B recordings, L events, C channels.
"""

from __future__ import annotations

import torch
from einops.layers.torch import Rearrange
from torch import nn

from slowfast.models.protocol import Events


class CoordinateEmbedding(nn.Module):
    """MLP of the coordinates of events in [-1, 1], x, y and p in this order: (..., 3) -> (..., C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            *(nn.Linear(3, dim // 4, bias=False), nn.LayerNorm(dim // 4), nn.ReLU(inplace=True)),
            *(nn.Linear(dim // 4, dim // 2, bias=False), nn.LayerNorm(dim // 2), nn.ReLU(inplace=True)),
            *(nn.Linear(dim // 2, dim, bias=False), nn.LayerNorm(dim)),
        )

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        return self.embed(coordinates)


class TimeConvolution(nn.Module):
    """Convolutions along the events of the time since the previous one: (B, L) -> (B, L, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        to_channels, to_events = Rearrange("b l c -> b c l"), Rearrange("b c l -> b l c")

        def convolution(inputs: int, outputs: int) -> nn.Conv1d:
            return nn.Conv1d(inputs, outputs, 3, padding=1, groups=inputs, bias=False)

        self.conv = nn.Sequential(
            *(convolution(1, dim // 4), to_events, nn.LayerNorm(dim // 4), to_channels, nn.ReLU(inplace=True)),
            *(convolution(dim // 4, dim // 2), to_events, nn.LayerNorm(dim // 2), to_channels, nn.ReLU(inplace=True)),
            *(convolution(dim // 2, dim), to_events, nn.LayerNorm(dim)),
        )

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        return self.conv(steps[:, None])


def coordinate_head(dim: int) -> nn.Sequential:
    """Return the head that predicts three coordinates of an event in pre-training: (..., C) -> (..., 3)."""
    return nn.Sequential(
        *(nn.Linear(dim, dim // 2, bias=False), nn.LayerNorm(dim // 2), nn.ReLU(inplace=True)),
        *(nn.Linear(dim // 2, dim // 4, bias=False), nn.LayerNorm(dim // 4), nn.ReLU(inplace=True)),
        nn.Linear(dim // 4, 3, bias=False),
    )


def normalized_coordinates(events: Events, sensor_size: tuple[int, int]) -> torch.Tensor:
    """Return x, y and p of events in [-1, 1], 0 where they are invalid: float32 (B, L, 3)."""
    height, width = sensor_size
    columns = [events[key].float() * (2.0 / (size - 1)) - 1.0 for key, size in (("x", width), ("y", height), ("p", 2))]
    return torch.stack(columns, -1) * events["valid"][..., None]


def time_steps(t: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the time since the previous event as a fraction of the duration of the recording, (B, L).

    It is 0 for the first event and where either event is invalid. As published, the duration is the largest time of all
    events, valid or not; padding must not have a later one.
    """
    t = (t - t[:, :1]).float()
    longest = t.amax(1, keepdim=True)
    steps = (t / torch.where(longest > 0, longest, 1.0)).diff(dim=1, prepend=t[:, :1])
    both = valid.clone()
    both[:, 1:] &= valid[:, :-1]
    return torch.where(both, steps, 0.0)
