"""Something-Something lists of frames and official lists: records, and one clear line per error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slowfast.datasets.index.something import count_frames, official_class_names, read_something_index
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

TEXT, OFFICIAL = "somesomev1_rgb_{}_split.txt", "{}.json"
LABELS = {"Holding something": "0", "Moving something up": "1", "Putting something on something": "2"}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    for name in ("7", "8", "two words"):
        (folder / name).mkdir(parents=True)
    return folder


def read(folder: Path, text: str, media: Path, split: str = "train") -> list[Record]:
    (folder / TEXT.format("train")).write_text(text)
    return read_something_index(folder, TEXT, split, str(media), 3)


def test_lines_become_records(tmp_path: Path, media: Path) -> None:
    records = read(tmp_path, "7 40 2\n\n8   1 0\r\ntwo words 12 1", media)
    assert records == [
        Record(0, media / "7", "7", 2, 40),
        Record(1, media / "8", "8", 0, 1),
        Record(2, media / "two words", "two words", 1, 12),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("7 40", "2 fields"),
        ("7", "1 fields"),
        ("7 forty 2", "number of frames forty is not a non-negative integer"),
        ("7 0 2", "number of frames 0 is out of range"),
        ("7 40 -1", "label -1 is not a non-negative integer"),
        ("7 40 3", "label 3 is out of range"),
        ("../secret 40 1", "leaves DATA.PATH_PREFIX"),
        ("7,40,1", "1 fields"),
    ],
)
def test_a_broken_line_is_told_with_its_place_and_the_form(
    tmp_path: Path, media: Path, line: str, problem: str
) -> None:
    with pytest.raises(IndexFileError) as caught:
        read(tmp_path, f"8 5 0\n{line}\n", media)
    message = str(caught.value)
    assert "\n" not in message
    for part in (TEXT.format("train") + " line 2", repr(line), problem, "Expected folder frames label", "0 to 2"):
        assert part in message


def test_missing_and_empty_lists_and_media(tmp_path: Path, media: Path) -> None:
    with pytest.raises(IndexFileError, match="does not exist.*DATA.LABEL_PATH_TEMPLATE"):
        read_something_index(tmp_path, TEXT, "val", str(media), 3)
    with pytest.raises(IndexFileError, match="is empty"):
        read(tmp_path, "\n", media)
    with pytest.raises(IndexFileError, match="none of the first 1 files exist"):
        read(tmp_path, "nowhere 5 0", media)


def test_the_validation_list_is_tested_unless_there_is_a_test_list(tmp_path: Path, media: Path) -> None:
    (tmp_path / TEXT.format("validation")).write_text("8 5 1")
    for split in ("val", "test"):
        assert [r.name for r in read_something_index(tmp_path, TEXT, split, str(media), 3)] == ["8"]
    (tmp_path / TEXT.format("test")).write_text("7 5 1")
    assert [r.name for r in read_something_index(tmp_path, TEXT, "test", str(media), 3)] == ["7"]
    assert [r.name for r in read_something_index(tmp_path, TEXT, "val", str(media), 3)] == ["8"]


# ------------------------------------------------------------------ official lists
def entry(number: str, template: str) -> dict[str, Any]:
    return {"id": number, "label": template.lower().replace("[something]", "a cup"), "template": template}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Lists of two and one videos, the videos in official/ are empty, since nothing reads them."""
    videos = tmp_path / "official"
    videos.mkdir()
    for name in ("11.webm", "12.mp4"):
        (videos / name).touch()
    lists: dict[str, Any] = {
        "labels": LABELS,
        "train": [entry("11", "Moving [something] up"), entry("12", "Putting [something] on [something]")],
        "validation": [entry("13", "Holding [something]"), entry("11", "Holding [something]")],
        "test": [{"id": "14"}],  # as published: no labels
    }
    for name, content in lists.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content, indent=1))
    return tmp_path


def test_official_lists(official: Path) -> None:
    media = official / "official"
    assert read_something_index(official, OFFICIAL, "train", str(media), 3) == [
        Record(0, media / "11.webm", "11.webm", 1),
        Record(1, media / "12.mp4", "12.mp4", 2),
    ]
    validation = read_something_index(official, OFFICIAL, "val", str(media), 3)
    assert [record.label for record in validation] == [0, 0]
    assert validation[0].path.name in ("13.webm", "13.mp4")  # fails when it is read
    assert read_something_index(official, OFFICIAL, "test", str(media), 3) == validation
    assert official_class_names(official, OFFICIAL, 4) == [*LABELS, "3"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train", [entry("1", "Juggling [something]")], "entry 1: template 'Juggling [something]' is not in the table"),
        ("train", [entry("1", "Holding [something]"), {"id": "2"}], 'entry 2: .*an object with "id" and "template"'),
        ("train", [entry("../../1", "Holding [something]")], "entry 1: the path leaves DATA.PATH_PREFIX"),
        ("train", {}, "expected a list"),
        ("train", [], "expected a list"),
        ("labels", [], "expected one object"),
        ("labels", {"Holding something": "x"}, "label x is not a non-negative integer"),
        ("labels", {"Holding something": "3"}, "label 3 is out of range: MODEL.NUM_CLASSES is 3"),
        ("labels", {"Holding something": "1", "Moving something up": "1"}, "label 1 belongs to more than one"),
    ],
)
def test_mistakes_in_official_lists(official: Path, name: str, content: Any, problem: str) -> None:
    (official / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(IndexFileError, match=problem.replace("[", r"\[").replace("]", r"\]")) as caught:
        read_something_index(official, OFFICIAL, "train", str(official / "official"), 3)
    assert f"{name}.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['[{"id": "1",', "[" * 100_000, '{"a":' * 100_000, "[" + "9" * 5000 + "]"])
def test_broken_json(official: Path, text: str) -> None:
    (official / "train.json").write_text("\n".join(text[at : at + 4000] for at in range(0, len(text), 4000)))
    with pytest.raises(IndexFileError, match=r"train\.json: not valid JSON") as caught:
        read_something_index(official, OFFICIAL, "train", str(official / "official"), 3)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ official lists of V1
CSV = "something-something-v1-{}.csv"


@pytest.fixture
def official_v1(tmp_path: Path) -> Path:
    """Lists of two and one videos; folder 21 has two frames and something else, 22 a gap, 23 is missing."""
    for name in ("21/00001.jpg", "21/00002.jpg", "21/notes.txt", "22/00001.jpg", "22/00003.jpg"):
        (tmp_path / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "frames" / name).touch()
    lists = {
        "labels": "Putting something on something\nHolding something\nPulling something; then letting go\n",
        "train": "21;Pulling something; then letting go\n22;Holding something\n",
        "validation": "23;Putting something on something\n",
        "test": "24\n25\n",  # as published: no labels
    }
    for name, text in lists.items():
        (tmp_path / CSV.format(name)).write_text(text)
    return tmp_path


def test_official_csv_lists(official_v1: Path) -> None:
    frames = official_v1 / "frames"
    assert read_something_index(official_v1, CSV, "train", str(frames), 3) == [
        Record(0, frames / "21", "21", 1, 2),  # labels are places in the sorted table
        Record(1, frames / "22", "22", 0, 1),
    ]
    assert official_class_names(official_v1, CSV, 3) == [
        "Holding something",
        "Pulling something; then letting go",
        "Putting something on something",
    ]
    (official_v1 / CSV.format("validation")).write_text("23;Holding something\n22;Holding something")
    records = read_something_index(official_v1, CSV, "test", str(frames), 3)
    assert [(record.name, record.frames) for record in records] == [("23", 1), ("22", 1)]  # 23 fails when it is read


def test_frames_are_counted_by_their_names(official_v1: Path) -> None:
    assert count_frames(official_v1 / "frames" / "21", "{:05d}.jpg") == 2
    assert count_frames(official_v1 / "frames" / "21", "img_{:05d}.jpg") == 1


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("train", "21;Juggling something", "line 1: .*'Juggling something' is not in the table of labels"),
        ("train", "21;Holding something\n22", "line 2: '22': no number or no text. Expected id;label text"),
        ("train", "../21;Holding something", "line 1: .*leaves DATA.PATH_PREFIX"),
        ("train", "\n", "is empty. Expected lines of the form id;label text"),
        ("labels", "Holding something\nHolding something", "'Holding something' is listed twice"),
        ("labels", "\n", "no class names"),
        ("labels", "a\nb\nc\nd", "'d': label 3 is out of range: MODEL.NUM_CLASSES is 3"),
    ],
)
def test_mistakes_in_official_csv_lists(official_v1: Path, name: str, text: str, problem: str) -> None:
    (official_v1 / CSV.format(name)).write_text(text)
    with pytest.raises(IndexFileError, match=problem) as caught:
        read_something_index(official_v1, CSV, "train", str(official_v1 / "frames"), 3)
    assert CSV.format(name) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "there"), [("sth-v1", "sthv1"), ("sthv2", "sth-v2")])
def test_the_folder_of_another_spelling_is_named(given: str, there: str, tmp_path: Path) -> None:
    """The authors' lists are in data_list/sthv1 and sthv2, those of the configs here in sth-v1 and sth-v2."""
    lists = tmp_path / "data_list" / there
    lists.mkdir(parents=True)
    (lists / TEXT.format("train")).write_text("7 40 2\n")
    with pytest.raises(IndexFileError) as error:
        read_something_index(tmp_path / "data_list" / given, TEXT, "train", "", 3)
    message = str(error.value)
    assert f"{given}/{TEXT.format('train')} does not exist. Check DATA.PATH_TO_DATA_DIR" in message
    assert message.endswith(f". Did you mean {lists / TEXT.format('train')}?")
    with pytest.raises(IndexFileError) as error:  # no other folder has this one
        read_something_index(tmp_path / "data_list" / given, TEXT, "val", "", 3)
    assert "Did you mean" not in str(error.value)
