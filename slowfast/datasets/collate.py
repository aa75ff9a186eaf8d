"""Collation of samples into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import default_collate

from slowfast.datasets.types import Failure, Samples, TrainBatch, TrainSample
from slowfast.errors import DataError

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


PADDING = -1  # fill value of x, y, t and p, as published
NO_LABEL = -1  # padding of lists of labels


def pad_events(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Pad event samples to the longest and stack them: dicts of x, y, t, p and valid (L,) -> dict of (N, L).

    Padding has the value PADDING, and False in valid.
    """
    longest = max(len(sample["valid"]) for sample in samples)
    return {
        key: torch.stack([_pad(sample[key], longest, value=0 if key == "valid" else PADDING) for sample in samples])
        for key in samples[0]
    }


def _pad(values: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return F.pad(values, (0, length - len(values)), value=value)


def to_tensors(events: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Convert the columns of an event sample to tensors."""
    return {key: torch.from_numpy(values) for key, values in events.items()}


class UnreadableBatch(DataError):
    """Error for a training batch that cannot be filled because too many consecutive samples are unreadable.

    Args:
        message: The message for the user.
        failures: All failures of the batch.
    """

    def __init__(self, message: str, failures: list[Failure]) -> None:
        super().__init__(message, failures)  # pickle calls the class with these arguments
        self.failures = failures

    def __str__(self) -> str:
        return str(self.args[0])


def collate_clips(samples: list[TrainSample]) -> TrainBatch:
    """Collate B samples of S clips each into a batch of N = B S clips; the clips of a sample are adjacent.

    Raises:
        UnreadableBatch: If a sample could not be replaced by a readable one.
    """
    failures = [failure for sample in samples for failure in sample.failures]
    clips = [sample.clips for sample in samples if sample.clips is not None]
    if len(clips) < len(samples):
        last = failures[-1]
        raise UnreadableBatch(
            f"Stopping: too many training videos in a row are unreadable (limit: DATA.MAX_FAILED), the last: "
            f"{last.name}: {last.reason}",
            failures,
        )
    repeats = len(clips[0])
    labels = stack_labels([sample.record.label for sample in samples]).repeat_interleave(repeats, 0)
    return TrainBatch(_batch(clips), labels, [sample.record.name for sample in samples], failures)


def stack_labels(labels: Sequence[Any]) -> torch.Tensor:
    """Stack the labels of N samples.

    Args:
        labels: Class indices, tuples of class indices, or floats.

    Returns:
        int64 (N,) for class indices; int64 (N, L) for tuples of length up to L, padded with `NO_LABEL`;
        float32 (N,) for floats.
    """
    if not any(isinstance(label, tuple) for label in labels):
        return torch.tensor(labels)
    longest = max(len(label) for label in labels)
    return torch.tensor([[*label, *[NO_LABEL] * (longest - len(label))] for label in labels])


def _batch(clips: Sequence[Samples]) -> Clips:
    if isinstance(clips[0], list):
        return pad_events([to_tensors(events) for of_one in clips for events in of_one])
    frames = [torch.from_numpy(array) for array in clips if isinstance(array, np.ndarray)]
    return default_collate(frames).flatten(0, 1)  # (B, S, T, H, W, C) -> (N, T, H, W, C)


def stack_clips(clips: Sequence[Any]) -> Clips:
    """Stack single clips into a batch: (N, T, H, W, C), or events (N, L), padded to the longest."""
    return pad_events(clips) if isinstance(clips[0], dict) else torch.stack(list(clips))


def split_clips(clips: Clips, size: int) -> list[Clips]:
    """Split a batch into parts of `size` clips."""
    if not isinstance(clips, dict):
        return list(clips.split(size))
    parts = {key: values.split(size) for key, values in clips.items()}
    return [{key: parts[key][i] for key in parts} for i in range(len(parts["valid"]))]
