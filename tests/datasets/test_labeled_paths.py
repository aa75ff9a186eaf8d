"""Indexes of Kinetics and ImageNet: records, labels and names, and one clear line per error."""

from __future__ import annotations

import csv
import io
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.decode.reader import DecodeError, check_file
from slowfast.datasets.index.labeled_paths import (
    format_line,
    parse_line,
    read_class_names,
    read_image_class_names,
    read_imagenet_index,
    read_kinetics_index,
)
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError


# ------------------------------------------------------------------ Kinetics
@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "a").mkdir(parents=True)
    for name in ("one.mp4", "a/two words.mp4", "a/b,c.mp4"):
        (folder / name).write_bytes(b"x")
    return folder


def read(folder: Path, text: str | bytes, prefix: str, separator: str = " ", classes: int = 10) -> list[Record]:
    (folder / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_kinetics_index(folder, "train", prefix, separator, classes)


def test_lines_become_records(tmp_path: Path, media: Path) -> None:
    text = b"\xef\xbb\xbfone.mp4 3\r\n\r\na/two words.mp4 0\n   \n./a/../one.mp4   9"
    records = read(tmp_path, text, str(media))
    assert [(r.index, r.name, r.label) for r in records] == [
        (0, "one.mp4", 3),
        (1, "a/two words.mp4", 0),
        (2, "./a/../one.mp4", 9),
    ]
    assert [r.path for r in records] == [media / "one.mp4", media / "a/two words.mp4", media / "one.mp4"]


def test_a_comma_and_a_path_with_commas(tmp_path: Path, media: Path) -> None:
    records = read(tmp_path, "a/b,c.mp4,4\none.mp4, 5\n", str(media), ",")
    assert [(r.name, r.label) for r in records] == [("a/b,c.mp4", 4), ("one.mp4", 5)]


def test_no_prefix_is_the_working_directory(tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(media / "a")
    records = read(tmp_path, f"../one.mp4 1\n{media}/one.mp4 2\n", "")
    assert [r.path for r in records] == [media / "one.mp4"] * 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("one.mp4", "no label"),
        (" 3", "no label"),
        ("one.mp4 three", "label three is not a non-negative integer"),
        ("one.mp4 -1", "label -1 is not a non-negative integer"),
        ("one.mp4 1.5", "label 1.5 is not a non-negative integer"),
        ("one.mp4 10", "label 10 is out of range"),
        ("one.mp4,3", "no label"),
        ("../secret.mp4 3", "leaves DATA.PATH_PREFIX"),
        ("a/../../secret.mp4 3", "leaves DATA.PATH_PREFIX"),
        ("/etc/passwd 3", "leaves DATA.PATH_PREFIX"),
        ("../media2/one.mp4 3", "leaves DATA.PATH_PREFIX"),
    ],
)
def test_a_broken_line_is_shown(line: str, problem: str, tmp_path: Path, media: Path) -> None:
    with pytest.raises(IndexFileError) as caught:
        read(tmp_path, f"one.mp4 1\n\n{line}\none.mp4 2\n", str(media))
    message = str(caught.value)
    assert f"{tmp_path / 'train.csv'} line 3: " in message and repr(line.strip()) in message
    assert problem in message and "Expected path label" in message and "0 to 9" in message
    assert "\n" not in message


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1, max_size=20)


@given(st.lists(st.tuples(NAMES.map(str.strip).filter(bool), st.integers(0, 9)), min_size=1), st.sampled_from(",;\t| "))
def test_lines_that_python_writes_as_csv_are_read_back(rows: list[tuple[str, int]], separator: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    lines = text.getvalue().split("\n")[:-1]
    assert [parse_line(line.strip(), separator, 10) for line in lines] == rows


@given(NAMES.map(str.strip).filter(bool), st.sampled_from((" ", ",", "\t", ", ", "::")), st.integers(0, 99))
def test_lines_written_here_are_read_back(name: str, separator: str, label: int) -> None:
    assert parse_line(format_line(name, separator, label).strip(), separator) == (name, label)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('"one.mp4,3', "unbalanced quotation marks"),
        ('"one.mp4" x,3', "unbalanced quotation marks"),
        ('"one.mp4"', "1 fields"),
        ('"one.mp4",3,4', "3 fields"),
        ('"",3', "no path"),
        ('"one.mp4",three', "label three is not"),
        ('"../one.mp4",3', "leaves DATA.PATH_PREFIX"),
    ],
)
def test_broken_quotes_are_shown(line: str, problem: str, tmp_path: Path, media: Path) -> None:
    with pytest.raises(IndexFileError) as caught:
        read(tmp_path, f"one.mp4,1\n{line}\n", str(media), ",")
    assert "train.csv line 2: " in str(caught.value) and problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"one.mp4 1\n\0\0\0 2\n", "line 2: contains a NUL character"),
        (b"one.mp4 1\n" + b"x" * 10_000 + b" 2\n", "line 2: longer than 8192 characters"),
        (b"one.mp4 " + b"9" * 5000 + b"\n", "is out of range"),
        ("one.mp4 \u0663\n".encode(), "is not a non-negative integer"),
        ("one.mp4 3\n".encode("utf-16"), "is UTF-16 text"),
        (b"one.mp4\xff 3\n", "line 1: not UTF-8"),
        (b"path,label\none.mp4,1\n", "no label"),
        (b"one.mp4,1\n", "Set DATA.PATH_LABEL_SEPARATOR to ','"),
        (b"\n# only a comment\n", "label comment is not a non-negative integer"),
    ],
)
def test_texts_that_are_no_index(text: bytes, part: str, tmp_path: Path, media: Path) -> None:
    with pytest.raises(IndexFileError) as caught:
        read(tmp_path, text, str(media))
    message = str(caught.value)
    assert part in message and message.isprintable() and len(message) < 600


def test_line_breaks_of_all_systems(tmp_path: Path, media: Path) -> None:
    for breaks in ("\n", "\r\n", "\r"):
        records = read(tmp_path, f"one.mp4 1{breaks}a/two words.mp4 2{breaks}", str(media))
        assert [(record.name, record.label) for record in records] == [("one.mp4", 1), ("a/two words.mp4", 2)]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, media: Path) -> None:
    os.mkfifo(tmp_path / "train.csv")
    (tmp_path / "val.csv").mkdir()
    (tmp_path / "test.csv").symlink_to("/dev/zero")
    for split, kind in (("train", "is a named pipe"), ("val", "is a directory"), ("test", "is a device")):
        with pytest.raises(IndexFileError, match=rf"{split}\.csv {kind}"):
            read_kinetics_index(tmp_path, split, str(media), " ", 10)


def test_a_file_beyond_any_size_is_not_read(tmp_path: Path, media: Path) -> None:
    with (tmp_path / "train.csv").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(IndexFileError, match="is larger than 1024 MiB"):
        read_kinetics_index(tmp_path, "train", str(media), " ", 10)


def test_links_inside_the_prefix_may_lead_anywhere(tmp_path: Path, media: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/three.mp4").write_bytes(b"x")
    os.symlink(tmp_path / "elsewhere", media / "link")
    assert read(tmp_path, "link/three.mp4 1\n", str(media))[0].path == media / "link/three.mp4"
    assert read(tmp_path, f"{media}/one.mp4 1\n", str(media))[0].path == media / "one.mp4"


def test_missing_files_folders_and_empty_ones(tmp_path: Path, media: Path) -> None:
    with pytest.raises(IndexFileError, match=r"val\.csv does not exist. Set DATA\.PATH_TO_DATA_DIR"):
        read_kinetics_index(tmp_path, "val", str(media), " ", 10)
    with pytest.raises(IndexFileError, match="is empty. Expected lines of the form path label"):
        read(tmp_path, "\n \n", str(media))
    with pytest.raises(IndexFileError, match=r"DATA\.PATH_PREFIX .*nowhere is not a folder"):
        read(tmp_path, "one.mp4 1\n", str(media / "nowhere"))
    with pytest.raises(IndexFileError, match="line 2: not UTF-8"):
        read(tmp_path, b"one.mp4 1\n\xff\xfe.mp4 2\n", str(media))


def test_missing_media_fail_later_unless_all_are_missing(tmp_path: Path, media: Path) -> None:
    assert len(read(tmp_path, "gone.mp4 1\none.mp4 2\n", str(media))) == 2
    with pytest.raises(IndexFileError, match=r"none of the first 2 files exist.*gone\.mp4. Check DATA\.PATH_PREFIX"):
        read(tmp_path, "gone.mp4 1\ngone2.mp4 2\n", str(media))
    impossible = read(tmp_path, f"{'long' * 200}.mp4 1\none.mp4 2\n", str(media))
    with pytest.raises(DecodeError, match="too long"):
        check_file(impossible[0].path)


@pytest.mark.parametrize(
    "text", ["run fast\njump\nsit\n", "sit\t2\nrun fast\t0\njump\t1\n", "\ufeffrun fast\njump\nsit"]
)
def test_class_names(text: str, tmp_path: Path) -> None:
    assert read_class_names(tmp_path, 3) is None
    (tmp_path / "categories.txt").write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path, 3) == ["run fast", "jump", "sit"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("run\njump\n", "names 2 classes"),
        ("run\njump\nsit\nstand\n", "names 4 classes"),
        ("run\t0\njump\t1\nsit\t1\n", "line 3: 'sit\\t1': label 1 already has a name, 'jump'"),
        ("run\t0\njump\t1\nsit\t7\n", "needs labels 0 to 2"),
        ("run\tzero\n", "Expected name<tab>label"),
        ("", "names 0 classes"),
    ],
)
def test_broken_class_names(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "categories.txt").write_text(text)
    with pytest.raises(IndexFileError) as caught:
        read_class_names(tmp_path, 3)
    assert problem in str(caught.value)


# ------------------------------------------------------------------ ImageNet
FOLDERS = ("n02", "n01", "n10")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of two training images and one validation image; the images are empty, since nothing reads them."""
    for split, count in (("train", 2), ("val", 1)):
        for name in FOLDERS:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{name}_{number}.JPEG").touch()
            (folder / "notes.txt").touch()
    return tmp_path


def read_images(root: Path, split: str = "train", classes: int = 3, prefix: str = "") -> list[Record]:
    return read_imagenet_index(root, split, prefix, " ", classes)


def test_folders_are_labeled_in_sorted_order(root: Path) -> None:
    records = read_images(root)
    assert [record.index for record in records] == list(range(6))
    assert [(record.name, record.label) for record in records[:3]] == [
        ("train/n01/n01_0.JPEG", 0),
        ("train/n01/n01_1.JPEG", 0),
        ("train/n02/n02_0.JPEG", 1),
    ]
    assert all(record.path == root / record.name for record in records)
    assert [record.label for record in read_images(root, "val")] == [0, 1, 2]
    assert read_image_class_names(root, "", 3) == ["n01", "n02", "n10"]


def test_the_validation_images_are_tested_unless_there_is_a_labeled_test(root: Path) -> None:
    (root / "test").mkdir()
    (root / "test" / "1.JPEG").touch()  # as published: images without labels
    assert read_images(root, "test") == read_images(root, "val")
    (root / "test" / "n02").mkdir()
    (root / "test" / "n02" / "a.png").touch()
    assert [(record.name, record.label) for record in read_images(root, "test")] == [("test/n02/a.png", 1)]


def test_images_in_inner_folders_and_the_prefix_as_root(root: Path) -> None:
    inner = root / "val" / "n01" / "more"
    inner.mkdir()
    (inner / "b.Png").touch()
    index = root / "index"
    index.mkdir()
    names = [record.name for record in read_images(index, "val", prefix=str(root))]
    assert names[:2] == ["val/n01/more/b.Png", "val/n01/n01_0.JPEG"]


def test_categories_that_name_the_folders_decide_the_labels(root: Path) -> None:
    (root / "categories.txt").write_text("n10\nn05\nn01\nn02\n")
    assert {(record.name[6:9], record.label) for record in read_images(root, classes=4)} == {
        ("n10", 0),
        ("n01", 2),
        ("n02", 3),
    }
    assert read_image_class_names(root, "", 4) == ["n10", "n05", "n01", "n02"]
    (root / "categories.txt").write_text("n10\nn05\nn01\nn03\n")
    with pytest.raises(IndexFileError, match="n02.*categories.txt names other class folders"):
        read_images(root, classes=4)


def test_other_categories_are_names_only(root: Path) -> None:
    (root / "categories.txt").write_text("tench\t0\nshark\t2\ncock\t1\n")
    assert [record.label for record in read_images(root, "val")] == [0, 1, 2]
    assert read_image_class_names(root, "", 3) == ["tench", "cock", "shark"]


def test_lists_of_images(root: Path) -> None:
    (root / "train_list.txt").write_text("val/n02/n02_0.JPEG 2\nval/n01/n01_0.JPEG 0\n")
    assert [(record.name, record.label) for record in read_images(root)] == [
        ("val/n02/n02_0.JPEG", 2),
        ("val/n01/n01_0.JPEG", 0),
    ]
    assert read_images(root, prefix=str(root / "val/..")) == read_images(root)
    assert read_image_class_names(root, "", 3) is None
    (root / "train_list.txt").write_text("val/n02/n02_0.JPEG 3\n")
    with pytest.raises(IndexFileError, match=r"train_list\.txt line 1:.*label 3 is out of range"):
        read_images(root)


def test_broken_folders_and_lists(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(IndexFileError, match="neither train_list.txt nor a folder train of class folders"):
        read_images(tmp_path / "val")
    with pytest.raises(IndexFileError, match="has 3 class folders, but MODEL.NUM_CLASSES is 2. Set it to 3"):
        read_images(root, classes=2)
    with caplog.at_level(logging.WARNING, logger="slowfast"):
        assert len(read_images(root, classes=1000)) == 6
    assert "3 class folders for MODEL.NUM_CLASSES 1000" in caplog.text
    (root / "val" / "n99").mkdir()
    with pytest.raises(IndexFileError, match="n99: no such class"):
        read_images(root, "val")
    (root / "train" / "n05").mkdir()
    with pytest.raises(IndexFileError, match="n05 contains no images"):
        read_images(root, classes=4)
