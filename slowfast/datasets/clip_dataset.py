"""Videos as training clips and as test views: index -> decode -> sample -> transform, for every frame dataset.

T frames, H height, W width, C channels, V temporal views, S clips a video, U distinct frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from slowfast.datasets.decode import VideoReader
from slowfast.datasets.media_dataset import TestMedia, TrainMedia
from slowfast.datasets.order import VIEW, generator
from slowfast.datasets.sampling import frame_order
from slowfast.datasets.temporal import TemporalSampling
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.datasets.types import Failure, Record, TestVideo

OpenMedium = Callable[[Record], AbstractContextManager[VideoReader]]


class TrainClips(TrainMedia):
    """Augmented copies of a random clip of each video."""

    def __init__(
        self,
        records: Sequence[Record],
        open_medium: OpenMedium,
        temporal: TemporalSampling,
        transform: TrainTransform,
        samples: int = 1,
        seed: int = 0,
        max_failed: float = 0.01,
        balanced: bool = False,
        repeated: int = 1,
    ) -> None:
        super().__init__(records, samples, seed, max_failed, balanced, repeated)
        self.open_medium, self.temporal, self.transform = open_medium, temporal, transform

    def _read(self, record: Record, epoch: int, draw: int) -> tuple[np.ndarray, str | None]:
        with self.open_medium(record) as reader:
            rng = generator(VIEW, self.seed, epoch, draw)
            decoded = reader.read(self.temporal.train(reader.num_frames, reader.fps, rng))  # rows (T,)
        draws = (generator(VIEW, self.seed, epoch, draw, sample + 1) for sample in range(self.samples))
        clips = [self.transform(decoded.frames, decoded.rows, rng) for rng in draws]
        return np.stack(clips), decoded.missing  # (S, T, H, W, C)


class TestVideos(TestMedia[TestVideo]):
    """All views of each video, decoded once; nothing is random."""

    __test__ = False  # not a pytest class

    def __init__(
        self,
        records: Sequence[Record],
        open_medium: OpenMedium,
        temporal: TemporalSampling,
        transform: ViewTransform,
        views: int = 1,
        order: str = "normal",
        seed: int = 0,
    ) -> None:
        super().__init__(records, seed)
        self.open_medium, self.temporal, self.transform = open_medium, temporal, transform
        self.views, self.order = views, order

    def _failed(self, record: Record, failure: Failure) -> TestVideo:
        return TestVideo(record, None, torch.empty(0, 0, dtype=torch.long), [], 0, [failure])

    def _read(self, record: Record) -> TestVideo:
        with self.open_medium(record) as reader:
            rng = generator(VIEW, self.seed, record.index)
            views = self.temporal.views(reader.num_frames, reader.fps, self.views)
            decoded = reader.read(np.stack([frame_order(view, self.order, rng) for view in views]))  # rows (V, T)
        frames, corners = self.transform(decoded.frames)  # (U, H', W', C)
        failures = [] if decoded.missing is None else [Failure(record.index, record.name, decoded.missing, lost=False)]
        rows = torch.from_numpy(decoded.rows)
        return TestVideo(record, torch.from_numpy(frames), rows, corners, self.transform.crop_size, failures)
