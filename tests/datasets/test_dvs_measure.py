"""Durations and numbers of events of all recordings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.dvs import measure
from slowfast.datasets.dvs.index import read_event_index
from slowfast.datasets.dvs.measure import event_counts, longest_recording
from slowfast.datasets.dvs.recording import Opening
from slowfast.errors import DataError
from tests.conftest import cached

SENSOR = (12, 16)
OPENING = Opening(SENSOR)


class TestMeasures:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache" / "slowfast"

    def write(self, folder: Path, name: str, times: list[int], x: int = 0) -> None:
        (folder / "a").mkdir(parents=True, exist_ok=True)
        zeros = np.zeros(len(times), int)
        np.savez(folder / "a" / name, x=zeros + x, y=zeros, t=times, p=zeros)

    def test_duration_is_cached_until_a_file_changes(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tmp_path / "data"
        for number in range(8):
            self.write(data, f"{number}.npz", [5, 100 + number, 105 + number])
        (data / "a" / "7.npz").write_bytes(b"broken")
        records = read_event_index(data, "train", 1)
        assert longest_recording(records, OPENING) == 105
        with monkeypatch.context() as patch:
            patch.setattr(measure, "duration", None)
            assert longest_recording(records, OPENING) == 105, "the cache was not used"
        self.write(data, "2.npz", [0, 100_000])
        assert longest_recording(records, OPENING) == 100_000
        assert longest_recording(records, Opening(SENSOR, 1e-3)) == pytest.approx(100_000_000)

    def test_unsorted_recordings_are_measured_from_the_first_event(self, tmp_path: Path) -> None:
        self.write(tmp_path / "data", "1.npz", [500, 9000, 20])
        self.write(tmp_path / "data", "2.npz", [1, 2])
        records = read_event_index(tmp_path / "data", "test", 1) + read_event_index(tmp_path / "data", "train", 1)
        assert longest_recording(records, OPENING) == 8980

    def test_damaged_or_unwritable_cache_is_ignored(self, tmp_path: Path, cache: Path) -> None:
        self.write(tmp_path / "data", "1.npz", [0, 70])
        self.write(tmp_path / "data", "2.npz", [0, 70])
        records = read_event_index(tmp_path / "data", "train", 1)
        assert longest_recording(records, OPENING) == 70
        (file,) = cached(cache)
        for damaged in ("", "{", json.dumps({"microseconds": -1}), "[]", json.dumps({"microseconds": "x"})):
            file.write_text(damaged)
            assert longest_recording(records, OPENING) == 70
        shutil.rmtree(cache)
        cache.write_text("a file, no folder")
        assert longest_recording(records, OPENING) == 70

    def test_nothing_to_measure(self, tmp_path: Path) -> None:
        self.write(tmp_path / "data", "1.npz", [3, 3])
        self.write(tmp_path / "data", "2.npz", [3, 3])
        with pytest.raises(DataError, match="DVS.TIME_NORM"):
            longest_recording(read_event_index(tmp_path / "data", "train", 1), OPENING)

    def test_counts_are_cached_and_0_for_unreadable_files(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tmp_path / "data"
        for number in range(40):
            self.write(data, f"{number:02d}.npz", list(range(number + 1)))
        (data / "a" / "07.npz").write_bytes(b"broken")
        records = read_event_index(data, "train", 1)
        counts = [0 if number == 7 else number + 1 for number in range(32)]
        assert event_counts(records, OPENING).tolist() == counts
        (file,) = cached(cache)
        with monkeypatch.context() as patch:
            patch.setattr(measure, "count", None)
            assert event_counts(records, OPENING).tolist() == counts, "the cache was not used"
        for damaged in ("{", json.dumps({"events": [1]}), json.dumps({"events": ["1"] * 32})):
            file.write_text(damaged)
            assert event_counts(records, OPENING).tolist() == counts
