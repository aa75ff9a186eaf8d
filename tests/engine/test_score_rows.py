"""Scores of all samples in bounded memory, merged over processes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slowfast.engine.tasks import scores
from slowfast.engine.tasks.scores import ScoreRows, gather_rows
from slowfast.utils.distributed import World


@dataclass(frozen=True)
class Threads(World):
    """Process group of threads that gather through a shared list."""

    parts: list[Any] = field(default_factory=list)
    barrier: Any = None

    def gather(self, items: Any) -> list[Any]:
        self.parts[self.rank] = list(items)
        self.barrier.wait(120)
        found = [item for part in self.parts for item in part]
        self.barrier.wait(120)
        return found


@pytest.mark.parametrize("in_memory", [0, scores._IN_MEMORY])
def test_rows_are_read_back(in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(scores, "_BLOCK", 50)
    rows, expected = ScoreRows(4, tmp_path), np.random.default_rng(0).random((11, 4)).astype(np.float32)
    for row in expected[:5]:
        rows.append(row)
    np.testing.assert_array_equal(rows.read(np.array([0, 2, 3])), expected[[0, 2, 3]])
    rows.append(expected[5:])
    assert len(rows) == 11 and rows.block == 3
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), expected)
    assert rows.read(np.zeros(0, np.int64)).shape == (0, 4) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("processes", [1, 3])
def test_rows_of_all_processes_are_in_the_order_of_the_samples(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_BLOCK", 100)
    count, expected = 40, np.random.default_rng(0).random((40, 5)).astype(np.float32)
    every, unreadable = 3 * np.arange(count), np.array([0, 7, 8, 39])
    expected[unreadable] = np.nan
    parts, barrier, results = [[] for _ in range(processes)], threading.Barrier(processes), {}

    def work(rank: int) -> None:
        own = np.setdiff1d(np.arange(rank, count, processes), unreadable)
        own = np.random.default_rng(rank).permutation(own)
        rows = ScoreRows(5)
        for place in own:
            rows.append(expected[place])
        world = Threads(rank, processes, parts=parts, barrier=barrier)
        results[rank] = gather_rows(world, rows, every[own], every, None)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate(list(results[0].blocks())), expected)
    assert all(len(results[rank]) == 0 for rank in range(1, processes))
