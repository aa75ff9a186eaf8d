"""Timers of the benchmark: what counts, what is discarded, and how values of several runs are combined."""

from __future__ import annotations

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import Stopwatch, Timings, time_interleaved


class Clock:
    """A clock that moves only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_cases_take_turns_and_the_warm_up_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = Clock(monkeypatch), []
    durations = {"a": iter([100.0, 1.0, 3.0, 2.0]), "b": iter([100.0, 2.0, 2.0, 8.0])}

    def run(name: str) -> None:
        order.append(name)
        clock.passes(next(durations[name]))

    timings = time_interleaved({"a": lambda: run("a"), "b": lambda: run("b")}, 3, torch.device("cpu"))
    assert order == ["a", "b"] * 4
    assert timings.seconds == {"a": [1.0, 3.0, 2.0], "b": [2.0, 2.0, 8.0]}


def test_median_and_ratio_are_over_runs() -> None:
    timings = Timings({"a": [1.0, 30.0, 4.0], "b": [2.0, 20.0, 2.0]})
    assert timings.median("a") == 4.0
    assert timings.ratio("a", "b") == 1.5  # of 0.5, 1.5 and 2: not the ratio of the medians


def test_a_piece_inside_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(monkeypatch), Stopwatch()
    with watch.measure("outer"):
        clock.passes(1.0)
        for _ in range(2):
            with watch.measure("inner"):
                clock.passes(10.0)
        clock.passes(0.5)
    assert watch.seconds == {"outer": 1.5, "inner": 20.0}


def test_a_failing_piece_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(monkeypatch), Stopwatch()
    with pytest.raises(KeyError), watch.measure("broken"):
        clock.passes(2.0)
        raise KeyError
    with watch.measure("broken"):
        clock.passes(1.0)
    assert watch.seconds == {"broken": 3.0}
