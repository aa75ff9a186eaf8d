"""Order and seeds: which process holds which video, and that nothing else decides it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.order import EpochBatches, batch_parts, clip_rows, epoch_order, generator


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
    with pytest.raises(ValueError, match="7 places"):
        batch_parts(7, 2)


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
