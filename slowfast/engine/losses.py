"""Losses and class weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from slowfast.datasets.index.common import read_lines
from slowfast.errors import ConfigError, IndexFileError
from slowfast.utils.text import plain, quoted

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def soft_cross_entropy(logits: torch.Tensor, shares: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over N of -sum_k weights_k shares_k log softmax(logits)_k; in float32 whatever autocast does."""
    return F.cross_entropy(logits.float(), shares, weights)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over N of the labelled classes' negative log probability times weight.

    Divided by N, not by the batch's weights: parts of a batch then add up to it, whatever their labels.
    """
    return F.cross_entropy(logits.float(), labels, weights, reduction="sum") / len(labels)


def bce_logit(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the binary cross-entropy of logits (N, K) and targets in [0, 1], averaged over N and K.

    Each class is weighted by weights (K,).
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets, weights)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": soft_cross_entropy,
    "bce_logit": bce_logit,  # of MODEL.TASK multi_label
}
# The losses that take shares of classes: those that label smoothing and MixUp need.
SOFT_LOSSES = frozenset({"soft_cross_entropy"})


def get_loss(name: str, weights: torch.Tensor | None = None) -> Loss:
    """The loss of that name with these weights of classes (K,); ConfigError for an unknown one."""
    if name not in LOSSES:
        raise ConfigError(f"MODEL.LOSS_FUNC {name!r} is none of {', '.join(LOSSES)}")
    return functools.partial(LOSSES[name], weights=weights)


BALANCED = "balanced"
MAX_WEIGHT = 1e9


def class_weights(choice: str, labels: Sequence[int], num_classes: int) -> torch.Tensor | None:
    """Weights (K,) that MODEL.CLASS_WEIGHTS names; None where it is empty: all classes weigh the same.

    labels: of the training videos. Raises ConfigError as `read_class_weights`.
    """
    if not choice:
        return None
    if choice == BALANCED:
        return balanced_weights(labels, num_classes)
    return read_class_weights(Path(choice), num_classes)


def balanced_weights(labels: Sequence[int], num_classes: int) -> torch.Tensor:
    """N / (classes present x videos of the class): each class weighs the same in all, a video 1 on average.

    A class without a video has weight 0.
    """
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes)
    weights = len(labels) / (int((counts > 0).sum()) * counts.clamp(min=1).double())
    return torch.where(counts > 0, weights, 0.0).float()


def read_class_weights(path: Path, num_classes: int) -> torch.Tensor:
    """Weights (K,) from a file of one number a line, in the order of the labels.

    Raises:
        ConfigError: For an unreadable file, a line that is no number from 0, another number of lines than K, and only
            zeros.
    """
    try:
        lines = read_lines(path, "give a file of one weight per line, balanced, or nothing")
    except IndexFileError as error:
        raise ConfigError(f"MODEL.CLASS_WEIGHTS: {error}") from None
    if len(lines) != num_classes:
        raise ConfigError(
            f"MODEL.CLASS_WEIGHTS: {plain(path)} has {len(lines)} weights, but MODEL.NUM_CLASSES is {num_classes}"
        )
    weights = [_weight(path, number, line) for number, line in lines]
    if not any(weights):
        raise ConfigError(f"MODEL.CLASS_WEIGHTS: {plain(path)} has only zeros. Give one class a weight above 0")
    return torch.tensor(weights)


def _weight(path: Path, number: int, line: str) -> float:
    try:
        weight = float(line)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= MAX_WEIGHT:
        raise ConfigError(
            f"MODEL.CLASS_WEIGHTS: {plain(path)} line {number}: {quoted(line)} is not a number from 0 to {MAX_WEIGHT:g}"
        )
    return weight
