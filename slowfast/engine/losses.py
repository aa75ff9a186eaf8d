"""Losses and class weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from slowfast.datasets.index.lines import read_lines
from slowfast.errors import ConfigError, IndexFileError
from slowfast.utils.text import plain, quoted, unknown_value

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def soft_cross_entropy(logits: torch.Tensor, shares: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over N of -sum_k weights_k shares_k log softmax(logits)_k, in float32 even under autocast."""
    return F.cross_entropy(logits.float(), shares, weights)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over N of the weighted negative log-likelihood of the labels.

    The sum is divided by N, not by the sum of the weights, so that the average over the parts of a batch is the loss of
    the whole batch.
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
    "bce_logit": bce_logit,  # for MODEL.TASK multi_label
}
# Losses that accept soft labels, required by label smoothing and MixUp.
SOFT_LOSSES = frozenset({"soft_cross_entropy"})


def get_loss(name: str, weights: torch.Tensor | None = None) -> Loss:
    """Return a loss by name, with class weights (K,). Raises ConfigError for an unknown name."""
    if name not in LOSSES:
        raise ConfigError(unknown_value("MODEL.LOSS_FUNC", name, sorted(LOSSES)))
    return functools.partial(LOSSES[name], weights=weights)


BALANCED = "balanced"
MAX_WEIGHT = 1e9


def class_weights(choice: str, labels: Sequence[int], num_classes: int) -> torch.Tensor | None:
    """Return the class weights (K,) of MODEL.CLASS_WEIGHTS; None if it is empty.

    Args:
        choice: MODEL.CLASS_WEIGHTS: empty, `BALANCED` or a file.
        labels: Labels of the training videos.
        num_classes: K.

    Raises:
        ConfigError: If the file is invalid.
    """
    if not choice:
        return None
    if choice == BALANCED:
        return balanced_weights(labels, num_classes)
    return read_class_weights(Path(choice), num_classes)


def balanced_weights(labels: Sequence[int], num_classes: int) -> torch.Tensor:
    """Return the class weights N / (number of classes with videos x videos of the class).

    Every class then has the same total weight, and the average weight of a video is 1. A class without videos has
    weight 0.
    """
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes)
    weights = len(labels) / (int((counts > 0).sum()) * counts.clamp(min=1).double())
    return torch.where(counts > 0, weights, 0.0).float()


def read_class_weights(path: Path, num_classes: int) -> torch.Tensor:
    """Read class weights (K,) from a file with one number per line, in label order.

    Raises:
        ConfigError: If the file is unreadable, does not have K lines, has a line that is not a number from 0, or has
            only zeros.
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
