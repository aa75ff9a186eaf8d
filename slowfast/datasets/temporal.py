"""Which frames of a medium make a clip: the families of temporal views behind one interface.

n frames of a medium, T frames of a clip, V temporal views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets import sampling


class TemporalSampling(Protocol):
    """Chooses a clip's frames out of `n` (at least 1) at `fps` (1/s, above 0)."""

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Frame indices of a random clip: int64 (T,)."""

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Frame indices of all test clips: int64 (V, T)."""


@dataclass(frozen=True)
class SpanSampling:
    """Clips of a fixed duration, as Kinetics is sampled."""

    num_frames: int
    sampling_rate: int
    target_fps: float
    offset_sampling: bool

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SpanSampling:
        """As DATA says."""
        data = cfg.DATA
        return cls(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.USE_OFFSET_SAMPLING)

    def _span(self, fps: float) -> float:
        return sampling.clip_span(self.num_frames, self.sampling_rate, self.target_fps, fps)

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """A clip with a random start: int64 (T,)."""
        return sampling.span_train(n, self._span(fps), self.num_frames, rng)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Clips spread over the medium: int64 (V, T)."""
        return sampling.span_views(n, self._span(fps), self.num_frames, views, self.offset_sampling)


@dataclass(frozen=True)
class SegmentSampling:
    """Clips of one frame from each of T equal segments of the whole medium, as Something-Something is sampled."""

    num_frames: int

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SegmentSampling:
        """DATA.NUM_FRAMES segments."""
        return cls(cfg.DATA.NUM_FRAMES)

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """A random frame of each segment: int64 (T,)."""
        return sampling.segment_train(n, self.num_frames, rng)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Views that take other frames of the segments: int64 (V, T)."""
        return sampling.segment_views(n, self.num_frames, views)


@dataclass(frozen=True)
class SingleImage:
    """The one frame that an image is."""

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SingleImage:
        """Nothing to choose."""
        return cls()

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """int64 (1,)."""
        return np.zeros(1, np.int64)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """int64 (V, 1), all the same."""
        return np.zeros((views, 1), np.int64)
