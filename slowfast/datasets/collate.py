"""Samples of a batch to one TrainBatch."""

from __future__ import annotations

import torch
from torch.utils.data import default_collate

from slowfast.datasets.types import TrainBatch, TrainSample
from slowfast.errors import DataError


def collate_clips(samples: list[TrainSample]) -> TrainBatch:
    """B samples of S clips to one batch of N = B x S clips, a video's clips side by side.

    The clips are stacked straight into shared memory when this runs in a worker.

    Raises DataError, returned to the main process, where a sample's tries were used up without a readable video.
    """
    failures = [failure for sample in samples for failure in sample.failures]
    clips = [torch.from_numpy(sample.clips) for sample in samples if sample.clips is not None]
    if len(clips) < len(samples):
        raise DataError(
            f"too many videos in a row cannot be read; the last: {failures[-1].name}: {failures[-1].reason}"
        )
    stacked = default_collate(clips).flatten(0, 1)  # (B, S, T, H, W, C) -> (N, T, H, W, C)
    repeats = clips[0].shape[0]
    labels = torch.tensor([sample.record.label for sample in samples]).repeat_interleave(repeats)
    return TrainBatch(stacked, labels, [sample.record.name for sample in samples], failures)
