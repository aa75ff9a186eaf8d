"""Sorting of event streams in files against NumPy, and their archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import EventBlock
from slowfast.prepare import event_spool
from slowfast.prepare.event_spool import EventSpool


def spooled(folder: Path, t: np.ndarray, size: int = 37, tick: float = 1.0) -> EventSpool:
    """Return a spool of events whose x is their number."""
    spool = EventSpool(folder, None, tick)
    for at in range(0, len(t), size):
        x = np.arange(at, min(at + size, len(t)))
        spool.add(EventBlock(t[at : at + size], x, x % 50, (x % 2).astype(np.uint8)))
    spool.finish()
    return spool


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_spool, "RUN_EVENTS", 64)
    monkeypatch.setattr(event_spool, "BLOCK_EVENTS", 32)


@pytest.mark.parametrize("kind", ["sorted", "local", "reversed", "random", "equal"])
@pytest.mark.parametrize("count", [1, 64, 65, 1000])
def test_events_are_sorted_stably(tmp_path: Path, kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    t = np.sort(rng.integers(0, count // 3 + 1, count))
    t = {
        "sorted": t,
        "local": t + rng.integers(0, 4, count),
        "reversed": t[::-1],
        "random": rng.permutation(t),
        "equal": np.full(count, 7),
    }[kind]
    spool = spooled(tmp_path / "spool", t)
    order = np.argsort(t, kind="stable")
    parts = list(spool.parts())
    assert np.array_equal(np.concatenate([part.x for part in parts]), order)
    assert np.array_equal(np.concatenate([part.t for part in parts]), t[order])
    spool.write_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        want = {"x": order, "y": order % 50, "t": t[order], "p": order % 2}
        assert all(np.array_equal(file[key], values) for key, values in want.items())
        assert [file[key].dtype for key in "xytp"] == [np.uint16, np.uint16, np.int64, np.uint8]
    middle = spool.between(float(t[order][count // 2]), np.inf)
    assert np.array_equal(middle.t, t[order][t[order] >= t[order][count // 2]])


@pytest.mark.parametrize("counter", [2**31, 2**32])
def test_overflow_is_undone(tmp_path: Path, counter: int) -> None:
    whole = np.arange(0, 40_000_000, 100_000) + counter - 20_000_000
    whole[5:9] = whole[5:9][::-1]
    found = np.concatenate([part.t for part in spooled(tmp_path / "spool", whole % counter).parts()])
    assert np.array_equal(found, np.sort(whole))


def test_units_and_values_out_of_range(tmp_path: Path) -> None:
    spool = spooled(tmp_path / "a", np.array([0.001, 0.25, 1.5]), tick=1e6)
    assert np.concatenate([part.t for part in spool.parts()]).tolist() == [1000, 250_000, 1_500_000]
    with pytest.raises(DecodeError, match="out of range"):
        spooled(tmp_path / "b", np.array([1.0, 1e40]))
    spool = EventSpool(tmp_path / "c", (10, 10), 1.0)
    one = np.ones(1, np.int64)
    spool.add(EventBlock(one, one * 11, one, one.astype(np.uint8)))
    with pytest.raises(DecodeError, match="1 of 1 events are outside of the sensor of 10 x 10 pixels"):
        spool.finish()
