"""Index of event recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowfast.config.defaults import get_cfg
from slowfast.datasets.dvs.index import read_event_class_names, read_event_index
from slowfast.datasets.event_cameras import EventDataset
from slowfast.errors import IndexFileError


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
