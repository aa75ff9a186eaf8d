"""Order of training samples and seeds of random numbers: pure functions of RNG_SEED, the epoch and the position.

Notation: B samples of a batch over all processes, A accumulation steps, W processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Random streams. Each kind of draw has its own, so that no two share random numbers.
ORDER, VIEW, MIX = range(3)

# DATA.SAMPLING: each sample once per epoch, or each class equally often.
BALANCED = "balanced"

Key = tuple[int, int]  # (epoch, position in the epoch's order)


def generator(stream: int, *numbers: int) -> np.random.Generator:
    """Return a generator that depends only on the stream and the numbers."""
    return np.random.default_rng([stream, *numbers])


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of `count` samples in an epoch, int64 (count,)."""
    return generator(ORDER, seed, epoch).permutation(count)


def balanced_order(labels: Sequence[int] | np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch with equally many samples of each class, int64 (count,).

    Every class is drawn once before one is drawn again, and so is every sample of a class. Samples of small classes are
    drawn several times: a draw is the index of the sample plus `count` times the number of its earlier draws.

    Args:
        labels: Label of each of `count` samples.
        seed: Seed of the run.
        epoch: Number of the epoch.
    """
    rng = generator(ORDER, seed, epoch)
    _, numbers = np.unique(np.asarray(labels), return_inverse=True)
    classes, count = int(numbers.max()) + 1, len(numbers)
    # Yields the same numbers as one call of `permutation` per round.
    rounds = rng.permuted(np.tile(np.arange(classes), (-(-count // classes), 1)), axis=1)
    order = np.empty(count, np.int64)
    chosen = _by_class(rounds.ravel()[:count], classes)  # the draws of each class
    for samples, draws in zip(_by_class(numbers, classes), chosen, strict=True):
        passes = [rng.permutation(samples) + count * repeat for repeat in range(-(-len(draws) // len(samples)))]
        order[draws] = np.concatenate(passes)[: len(draws)] if passes else []
    return order


def _by_class(numbers: np.ndarray, classes: int) -> list[np.ndarray]:
    """Return the ascending positions of each of `classes` numbers, int64."""
    return np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers, minlength=classes))[:-1])


def repeated_order(order: np.ndarray, repeats: int) -> np.ndarray:
    """Return an epoch of the same length with each of its first draws `repeats` times in a row.

    Repeated augmentation as a sampler (Hoffer et al. 2020, arXiv 1901.09335; DeiT): an epoch sees 1 / `repeats` of the
    samples. All copies of a draw differ in their number, and so in their augmentation.

    Args:
        order: int64 (count,), each draw the index of a sample plus `count` times the number of the draw.
        repeats: AUG.REPEATED, at least 1.

    Returns:
        int64 (count,), in the same notation.
    """
    count = len(order)
    times, indices = np.divmod(order[: -(-count // repeats)], count)
    numbers = times[:, None] * repeats + np.arange(repeats)  # draws, repeats
    return np.asarray((indices[:, None] + count * numbers).ravel()[:count])


def batch_parts(size: int, parts: int) -> list[list[int]]:
    """Split the positions 0 .. size - 1 of a batch into equal parts.

    A position and its mirror image (size - 1 - position) are in the same part; if parts have an odd size, one position
    of each has no partner. MixUp pairs mirror images, so each process mixes its part like a single process mixes the
    batch. Neighboring positions are in different parts, as required for the copies of a repeated sample.
    """
    if size % parts:
        raise ValueError(f"{size} positions cannot be split into {parts} equal parts")
    inward = [position for i in range((size + 1) // 2) for position in dict.fromkeys((i, size - 1 - i))]
    pairs = size // parts // 2 * parts
    # First position of each pair; at most one position of each part remains.
    firsts, alone = range(pairs), inward[2 * pairs :]
    shares = [[position for i in firsts[part::parts] for position in (i, size - 1 - i)] for part in range(parts)]
    return [sorted(share + alone[part : part + 1]) for part, share in enumerate(shares)]


def clip_rows(positions: list[int], copies: int) -> list[int]:
    """Return the rows of the clips of some samples in the global batch; each sample has `copies` adjacent ones."""
    return [position * copies + copy for position in positions for copy in range(copies)]


class EpochBatches(Sampler[list[Key]]):
    """Sampler of this process's part of every batch of an epoch; an incomplete last batch is dropped.

    Args:
        count: Number of samples.
        batch_size: Samples of a batch over all processes.
        parts: Positions of this process in a batch, one list per accumulation step.
    """

    def __init__(self, count: int, batch_size: int, parts: list[list[int]]) -> None:
        self.positions = [position for part in parts for position in part]
        self.batch_size = batch_size
        self.steps = count // batch_size
        self.epoch, self.first = 0, 0

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Start the next iteration at a step of an epoch."""
        self.epoch, self.first = epoch, step

    def __len__(self) -> int:
        return max(self.steps - self.first, 0)

    def keys(self, epoch: int, step: int) -> list[Key]:
        """Return the keys of this process's samples of one batch."""
        return [(epoch, step * self.batch_size + position) for position in self.positions]

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.first, self.steps):
            yield self.keys(self.epoch, step)
