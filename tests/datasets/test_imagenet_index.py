"""ImageNet folders and lists: labels, names and errors."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from slowfast.datasets.index.labeled_paths import read_image_class_names, read_imagenet_index
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

CLASSES = ("n02", "n01", "n10")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of two training images and one validation image; the images are empty, since nothing reads them."""
    for split, count in (("train", 2), ("val", 1)):
        for name in CLASSES:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{name}_{number}.JPEG").touch()
            (folder / "notes.txt").touch()
    return tmp_path


def read(root: Path, split: str = "train", classes: int = 3, prefix: str = "") -> list[Record]:
    return read_imagenet_index(root, split, prefix, " ", classes)


def test_folders_are_labeled_in_sorted_order(root: Path) -> None:
    records = read(root)
    assert [record.index for record in records] == list(range(6))
    assert [(record.name, record.label) for record in records[:3]] == [
        ("train/n01/n01_0.JPEG", 0),
        ("train/n01/n01_1.JPEG", 0),
        ("train/n02/n02_0.JPEG", 1),
    ]
    assert all(record.path == root / record.name for record in records)
    assert [record.label for record in read(root, "val")] == [0, 1, 2]
    assert read_image_class_names(root, "", 3) == ["n01", "n02", "n10"]


def test_the_validation_images_are_tested_unless_there_is_a_labeled_test(root: Path) -> None:
    (root / "test").mkdir()
    (root / "test" / "1.JPEG").touch()  # as published: images without labels
    assert read(root, "test") == read(root, "val")
    (root / "test" / "n02").mkdir()
    (root / "test" / "n02" / "a.png").touch()
    assert [(record.name, record.label) for record in read(root, "test")] == [("test/n02/a.png", 1)]


def test_images_in_inner_folders_and_the_prefix_as_root(root: Path) -> None:
    inner = root / "val" / "n01" / "more"
    inner.mkdir()
    (inner / "b.Png").touch()
    index = root / "index"
    index.mkdir()
    names = [record.name for record in read(index, "val", prefix=str(root))]
    assert names[:2] == ["val/n01/more/b.Png", "val/n01/n01_0.JPEG"]


def test_categories_that_name_the_folders_decide_the_labels(root: Path) -> None:
    (root / "categories.txt").write_text("n10\nn05\nn01\nn02\n")
    assert {(record.name[6:9], record.label) for record in read(root, classes=4)} == {
        ("n10", 0),
        ("n01", 2),
        ("n02", 3),
    }
    assert read_image_class_names(root, "", 4) == ["n10", "n05", "n01", "n02"]
    (root / "categories.txt").write_text("n10\nn05\nn01\nn03\n")
    with pytest.raises(IndexFileError, match="n02.*categories.txt names other class folders"):
        read(root, classes=4)


def test_other_categories_are_names_only(root: Path) -> None:
    (root / "categories.txt").write_text("tench\t0\nshark\t2\ncock\t1\n")
    assert [record.label for record in read(root, "val")] == [0, 1, 2]
    assert read_image_class_names(root, "", 3) == ["tench", "cock", "shark"]


def test_lists(root: Path) -> None:
    (root / "train_list.txt").write_text("val/n02/n02_0.JPEG 2\nval/n01/n01_0.JPEG 0\n")
    assert [(record.name, record.label) for record in read(root)] == [
        ("val/n02/n02_0.JPEG", 2),
        ("val/n01/n01_0.JPEG", 0),
    ]
    assert read(root, prefix=str(root / "val/..")) == read(root)
    assert read_image_class_names(root, "", 3) is None
    (root / "train_list.txt").write_text("val/n02/n02_0.JPEG 3\n")
    with pytest.raises(IndexFileError, match=r"train_list\.txt line 1:.*label 3 is out of range"):
        read(root)


def test_mistakes(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(IndexFileError, match="neither train_list.txt nor a folder train of class folders"):
        read(tmp_path / "val")
    with pytest.raises(IndexFileError, match="has 3 class folders, but MODEL.NUM_CLASSES is 2. Set it to 3"):
        read(root, classes=2)
    with caplog.at_level(logging.WARNING, logger="slowfast"):
        assert len(read(root, classes=1000)) == 6
    assert "3 class folders for MODEL.NUM_CLASSES 1000" in caplog.text
    (root / "val" / "n99").mkdir()
    with pytest.raises(IndexFileError, match="n99: no such class"):
        read(root, "val")
    (root / "train" / "n05").mkdir()
    with pytest.raises(IndexFileError, match="n05 contains no images"):
        read(root, classes=4)
