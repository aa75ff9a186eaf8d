"""Choice between the compiled kernels and PyTorch for every number of rows, from times measured once per machine.

The times of the stages of a network are kept in the user's cache.

Notation: R rows, I input features.
"""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slowfast.utils.logging import get_logger
from slowfast.utils.machine import has_fast_matmul, matmul_conditions
from slowfast.utils.private_cache import cached_json
from slowfast.utils.text_files import to_json

MARGIN = 0.03  # relative gain required to switch implementations, so that noise does not matter
_ROWS = (1, 4, 16, 48, 128, 384, 1024, 3072, 8192)  # numbers of rows to measure
_MAX_VALUES = 1 << 23  # values in all rows together, to limit memory
_ROUNDS = 4  # the shortest time counts
_STEADY, _STEADY_SHARE = 1.2, 0.9  # required ratio of the two shortest times, and how often it must hold
_LONG = 0.01  # seconds beyond which more rows are not measured, because the ratio of times is constant
_MAX_SECONDS = 6.0  # seconds after which the measurement is abandoned
_SHORTEST = 1e-9  # smallest time in seconds, for clocks that did not advance


@dataclass(frozen=True)
class StageTimes:
    """Times of a stage with both implementations.

    Args:
        rows: Numbers of rows, ascending.
        compiled: Seconds of the compiled kernels for each of them.
        pytorch: Seconds of PyTorch for each of them.
    """

    rows: Sequence[int]
    compiled: Sequence[float]
    pytorch: Sequence[float]


@dataclass(frozen=True)
class Choice:
    """Implementation of a stage for every number of rows.

    Args:
        pytorch: Use PyTorch for one row, otherwise the compiled kernels.
        switches: Numbers of rows from which on the other implementation is used, ascending.
    """

    pytorch: bool
    switches: tuple[int, ...] = ()

    def uses_pytorch(self, rows: int) -> bool:
        """Return whether PyTorch runs this many rows."""
        return self.pytorch != bool(bisect_right(self.switches, rows) % 2)

    def may_use_pytorch(self, rows: int) -> bool:
        """Return whether PyTorch runs so many rows, or fewer."""
        return self.pytorch or bool(self.switches and self.switches[0] <= rows)

    @property
    def needs(self) -> set[bool]:
        """Possible results of :meth:`uses_pytorch`, which determine the weights to keep."""
        return {self.pytorch, self.pytorch != bool(self.switches)}


def choose(times: StageTimes) -> Choice:
    """Choose the faster implementation for every number of rows.

    At each measured number of rows the chosen one takes at most 1 + ``MARGIN`` times as long as the other: another is
    chosen only if it is faster by more, as seen from fewer rows; for one row, the compiled kernels are the one to beat.
    Between two measured numbers the ratio of times is interpolated on logarithmic scales, and beyond the last nothing
    changes.
    """
    gains = [math.log(compiled / pytorch) for compiled, pytorch in zip(times.compiled, times.pytorch, strict=True)]
    margin = math.log1p(MARGIN)
    first = now = gains[0] > margin
    switches = []
    for i in range(1, len(gains)):
        # Gains of the other implementation over the current one.
        before, here = (-gains[i - 1], -gains[i]) if now else (gains[i - 1], gains[i])
        if here > margin:
            switches.append(_crossing(times.rows[i - 1], times.rows[i], before, here))
            now = not now
    return Choice(first, tuple(switches))


def _crossing(rows: int, more_rows: int, before: float, here: float) -> int:
    """Return the number of rows, after `rows`, at which a logarithmic gain becomes positive."""
    part = max(-before, 0.0) / (here - before)
    return min(max(math.ceil(rows * (more_rows / rows) ** part), rows + 1), more_rows)


RunsRows = Callable[[torch.Tensor], object]  # runs a stage on rows (R, I)


def cached_times(
    about: Mapping[str, Any], stages: int, measure: Callable[[], list[StageTimes] | None]
) -> list[StageTimes] | None:
    """Return the times of the stages from the cache, or measure them; see :func:`cached_json`.

    A file about something else is measured again and replaced.

    Args:
        about: Anything besides this machine that the times depend on, as JSON values.
        stages: Number of stages.
        measure: Measures the stages; returns None if disturbed by other work.

    Returns:
        The times, or None, with a message, if they could not be measured now.
    """
    bfloat16 = has_fast_matmul(torch.bfloat16, torch.device("cpu"))
    about = {"conditions": matmul_conditions(torch.get_num_threads()), "bfloat16": bfloat16, **about}
    digest = hashlib.sha256(to_json(about, sort_keys=True).encode()).hexdigest()

    def load(content: Any) -> list[StageTimes] | None:
        if content["about"] != about:
            return None
        times = [
            StageTimes(*(tuple(stage[key]) for key in ("rows", "compiled", "pytorch"))) for stage in content["stages"]
        ]
        return times if len(times) == stages and all(map(_is_sound, times)) else None

    def measured() -> dict[str, Any] | None:
        get_logger().info(
            "event-driven inference: measuring on this CPU which kernels are faster (once, a few seconds)"
        )
        times = measure()
        return None if times is None else {"about": about, "stages": [vars(stage) for stage in times]}

    found = cached_json(f"stage-times-{digest[:32]}.json", "the kernels of event-driven inference", load, measured)
    if found is None:
        get_logger().info(
            "event-driven inference: this machine is too busy to measure. Using the compiled kernels; the next run "
            "measures again"
        )
    return found


def _is_sound(times: StageTimes) -> bool:
    """Return whether times read from a file can be used."""
    columns = (times.rows, times.compiled, times.pytorch)
    numbers = all(type(value) in (int, float) and 0 < value < math.inf for column in columns for value in column)
    same = len(times.rows) == len(times.compiled) == len(times.pytorch) > 0
    return numbers and same and all(a < b for a, b in zip(times.rows, times.rows[1:], strict=False))


class MeasuredStage:
    """Stage to measure on both implementations.

    Args:
        compiled: Stage by the compiled kernels.
        pytorch: Stage by PyTorch.
        inputs: Input features.
    """

    def __init__(self, compiled: RunsRows, pytorch: RunsRows, inputs: int) -> None:
        self.implementations, self.inputs = (compiled, pytorch), inputs
        self.seconds: dict[int, tuple[list[float], list[float]]] = {}  # rows -> times of each implementation

    def is_finished(self, rows: int) -> bool:
        """Return whether this many rows need no measurement, because fewer rows already took long enough."""
        times = [(min(compiled), min(pytorch)) for compiled, pytorch in self.seconds.values()]
        took_long = any(min(pair) > _LONG or max(pair) > 3 * _LONG for pair in times)
        return took_long or rows * self.inputs > _MAX_VALUES

    def warm_up(self, rows: torch.Tensor) -> None:
        """Run both implementations untimed: oneDNN generates code for a new number of rows."""
        for implementation in self.implementations:
            implementation(rows)

    def run(self, implementation: int, rows: torch.Tensor, clock: Callable[[], float]) -> None:
        """Run and time the stage on rows (R, I)."""
        start = clock()
        self.implementations[implementation](rows)
        seconds = max(clock() - start, _SHORTEST)
        self.seconds.setdefault(len(rows), ([], []))[implementation].append(seconds)

    def are_steady(self) -> list[bool]:
        """Return for each number of rows and implementation whether the two shortest times agree."""
        shortest = [sorted(times)[:2] for pair in self.seconds.values() for times in pair]
        return [second <= _STEADY * first for first, second in shortest]

    def table(self) -> StageTimes:
        """Return the shortest times."""
        compiled, pytorch = zip(*(map(min, pair) for pair in self.seconds.values()), strict=True)
        return StageTimes(tuple(self.seconds), compiled, pytorch)


def measure_stages(
    stages: Sequence[MeasuredStage], clock: Callable[[], float] = time.perf_counter
) -> list[StageTimes] | None:
    """Measure the stages of a network; takes a few seconds.

    Args:
        stages: Stages in the order of the network.
        clock: Clock in seconds.

    Returns:
        Times of each stage; None if they vary too much to be compared.
    """
    values = torch.randn(_MAX_VALUES, generator=torch.Generator().manual_seed(0))
    start, plan = clock(), []
    for rows in _ROWS:
        todo = [
            (stage, values[: rows * stage.inputs].view(rows, -1)) for stage in stages if not stage.is_finished(rows)
        ]
        if rows > 1 and (not todo or clock() - start > _MAX_SECONDS):
            break
        plan.append(todo)
        for stage, x in todo:
            stage.warm_up(x)
        for _ in range(2):
            _run(todo, clock)
    for _ in range(_ROUNDS):  # start over, so that a burst of other work does not affect all times of a stage
        for todo in plan:
            if clock() - start > _MAX_SECONDS:
                break
            _run(todo, clock)
    steady = [value for stage in stages for value in stage.are_steady()]
    return [stage.table() for stage in stages] if sum(steady) >= _STEADY_SHARE * len(steady) else None


def _run(todo: Sequence[tuple[MeasuredStage, torch.Tensor]], clock: Callable[[], float]) -> None:
    """Time both implementations, alternating between stages so that their weights evict each other from the cache."""
    for implementation in (0, 1):
        for stage, x in todo:
            stage.run(implementation, x, clock)
