"""Messages about the videos of a run: start of a video, next frames of some videos, end of a video.

Notation: K frames of each of S videos that are read at once, P pixels per side of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from slowfast.datasets.types import Failure
from slowfast.event_driven.detector import Changes
from slowfast.event_driven.sources import Source


@dataclass(frozen=True)
class Opened:
    """Message that a video begins."""

    source: Source
    rate: Fraction  # nominal frames/s
    time_base: Fraction  # seconds per tick
    began: float  # perf_counter() before the first read


@dataclass(frozen=True)
class Batch:
    """Message with the next K frames of each of S videos."""

    sources: list[Source]  # S
    ticks: list[list[int]]  # S K
    images: torch.Tensor  # uint8 (K, S, P, P, 3), at the network's resolution
    frames: torch.Tensor  # float (K, S, 3, P, P), normalized, on the device
    changes: Changes
    detect_seconds: float
    dropped: list[int]  # S, frames dropped so far
    arrived: np.ndarray  # float64 (K, S): perf_counter() when a frame arrived from a live source; 0 for files


@dataclass(frozen=True)
class Closed:
    """Message that a video has ended, with the failure if there was one."""

    source: Source
    failure: Failure | None


Message = Opened | Batch | Closed
