"""Index of event recordings, and the duration of the longest one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slowfast.config.defaults import get_cfg
from slowfast.datasets.dvs import dataset
from slowfast.datasets.dvs.dataset import longest_recording
from slowfast.datasets.dvs.index import read_event_class_names, read_event_index
from slowfast.datasets.event_cameras import EventDataset
from slowfast.errors import DataError, IndexFileError

SENSOR = (12, 16)


def fill(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def test_first_80_percent_of_each_class_train(tmp_path: Path) -> None:
    for name, count in (("a", 10), ("c", 4)):
        fill(tmp_path / name, [f"{name}_{number:04d}.npz" for number in range(count)])
    (tmp_path / "a" / "notes.txt").touch()
    train, test = (read_event_index(tmp_path, split, 24) for split in ("train", "test"))
    assert [r.name for r in train if r.label == 0] == [f"a/a_{number:04d}.npz" for number in range(8)]
    assert [r.name for r in test] == ["a/a_0008.npz", "a/a_0009.npz", "c/c_0003.npz"]
    assert [r.label for r in test] == [0, 0, 1] and [r.index for r in test] == [0, 1, 2]
    assert read_event_index(tmp_path, "val", 24) == test
    assert read_event_class_names(tmp_path, 3) == ["a", "c", "2"]


def test_split_folders_and_numbers_as_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in range(11):
            fill(tmp_path / split / str(label), [f"{split}{label}.npz"])
    train = read_event_index(tmp_path, "train", 11)
    assert sorted((r.label, r.name) for r in train)[10] == (10, "train/10/train10.npz")
    assert {r.label for r in read_event_index(tmp_path, "val", 11)} == set(range(11))
    assert [r.path for r in read_event_index(tmp_path, "val", 11)] == [
        r.path for r in read_event_index(tmp_path, "test", 11)
    ]


def test_numbers_in_string_order(tmp_path: Path) -> None:
    """Number the classes as torchvision does, and hence weights trained with the authors' code."""
    for split in ("train", "test"):
        for label in range(11):
            fill(tmp_path / split / str(label), ["x.npz"])
    places = {r.name: r.label for r in read_event_index(tmp_path, "test", 11, order="name")}
    assert [places[f"test/{name}/x.npz"] for name in (0, 1, 2, 9, 10)] == [0, 1, 3, 10, 2]
    assert read_event_class_names(tmp_path, 11, order="name")[:4] == ["0", "1", "10", "2"]
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", str(tmp_path), "MODEL.NUM_CLASSES", 11])
    for order, tenth in (("number", 10), ("name", 2)):
        cfg.DVS.CLASS_ORDER = order
        (record,) = (r for r in EventDataset(cfg).read_index("train") if r.name == "train/10/x.npz")
        names = EventDataset(cfg).read_class_names()
        assert record.label == tenth and names is not None and names[tenth] == "10"


def test_class_names_file_determines_the_labels(tmp_path: Path) -> None:
    for name in ("down", "left"):
        fill(tmp_path / "train" / name, ["a.npy"])
    fill(tmp_path / "test" / "left", ["a.npy"])
    (tmp_path / "categories.txt").write_text("left\t0\nright\t1\ndown\t2\n")
    assert [(r.name, r.label) for r in read_event_index(tmp_path, "train", 3)] == [
        ("train/down/a.npy", 2),
        ("train/left/a.npy", 0),
    ]
    assert read_event_class_names(tmp_path, 3) == ["left", "right", "down"]


def test_invalid_folders_are_errors(tmp_path: Path) -> None:
    def refused(split: str, classes: int, message: str) -> None:
        with pytest.raises(IndexFileError, match=message):
            read_event_index(tmp_path, split, classes)

    refused("train", 2, "contains no class folders")
    fill(tmp_path / "train" / "a", ["x.npz"])
    refused("test", 2, r"no test/")
    fill(tmp_path / "test" / "b", ["x.npz"])
    refused("test", 2, "has no counterpart in")
    refused("train", 0, "MODEL.NUM_CLASSES is 0")
    fill(tmp_path / "train" / "c", ["x.jpg"])
    refused("train", 3, "contains no recordings")
    with pytest.raises(IndexFileError, match="is not a folder"):
        read_event_index(tmp_path / "none", "train", 2)


class TestLongest:
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
        assert longest_recording(records, SENSOR, 1e-6) == 105
        with monkeypatch.context() as patch:
            patch.setattr(dataset, "duration", None)
            assert longest_recording(records, SENSOR, 1e-6) == 105, "the cache was not used"
        self.write(data, "2.npz", [0, 100_000])
        assert longest_recording(records, SENSOR, 1e-6) == 100_000
        assert longest_recording(records, SENSOR, 1e-3) == pytest.approx(100_000_000)

    def test_unsorted_recordings_are_measured_from_the_first_event(self, tmp_path: Path) -> None:
        self.write(tmp_path / "data", "1.npz", [500, 9000, 20])
        self.write(tmp_path / "data", "2.npz", [1, 2])
        records = read_event_index(tmp_path / "data", "test", 1) + read_event_index(tmp_path / "data", "train", 1)
        assert longest_recording(records, SENSOR, 1e-6) == 8980

    def test_damaged_or_unwritable_cache_is_ignored(self, tmp_path: Path, cache: Path) -> None:
        self.write(tmp_path / "data", "1.npz", [0, 70])
        self.write(tmp_path / "data", "2.npz", [0, 70])
        records = read_event_index(tmp_path / "data", "train", 1)
        assert longest_recording(records, SENSOR, 1e-6) == 70
        (file,) = cache.iterdir()
        for damaged in ("", "{", json.dumps({"microseconds": -1}), "[]", json.dumps({"microseconds": "x"})):
            file.write_text(damaged)
            assert longest_recording(records, SENSOR, 1e-6) == 70
        file.unlink()
        cache.rmdir()
        cache.write_text("a file, no folder")
        assert longest_recording(records, SENSOR, 1e-6) == 70

    def test_nothing_to_measure(self, tmp_path: Path) -> None:
        self.write(tmp_path / "data", "1.npz", [3, 3])
        self.write(tmp_path / "data", "2.npz", [3, 3])
        with pytest.raises(DataError, match="DVS.TIME_NORM"):
            longest_recording(read_event_index(tmp_path / "data", "train", 1), SENSOR, 1e-6)
