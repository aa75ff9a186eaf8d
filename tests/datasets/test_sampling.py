"""Order of samples, parts of batches and frames of views: published formulas one value at a time, and invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets import sampling

LENGTHS = st.integers(1, 500)
SEEDS = st.integers(0, 2**32 - 1)


def assert_valid(indices: np.ndarray, n: int) -> None:
    assert indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() <= n - 1
    assert (np.diff(indices, axis=-1) >= 0).all()


# ------------------------------------------------------------------ Kinetics style
def spans(frames: int, offset_sampling: bool = False) -> sampling.SpanSampling:
    """Sampling of clips whose span in frames is the frame rate."""
    return sampling.SpanSampling(frames, 1, frames, offset_sampling)


def test_clip_span() -> None:
    clips = sampling.SpanSampling(16, 4, 30, False)
    assert clips.span(30.0) == 64
    assert clips.span(15.0) == 32


def test_published_steps_of_four_and_five() -> None:
    steps = np.diff(sampling.span_indices(300, 0.0, 64.0, 16))
    assert set(steps) == {4, 5} and steps.sum() == 63


@given(n=LENGTHS, start=st.floats(0, 600), span=st.floats(1, 300), frames=st.integers(2, 32))
def test_span_indices_follow_the_formula(n: int, start: float, span: float, frames: int) -> None:
    indices = sampling.span_indices(n, start, span, frames)
    assert_valid(indices, n)
    for i, index in enumerate(indices):
        position = start + (span - 1) * i / (frames - 1)
        allowed = {min(max(math.floor(position + noise), 0), n - 1) for noise in (-1e-6, 1e-6)}
        assert index in allowed


@given(n=LENGTHS, span=st.floats(0.5, 300), frames=st.integers(1, 32), seed=SEEDS)
def test_span_train_stays_in_the_video(n: int, span: float, frames: int, seed: int) -> None:
    indices = spans(frames).train(n, span, np.random.default_rng(seed))
    assert indices.shape == (frames,)
    assert_valid(indices, n)
    if n > span:  # the clip spans at most its own length
        assert indices[-1] <= math.ceil(indices[0] + span)


def test_span_train_covers_all_starts() -> None:
    rng = np.random.default_rng(0)
    starts = {int(spans(4).train(20, 10.0, rng)[0]) for _ in range(500)}
    assert starts == set(range(10))


@given(
    n=LENGTHS,
    span=st.floats(1, 100),
    frames=st.integers(1, 32),
    views=st.integers(1, 10),
    offset=st.booleans(),
)
def test_span_views_follow_the_formula(n: int, span: float, frames: int, views: int, offset: bool) -> None:
    indices = spans(frames, offset).views(n, span, views)
    assert indices.shape == (views, frames)
    assert_valid(indices, n)
    delta = max(n - span, 0)
    for view in range(views):
        if not offset:
            start = delta * view / views
        elif views == 1:
            start = math.floor(delta / 2)
        else:
            start = view * math.floor(delta / (views - 1))
        assert np.array_equal(indices[view], sampling.span_indices(n, start, span, frames))
    if delta >= views:
        assert len({tuple(row) for row in indices}) == views


def test_a_span_below_one_frame_repeats_it() -> None:
    assert list(sampling.span_indices(9, 3.0, 0.4, 4)) == [3] * 4


def test_a_clip_longer_than_the_video_repeats_its_last_frame() -> None:
    views = spans(16, True).views(5, 64.0, 3)
    assert (views == views[0]).all()
    assert list(views[0]) == [0, 4] + [4] * 14


# ------------------------------------------------------------------ Something style
@given(n=LENGTHS, frames=st.integers(1, 40), seed=SEEDS)
def test_segment_train_takes_one_frame_of_each_segment(n: int, frames: int, seed: int) -> None:
    indices = sampling.SegmentSampling(frames).train(n, 30.0, np.random.default_rng(seed))
    assert indices.shape == (frames,)
    assert_valid(indices, n)
    segment = (n - 1) / frames
    for i, index in enumerate(indices):
        assert round(segment * i) <= index <= round(segment * (i + 1))


def test_segment_train_reaches_both_ends_of_a_segment() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([sampling.SegmentSampling(2).train(9, 30.0, rng) for _ in range(200)])
    assert set(draws[:, 0]) == set(range(5)) and set(draws[:, 1]) == set(range(4, 9))


@given(n=LENGTHS, frames=st.integers(1, 40), views=st.integers(1, 6))
def test_segment_views_follow_the_formula(n: int, frames: int, views: int) -> None:
    indices = sampling.SegmentSampling(frames).views(n, 30.0, views)
    assert indices.shape == (views, frames)
    assert_valid(indices, n)
    segment = (n - 1) / frames
    for view in range(views):
        expected = [round(segment * i) + math.floor(segment / (views + 1) * (view + 1)) for i in range(frames)]
        assert list(indices[view]) == expected
    if segment >= views + 1:
        assert len({tuple(row) for row in indices}) == views


def test_frame_order() -> None:
    rows = np.array([3, 5, 5, 8, 9])
    assert np.array_equal(sampling.frame_order(rows, "normal", np.random.default_rng(0)), rows)
    assert list(sampling.frame_order(rows, "repeated", np.random.default_rng(0))) == [5] * 5
    shuffled = [sampling.frame_order(rows, "shuffled", np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert sorted(shuffled[0]) == list(rows)
    assert np.array_equal(shuffled[0], shuffled[1]) and not np.array_equal(shuffled[0], shuffled[2])
    assert list(rows) == [3, 5, 5, 8, 9]
    with pytest.raises(ValueError, match="normal, repeated, shuffled"):
        sampling.frame_order(rows, "reversed", np.random.default_rng(0))


# ------------------------------------------------------------------ order and batches
@given(st.integers(1, 6), st.integers(1, 8))
def test_parts_hold_every_place_once(parts: int, share: int) -> None:
    places = sampling.batch_parts(parts * share, parts)
    assert [len(part) for part in places] == [share] * parts
    assert sorted(place for part in places for place in part) == list(range(parts * share))


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_mixing_a_part_is_mixing_the_whole(parts: int, pairs: int, samples: int) -> None:
    size = parts * pairs * 2
    whole = np.arange(size * samples)
    for part in sampling.batch_parts(size, parts):
        rows = sampling.clip_rows(part, samples)
        assert list(whole[rows][::-1]) == list(whole[::-1][rows])


def test_parts_must_be_equal() -> None:
    with pytest.raises(ValueError, match="7 positions"):
        sampling.batch_parts(7, 2)


@given(st.integers(3, 8), st.integers(1, 5), st.integers(1, 3))
def test_three_places_in_a_row_are_in_three_parts(parts: int, pairs: int, repeats: int) -> None:
    """Copies of a repeated image are in different parts, unless they are in the middle of a batch."""
    size = 2 * parts * pairs
    of = {place: number for number, part in enumerate(sampling.batch_parts(size, parts)) for place in part}
    for first in (*range(size // 2 - repeats + 1), *range(size // 2, size - repeats + 1)):
        assert len({of[first + i] for i in range(repeats)}) == repeats


def test_order_depends_on_seed_and_epoch() -> None:
    orders = [tuple(sampling.epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert tuple(sampling.epoch_order(50, 0, 0)) == orders[0]


def test_streams_do_not_meet() -> None:
    draws = {sampling.generator(stream, 0, 1).integers(2**60) for stream in range(4)}
    assert len(draws) == 4


@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 4))
def test_processes_share_an_epoch_and_any_step_can_be_the_first(count: int, processes: int, share: int) -> None:
    size = processes * share
    batches = [sampling.EpochBatches(count, size, [part]) for part in sampling.batch_parts(size, processes)]
    places = [(3, place) for place in range(count // size * size)]
    for step in range(batches[0].steps):
        assert sorted(sum((part.keys(3, step) for part in batches), [])) == places[step * size : (step + 1) * size]
    batches[0].start_at(3, 2)
    assert len(batches[0]) == max(batches[0].steps - 2, 0)


def test_a_balanced_epoch_has_as_many_of_each_class() -> None:
    labels = [7] * 50 + [2] * 8 + [5] * 3
    order = sampling.balanced_order(labels, seed=0, epoch=0)
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
    orders = [tuple(sampling.balanced_order(labels, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4 and tuple(sampling.balanced_order(labels, 0, 0)) == orders[0]
    seen = {int(place) % 100 for epoch in range(12) for place in sampling.balanced_order(labels, 0, epoch)}
    assert seen == set(range(100))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 3))
def test_a_balanced_epoch_equals_the_one_drawn_class_by_class(labels: list[int], epoch: int) -> None:
    rng = sampling.generator(sampling.ORDER, 5, epoch)
    _, numbers = np.unique(labels, return_inverse=True)
    classes, count = int(numbers.max()) + 1, len(labels)
    chosen = np.concatenate([rng.permutation(classes) for _ in range(-(-count // classes))])[:count]
    expected = np.empty(count, np.int64)
    for number in range(classes):
        samples, draws = np.flatnonzero(numbers == number), np.flatnonzero(chosen == number)
        passes = [rng.permutation(samples) + count * repeat for repeat in range(-(-len(draws) // len(samples)))]
        expected[draws] = np.concatenate([*passes, np.zeros(0, np.int64)])[: len(draws)]
    np.testing.assert_array_equal(sampling.balanced_order(labels, 5, epoch), expected)


def test_an_even_set_is_balanced_without_repeats() -> None:
    assert sorted(sampling.balanced_order([0, 1, 2] * 4, 3, 1)) == list(range(12))


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 5))
def test_a_repeated_epoch_has_every_image_of_a_part_that_often(count: int, repeats: int, epoch: int) -> None:
    once = sampling.epoch_order(count, 3, epoch)
    order = sampling.repeated_order(once, repeats)
    assert len(order) == count == len(set(order.tolist()))
    numbers, places = np.divmod(order, count)
    assert places.tolist() == [int(once[i // repeats]) for i in range(count)]
    assert numbers.tolist() == [i % repeats for i in range(count)]


def test_one_repeat_changes_nothing() -> None:
    for order in (sampling.epoch_order(31, 2, 1), sampling.balanced_order([0] * 20 + [1] * 3, 2, 1)):
        np.testing.assert_array_equal(sampling.repeated_order(order, 1), order)


def test_repeats_of_a_balanced_epoch_are_balanced_and_all_differ() -> None:
    labels = [0] * 50 + [1] * 7 + [2] * 3
    order = sampling.repeated_order(sampling.balanced_order(labels, 0, 0), 3)
    assert len(set(order.tolist())) == 60  # also those of a video that the balanced order drew several times
    places = order % 60
    assert sorted(int((np.array(labels)[places] == label).sum()) for label in range(3)) == [18, 21, 21]
    assert all(len(set(places[i : i + 3].tolist())) == 1 for i in range(0, 60, 3))
