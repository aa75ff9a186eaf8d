"""UCF101 and HMDB51: official split files, published numbers of videos, and broken files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from video_files import write_video

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.config.parse import shipped_configs
from slowfast.datasets.base import warn_once
from slowfast.datasets.build import class_names, eval_dataset, find_dataset
from slowfast.errors import IndexFileError

UCF = ("ApplyEyeMakeup", "Archery", "YoYo")
HMDB = ("brush_hair", "wave", "cartwheel")
NAMES = {"ucf101": "UCF101/UCF101_MLP_S16x4", "hmdb51": "HMDB51/HMDB51_MLP_S16x4"}


@pytest.fixture(autouse=True)
def _forget_warnings() -> None:
    warn_once.cache_clear()


def link_video(video: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(video, path)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.avi", frames=12, codec="mpeg4", size=(32, 40))


@pytest.fixture
def root(tmp_path: Path, video: Path) -> Path:
    """Both datasets as published: lists with carriage returns (UCF101) and trailing spaces (HMDB51)."""
    lists = tmp_path / "ucf101" / "lists"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_bytes("".join(f"{n} {name}\r\n" for n, name in enumerate(UCF, 1)).encode())
    for split in (1, 2, 3):
        train, test = [], []
        for label, name in enumerate(UCF, 1):
            for group in range(1, 7):
                clip = f"{name}/v_{name}_g{group:02d}_c01.avi"
                (test if (group - 1) // 2 == split - 1 else train).append((clip, label))
                if split == 1:
                    link_video(video, tmp_path / "ucf101" / "videos" / clip)
        (lists / f"trainlist{split:02d}.txt").write_text("".join(f"{clip} {label}\n" for clip, label in train))
        (lists / f"testlist{split:02d}.txt").write_text("".join(f"{clip}\n" for clip, _ in test))
    lists = tmp_path / "hmdb51" / "lists"
    lists.mkdir(parents=True)
    for name in HMDB:
        clips = [f"(Rad)Schlag! #437 {name}_{n}.avi" for n in range(6)]
        for clip in clips:
            link_video(video, tmp_path / "hmdb51" / "videos" / name / clip)
        for split in (1, 2, 3):
            flags = "112011"[split:] + "112011"[:split]
            text = "".join(f"{clip} {flag} \n" for clip, flag in zip(clips, flags, strict=True))
            (lists / f"{name}_test_split{split}.txt").write_text(text)
    return tmp_path


def config(root: Path, name: str, *overrides: object) -> ConfigNode:
    """The shipped config on the small dataset."""
    folder = root / name
    paths = ["DATA.PATH_TO_DATA_DIR", folder / "lists", "DATA.PATH_PREFIX", folder / "videos"]
    small = ["DATA.NUM_FRAMES", 2, "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32]
    small += ["DATA.TRAIN_JITTER_SCALES", [32, 32], "MODEL.NUM_CLASSES", 3]
    cfg = get_cfg()
    cfg.merge_from_file(shipped_configs()[NAMES[name]])
    cfg.merge_from_list([*map(str, paths), *small, *overrides])
    return cfg


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_splits_of_ucf101(root: Path, split: int) -> None:
    cfg = config(root, "ucf101", "DATA.SPLIT", split)
    assert class_names(cfg, "test") == list(UCF)
    train, val, test = (find_dataset(cfg, part).read_index(part) for part in ("train", "val", "test"))
    assert (len(train), len(test)) == (12, 6) and list(val) == list(test)
    assert test[2].name == f"Archery/v_Archery_g{2 * split - 1:02d}_c01.avi" and test[2].label == 1
    assert {record.name for record in train}.isdisjoint(record.name for record in test)
    assert Counter(record.label for record in train) == {0: 4, 1: 4, 2: 4}
    dataset = eval_dataset(cfg, "test")
    assert dataset[5].count and not dataset[5].failures and dataset[5].record.label == 2


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_splits_of_hmdb51(root: Path, split: int) -> None:
    cfg = config(root, "hmdb51", "DATA.SPLIT", split)
    assert class_names(cfg, "test") == ["brush_hair", "cartwheel", "wave"]
    train, val, test = (find_dataset(cfg, part).read_index(part) for part in ("train", "val", "test"))
    assert (len(train), len(test)) == (12, 3) and list(val) == list(test)  # one video of each class is unused
    assert test[2].name == f"wave/(Rad)Schlag! #437 wave_{2 - split if split < 3 else 5}.avi" and test[2].label == 2
    assert {record.name for record in train}.isdisjoint(record.name for record in test)
    dataset = eval_dataset(cfg, "test")
    assert dataset[2].count and not dataset[2].failures


def test_prepared_copies_are_found(root: Path) -> None:
    cfg = config(root, "ucf101")
    for path in (root / "ucf101" / "videos").rglob("*.avi"):
        path.rename(path.with_suffix(".mp4"))
    records = find_dataset(cfg, "train").read_index("train")
    assert all(record.path.suffix == ".mp4" and record.path.exists() for record in records)


# Training and test videos of splits 1 to 3, as published.
PUBLISHED = {"ucf101": ((9537, 3783), (9586, 3734), (9624, 3696)), "hmdb51": ((3570, 1530),) * 3}


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_of_videos_are_those_published(
    tmp_path: Path, name: str, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lists, classes = tmp_path / name / "lists", {"ucf101": 101, "hmdb51": 51}[name]
    lists.mkdir(parents=True)
    names = [f"Class{label:03d}" for label in range(classes)]
    link_video(video, tmp_path / name / "videos" / "Class000" / "0.avi")
    if name == "ucf101":
        (lists / "classInd.txt").write_text("".join(f"{n} {one}\n" for n, one in enumerate(names, 1)))
    for split, counts in enumerate(PUBLISHED[name], 1):
        if name == "hmdb51":
            for one in names:
                text = "".join(f"{n}.avi {1 if n < 70 else 2 if n < 100 else 0} \n" for n in range(120))
                (lists / f"{one}_test_split{split}.txt").write_text(text.replace("70.avi", "0.avi"))
            continue
        for file, count in zip(("trainlist", "testlist"), counts, strict=True):
            lines = [f"{names[n % classes]}/{n}.avi\n" for n in range(count)]
            (lists / f"{file}{split:02d}.txt").write_text("".join(lines))
    for split, (train, test) in enumerate(PUBLISHED[name], 1):
        cfg = config(tmp_path, name, "DATA.SPLIT", split, "MODEL.NUM_CLASSES", classes)
        found = [len(find_dataset(cfg, part).read_index(part)) for part in ("train", "val", "test")]
        assert found == [train, test, test]
    assert "as published" not in caplog.text
    file = sorted(lists.glob("*test*"))[0]
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-30]))
    find_dataset(config(tmp_path, name, "MODEL.NUM_CLASSES", classes), "test").read_index("test")
    assert f"split 1 as published has {PUBLISHED[name][0][1]}" in caplog.text


@pytest.mark.parametrize(
    ("name", "file", "text", "problem"),
    [
        ("ucf101", "classInd.txt", "1 a\n3 b\n", "classInd.txt line 2: '3 b'. Expected 2 and the name of the class"),
        ("ucf101", "classInd.txt", "1 a\n2 b\n", "classInd.txt has 2 classes, but MODEL.NUM_CLASSES is 3"),
        ("ucf101", "classInd.txt", None, "classInd.txt does not exist. Set DATA.PATH_TO_DATA_DIR to the folder of"),
        ("ucf101", "testlist01.txt", "Juggling/v.avi\n", "line 1: 'Juggling/v.avi': the class Juggling is not in"),
        ("ucf101", "testlist01.txt", "v.avi 1\n", "line 1: 'v.avi 1': no class folder. Expected CLASS/VIDEO.avi"),
        ("ucf101", "testlist01.txt", "YoYo/v.avi 1\n", "class 1 is another one, YoYo has number 3"),
        ("ucf101", "testlist01.txt", "YoYo/../../v.avi\n", "the path leaves DATA.PATH_PREFIX"),
        ("ucf101", "testlist01.txt", "YoYo/v.avi\n", "none of the first 1 files exist"),
        ("ucf101", "testlist01.txt", "\n", "lists no videos of this split"),
        ("hmdb51", "wave_test_split1.txt", "a.avi 3\n", "line 1: 'a.avi 3'. Expected VIDEO.avi and 1 (training)"),
        ("hmdb51", "wave_test_split1.txt", None, "lists has 2 classes, but MODEL.NUM_CLASSES is 3"),
    ],
)
def test_broken_split_files(root: Path, name: str, file: str, text: str | None, problem: str) -> None:
    path = root / name / "lists" / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(IndexFileError) as caught:
        find_dataset(config(root, name), "test").read_index("test")
    assert problem in str(caught.value)


def test_hmdb51_needs_local_lists(root: Path) -> None:
    cfg = config(root, "hmdb51", "DATA.PATH_TO_DATA_DIR", "s3://bucket/lists")
    with pytest.raises(IndexFileError, match="cannot be listed. Download the split files"):
        find_dataset(cfg, "test").read_index("test")
    cfg = config(root, "hmdb51", "DATA.PATH_TO_DATA_DIR", str(root))
    with pytest.raises(IndexFileError, match="contains no CLASS_test_split1.txt. Set DATA.PATH_TO"):
        find_dataset(cfg, "test").read_index("test")
