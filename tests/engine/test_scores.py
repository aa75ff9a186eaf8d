"""Scores of all samples: rows in bounded memory, merged over processes, and TEST.SAVE_RESULTS_PATH."""

from __future__ import annotations

import logging
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slowfast.config.defaults import get_cfg
from slowfast.engine.tasks import scores
from slowfast.engine.tasks.scores import ScoreRows, check_scores_path, gather_rows, scores_path, write_scores
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World
from slowfast.visualization.results import VideoPrediction


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


LOGITS = np.array([[0.5, -2.25, 7], [1, 2, 3]], np.float32)
PREDICTIONS = [
    VideoPrediction(0, "a.mp4", 2, [(2, 0.9)]),
    VideoPrediction(1, "broken\udcff.mp4", 0),
    VideoPrediction(2, "ü, c.mp4", 1, [(2, 0.7)]),
]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("scores.npz", "out/scores.npz"),
        ("scores.pkl", "out/scores.npz"),
        ("a/b.PICKLE", "out/a/b.npz"),
        ("scores", "out/scores.npz"),
        ("k400.v1", "out/k400.v1.npz"),
        ("/tmp/scores.pkl", "/tmp/scores.npz"),
        ("", None),
    ],
)
def test_a_relative_path_is_in_the_output_folder(setting: str, name: str | None) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", "out", "TEST.SAVE_RESULTS_PATH", setting])
    assert scores_path(cfg) == (None if name is None else Path(name))


@pytest.mark.parametrize("setting", ["scores.npz", "scores.pkl"])
def test_the_file_holds_every_video_in_order(setting: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows = [LOGITS[:1], np.full((1, 3), np.nan, np.float32), LOGITS[1:]]
    write_scores(PREDICTIONS, rows, 3, tmp_path / "new" / "scores.npz", setting)
    with np.load(tmp_path / "new" / "scores.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert sorted(arrays) == ["labels", "logits", "names"]
    assert arrays["names"].tolist() == ["a.mp4", "broken\udcff.mp4", "ü, c.mp4"]
    assert arrays["labels"].tolist() == [2, 0, 1] and arrays["labels"].dtype == np.int64
    assert arrays["logits"].dtype == np.float32
    np.testing.assert_array_equal(arrays["logits"], [LOGITS[0], [np.nan] * 3, LOGITS[1]])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.npz"]
    notices = [record.getMessage() for record in caplog.records]
    assert len(notices) == (setting == "scores.pkl")
    assert all("scores.pkl" in notice and "scores.npz" in notice for notice in notices)


def test_the_file_equals_the_one_of_numpy_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_VALUES_PER_WRITE", 4)
    write_scores(PREDICTIONS, [LOGITS, LOGITS[:1]], 3, tmp_path / "a.npz", "a.npz")
    names = np.array([one.name for one in PREDICTIONS])
    np.savez(tmp_path / "b.npz", names=names, labels=np.array([2, 0, 1]), logits=LOGITS[[0, 1, 0]])
    with zipfile.ZipFile(tmp_path / "a.npz") as one, zipfile.ZipFile(tmp_path / "b.npz") as other:
        assert one.namelist() == other.namelist()
        assert [one.read(name) for name in one.namelist()] == [other.read(name) for name in other.namelist()]


def test_an_empty_test_writes_empty_arrays(tmp_path: Path) -> None:
    write_scores([], [], 5, tmp_path / "scores.npz", "scores.npz")
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as file:
        assert file["logits"].shape == (0, 5) and file["names"].shape == (0,)


def test_a_place_that_is_none_is_found_before_the_test(tmp_path: Path) -> None:
    (tmp_path / "taken.npz").mkdir()
    (tmp_path / "file").touch()
    cfg = get_cfg()
    for setting, part in (("taken.pkl", "is a directory"), ("file/scores.npz", "is not a directory")):
        cfg.merge_from_list(["OUTPUT_DIR", tmp_path, "TEST.SAVE_RESULTS_PATH", setting])
        with pytest.raises(ConfigError, match=rf"TEST\.SAVE_RESULTS_PATH .*{part}"):
            check_scores_path(cfg)
