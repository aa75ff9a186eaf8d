"""Which video comes when, and the seeds: pure functions of RNG_SEED, the epoch and the place.

B videos of a batch over all processes, A accumulation steps, W processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Streams of random numbers; each draw belongs to one, so that no two ever share numbers.
ORDER, VIEW, MIX = range(3)

# DATA.SAMPLING: each video once an epoch, or each class equally often.
BALANCED = "balanced"

Key = tuple[int, int]  # (epoch, place in the epoch's order)


def generator(stream: int, *numbers: int) -> np.random.Generator:
    """A generator that depends on the stream and the numbers only."""
    return np.random.default_rng([stream, *numbers])


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `count` videos in an epoch: int64 (count,)."""
    return generator(ORDER, seed, epoch).permutation(count)


def balanced_order(labels: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch of `count` draws in which all classes come equally often: int64 (count,).

    Every class is drawn once before one is drawn again, and so is every video of a class. A small class's videos come
    several times: a draw is the video's place plus `count` times how often it came before in the epoch.
    """
    rng = generator(ORDER, seed, epoch)
    _, numbers = np.unique(np.asarray(labels), return_inverse=True)
    classes, count = int(numbers.max()) + 1, len(numbers)
    rounds = [rng.permutation(classes) for _ in range(-(-count // classes))]
    chosen = np.concatenate(rounds)[:count]  # a class for each draw
    order = np.empty(count, np.int64)
    for number in range(classes):
        videos, draws = np.flatnonzero(numbers == number), np.flatnonzero(chosen == number)
        passes = [rng.permutation(videos) + count * repeat for repeat in range(-(-len(draws) // len(videos)))]
        order[draws] = np.concatenate(passes)[: len(draws)] if passes else []
    return order


def repeated_order(order: np.ndarray, repeats: int) -> np.ndarray:
    """Return an epoch of the same length with each of its first draws `repeats` times in a row.

    Repeated augmentation as a sampler (Hoffer et al. 2020, arXiv 1901.09335; DeiT): an epoch sees 1 / `repeats` of the
    videos. All copies of a draw differ in their number, and so in their augmentation.

    Args:
        order: int64 (count,), each draw a video's place plus `count` times the number of the draw.
        repeats: AUG.REPEATED, at least 1.

    Returns:
        int64 (count,), in the same notation.
    """
    count = len(order)
    times, places = np.divmod(order[: -(-count // repeats)], count)
    numbers = times[:, None] * repeats + np.arange(repeats)  # draws, repeats
    return np.asarray((places[:, None] + count * numbers).ravel()[:count])


def batch_parts(size: int, parts: int) -> list[list[int]]:
    """Split the places 0 .. size - 1 of a batch into equal parts.

    A place and its mirror image (size - 1 - place) share a part, unless the parts have an odd size, in which one place
    of each is alone. MixUp pairs mirror images, so each process mixes its part just as one process would mix the whole
    batch. Neighboring places are in different parts, as the copies of a repeated sample should be.
    """
    if size % parts:
        raise ValueError(f"{size} places cannot be split in {parts} equal parts")
    inward = [place for i in range((size + 1) // 2) for place in dict.fromkeys((i, size - 1 - i))]
    pairs = size // parts // 2 * parts
    firsts, alone = range(pairs), inward[2 * pairs :]  # of each pair; what remains is nothing or one place of each part
    shares = [[place for i in firsts[part::parts] for place in (i, size - 1 - i)] for part in range(parts)]
    return [sorted(share + alone[part : part + 1]) for part, share in enumerate(shares)]


def clip_rows(videos: list[int], samples: int) -> list[int]:
    """Rows of the videos' clips in the whole batch, each video giving `samples` neighbouring ones."""
    return [video * samples + sample for video in videos for sample in range(samples)]


class EpochBatches(Sampler[list[Key]]):
    """One process's part of every batch of an epoch, from a given step on; an incomplete last batch is left out."""

    def __init__(self, count: int, batch_size: int, parts: list[list[int]]) -> None:
        """`parts`: this process's places in a batch, one list an accumulation step."""
        self.places = [place for part in parts for place in part]
        self.batch_size = batch_size
        self.steps = count // batch_size
        self.epoch, self.first = 0, 0

    def start_at(self, epoch: int, step: int = 0) -> None:
        """The next iteration gives this epoch, from this step on."""
        self.epoch, self.first = epoch, step

    def __len__(self) -> int:
        return max(self.steps - self.first, 0)

    def keys(self, epoch: int, step: int) -> list[Key]:
        """Return the keys of this process's samples of one batch."""
        return [(epoch, step * self.batch_size + place) for place in self.places]

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.first, self.steps):
            yield self.keys(self.epoch, step)
