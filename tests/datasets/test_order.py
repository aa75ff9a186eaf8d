"""Sample order and seeds: assignment of videos to processes, which depends on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.order import (
    ORDER,
    EpochBatches,
    balanced_order,
    batch_parts,
    clip_rows,
    epoch_order,
    generator,
    repeated_order,
)


@given(st.integers(1, 6), st.integers(1, 8))
def test_parts_hold_every_place_once(parts: int, share: int) -> None:
    places = batch_parts(parts * share, parts)
    assert [len(part) for part in places] == [share] * parts
    assert sorted(place for part in places for place in part) == list(range(parts * share))


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_mixing_a_part_is_mixing_the_whole(parts: int, pairs: int, samples: int) -> None:
    size = parts * pairs * 2
    whole = np.arange(size * samples)
    for part in batch_parts(size, parts):
        rows = clip_rows(part, samples)
        assert list(whole[rows][::-1]) == list(whole[::-1][rows])


def test_parts_must_be_equal() -> None:
    with pytest.raises(ValueError, match="7 positions"):
        batch_parts(7, 2)


@given(st.integers(3, 8), st.integers(1, 5), st.integers(1, 3))
def test_three_places_in_a_row_are_in_three_parts(parts: int, pairs: int, repeats: int) -> None:
    """Copies of a repeated image are in different parts, unless they are in the middle of a batch."""
    size = 2 * parts * pairs
    of = {place: number for number, part in enumerate(batch_parts(size, parts)) for place in part}
    for first in (*range(size // 2 - repeats + 1), *range(size // 2, size - repeats + 1)):
        assert len({of[first + i] for i in range(repeats)}) == repeats


def test_order_depends_on_seed_and_epoch() -> None:
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert tuple(epoch_order(50, 0, 0)) == orders[0]


def test_streams_do_not_meet() -> None:
    draws = {generator(stream, 0, 1).integers(2**60) for stream in range(4)}
    assert len(draws) == 4


@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 4))
def test_processes_share_an_epoch_and_any_step_can_be_the_first(count: int, processes: int, share: int) -> None:
    size = processes * share
    samplers = [EpochBatches(count, size, [part]) for part in batch_parts(size, processes)]
    for sampler in samplers:
        sampler.start_at(3)
    together = [sorted(sum(step, [])) for step in zip(*samplers, strict=True)]
    places = [(3, place) for place in range(count // size * size)]
    assert together == [places[i : i + size] for i in range(0, len(places), size)]
    samplers[0].start_at(3, 2)
    whole = list(EpochBatches(count, size, [batch_parts(size, processes)[0]]))
    assert len(list(samplers[0])) == max(len(whole) - 2, 0)


def test_a_balanced_epoch_has_as_many_of_each_class() -> None:
    labels = [7] * 50 + [2] * 8 + [5] * 3
    order = balanced_order(labels, seed=0, epoch=0)
    repeats, places = np.divmod(order, len(labels))
    assert len(order) == len(set(order.tolist())) == len(labels)
    drawn = np.array(labels)[places]
    assert sorted((drawn == label).sum() for label in (2, 5, 7)) == [20, 20, 21]
    for start in range(0, 60, 3):  # every class once before any class repeats
        assert set(drawn[start : start + 3]) == {2, 5, 7}
    for label, count in ((7, 50), (2, 8), (5, 3)):
        times = np.bincount(places[drawn == label] - labels.index(label), minlength=count)
        assert times.max() - times.min() <= 1
    for place in set(places.tolist()):  # the n-th occurrence of a video has the number n - 1
        assert sorted(repeats[places == place]) == list(range((places == place).sum()))


def test_balanced_epochs_depend_on_seed_and_epoch_and_see_all_of_a_large_class() -> None:
    labels = [0] * 90 + [1] * 10
    orders = [tuple(balanced_order(labels, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4 and tuple(balanced_order(labels, 0, 0)) == orders[0]
    seen = {int(place) % 100 for epoch in range(12) for place in balanced_order(labels, 0, epoch)}
    assert seen == set(range(100))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 3))
def test_a_balanced_epoch_equals_the_one_drawn_class_by_class(labels: list[int], epoch: int) -> None:
    rng = generator(ORDER, 5, epoch)
    _, numbers = np.unique(labels, return_inverse=True)
    classes, count = int(numbers.max()) + 1, len(labels)
    chosen = np.concatenate([rng.permutation(classes) for _ in range(-(-count // classes))])[:count]
    expected = np.empty(count, np.int64)
    for number in range(classes):
        samples, draws = np.flatnonzero(numbers == number), np.flatnonzero(chosen == number)
        passes = [rng.permutation(samples) + count * repeat for repeat in range(-(-len(draws) // len(samples)))]
        expected[draws] = np.concatenate([*passes, np.zeros(0, np.int64)])[: len(draws)]
    np.testing.assert_array_equal(balanced_order(labels, 5, epoch), expected)


def test_an_even_set_is_balanced_without_repeats() -> None:
    assert sorted(balanced_order([0, 1, 2] * 4, 3, 1)) == list(range(12))


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 5))
def test_a_repeated_epoch_has_every_image_of_a_part_that_often(count: int, repeats: int, epoch: int) -> None:
    once = epoch_order(count, 3, epoch)
    order = repeated_order(once, repeats)
    assert len(order) == count == len(set(order.tolist()))
    numbers, places = np.divmod(order, count)
    assert places.tolist() == [int(once[i // repeats]) for i in range(count)]
    assert numbers.tolist() == [i % repeats for i in range(count)]


def test_one_repeat_changes_nothing() -> None:
    for order in (epoch_order(31, 2, 1), balanced_order([0] * 20 + [1] * 3, 2, 1)):
        np.testing.assert_array_equal(repeated_order(order, 1), order)


def test_repeats_of_a_balanced_epoch_are_balanced_and_all_differ() -> None:
    labels = [0] * 50 + [1] * 7 + [2] * 3
    order = repeated_order(balanced_order(labels, 0, 0), 3)
    assert len(set(order.tolist())) == 60  # also those of a video that the balanced order drew several times
    places = order % 60
    assert sorted(int((np.array(labels)[places] == label).sum()) for label in range(3)) == [18, 21, 21]
    assert all(len(set(places[i : i + 3].tolist())) == 1 for i in range(0, 60, 3))
