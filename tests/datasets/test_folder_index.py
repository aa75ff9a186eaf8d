"""One's own folder of class folders to index files: what is found, the split, the files, and that a run reads them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from video_files import picture, write_video

from slowfast.cli.index import main
from slowfast.cli.setup import load_config
from slowfast.datasets.build import eval_dataset
from slowfast.datasets.index.folder import IndexedSample, frame_template, scan, split
from slowfast.errors import UserError

TOOL = Path(__file__).parents[2] / "tools" / "index_folder.py"


def make(root: Path, kind: str, classes: tuple[str, ...] = ("b", "a c"), count: int = 5) -> Path:
    """A folder of class folders of the smallest samples of a kind."""
    for name in classes:
        for number in range(count):
            place = root / name / f"m{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if kind == "videos":
                write_video(place.with_suffix(".mp4"), frames=4, size=(32, 32))
            elif kind == "images":
                Image.fromarray(picture(number, 32, 32)).save(place.with_suffix(".png"))
            else:
                place.mkdir()
                for frame in range(4):
                    Image.fromarray(picture(frame, 32, 32)).save(place / f"img_{frame + 1:03d}.jpg")
    return root


@pytest.mark.parametrize("kind", ["videos", "frames", "images"])
def test_a_run_reads_what_the_tool_writes(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = make(tmp_path / "data", kind), tmp_path / "index"
    assert main([str(folder), "--out", str(out), "--val", "0.2", "--test", "0.4"]) == 0
    printed = capsys.readouterr().out
    what = "folders of frames" if kind == "frames" else kind
    assert f"10 {what} of 2 classes: 4 train, 2 val, 4 test" in printed
    assert shlex.split(printed.strip().splitlines()[-1])[2:] == ["--cfg", str(out / "run.yaml")]
    cfg = load_config(out / "run.yaml").clone()
    cfg.defrost()
    assert (cfg.TRAIN.BATCH_SIZE, cfg.MODEL.NUM_CLASSES, Path(cfg.OUTPUT_DIR)) == (4, 2, out / "run")
    cfg.merge_from_list(["DATA.NUM_FRAMES", 2, "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32])
    cfg.DATA.TRAIN_JITTER_SCALES = [32, 32]
    names: list[str] = []
    for part in ("train", "val", "test"):
        dataset = eval_dataset(cfg, part)
        names += [record.name for record in dataset.records]
        assert {record.label for record in dataset.records} == {0, 1}
        assert all(record.name.startswith(("a c/", "b/")[record.label]) for record in dataset.records)
        assert dataset[0].frames is not None and not dataset[0].failures
    assert len(names) == len(set(names)) == 10
    assert (out / "categories.txt").read_text() == "a c\t0\nb\t1\n"


def samples(count: int, label: int = 0) -> list[IndexedSample]:
    return [IndexedSample(f"{label}/{number}", label) for number in range(count)]


def test_the_split_depends_on_names_and_seed_alone() -> None:
    items = samples(20) + samples(30, 1)
    parts = split(items, 0.1, 0.2, 0)
    again = split(items[::-1], 0.1, 0.2, 0)
    assert {part: set(found) for part, found in parts.items()} == {part: set(found) for part, found in again.items()}
    assert [len(parts[part]) for part in ("train", "val", "test")] == [35, 5, 10]
    assert [m.label for m in parts["val"]].count(0) == 2
    assert parts["val"] == sorted(parts["val"], key=items.index)
    assert set(split(items, 0.1, 0.2, 1)["test"]) != set(parts["test"])
    # Another class changes nothing.
    assert [m for m in split(items + samples(9, 2), 0.1, 0.2, 0)["test"] if m.label < 2] == parts["test"]


def test_small_classes_keep_one_for_training_and_no_share_means_the_training_media() -> None:
    assert {part: len(found) for part, found in split(samples(2), 0.1, 0.2, 0).items()} == {
        "train": 1,
        "val": 1,
        "test": 0,
    }
    assert {part: len(found) for part, found in split(samples(1), 0.1, 0.2, 0).items()} == {
        "train": 1,
        "val": 0,
        "test": 0,
    }
    parts = split(samples(3), 0.0, 0.0, 0)
    assert parts["train"] == parts["val"] == parts["test"] == samples(3)


@pytest.mark.parametrize(
    ("count", "counts", "shared"),
    [
        (1, "2 train, 2 val, 2 test", "val and test contain"),
        (2, "2 train, 2 val, 2 test", "val contain"),
        (3, "2 train, 2 val, 2 test", ""),
    ],
)
def test_small_collections_are_split_as_far_as_they_go(
    tmp_path: Path, count: int, counts: str, shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make(tmp_path / "data", "images", count=count)), "--out", str(tmp_path / "index")]) == 0
    printed = capsys.readouterr().out
    assert counts in printed
    assert f"{shared} the training images" in printed if shared else "contain the training" not in printed


def test_the_run_file_is_on_top_of_the_chosen_network(tmp_path: Path) -> None:
    base = tmp_path / "settings" / "mine.yaml"
    base.parent.mkdir()
    base.write_text(
        "MODEL: {MODEL_NAME: ConvMLP}\nTRAIN: {BATCH_SIZE: 3}\nTEST: {NUM_ENSEMBLE_VIEWS: 1}\nSOLVER: {MAX_EPOCH: 7}\n"
    )
    line = [str(make(tmp_path / "my data", "images")), "--out", str(tmp_path / "deep" / "index"), "--cfg", str(base)]
    assert main(line) == 0
    cfg = load_config(tmp_path / "deep" / "index" / "run.yaml")
    assert (cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.MAX_EPOCH, cfg.TRAIN.DATASET) == (3, 7, "imagenet")
    assert Path(cfg.DATA.PATH_PREFIX) == tmp_path / "my data"


def test_frames_are_numbered_from_one_without_a_gap() -> None:
    assert frame_template([f"{n:05d}.jpg" for n in (2, 1, 3)], Path("x")) == "{:05d}.jpg"
    assert frame_template([f"a{{2}}_{n}.png" for n in range(1, 12)], Path("x")) == "a{{2}}_{:01d}.png"
    for wrong in (["00000.jpg", "00001.jpg"], ["1.jpg", "3.jpg"], ["1.jpg", "02.jpg"], ["1.jpg", "2.png"]):
        with pytest.raises(UserError, match="x: its 2 frames, .* are not numbered from 1 to 2"):
            frame_template(wrong, Path("x"))
    with pytest.raises(UserError, match="no numbered frames"):
        frame_template([], Path("x"))


def test_what_is_not_clear_is_asked(tmp_path: Path) -> None:
    folder = make(tmp_path, "images", count=1)
    (folder / "b" / "film.mp4").touch()
    with pytest.raises(UserError, match="contains images and videos. Choose what to index with --kind"):
        scan(folder)
    assert [sample.name for sample in scan(folder, "images").samples] == ["a c/m0.png", "b/m0.png"]
    with pytest.raises(UserError, match="a c contains no videos"):
        scan(folder, "videos")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("nowhere --out out", "nowhere is not a folder"),
        ("flat --out out", "contains no class folders"),
        ("data --out out --val 0.5 --test 0.5", "--val 0.5 and --test 0.5"),
        ("data --out full", "categories.txt already exists"),
        (
            "single --out out --val 0.1",
            "too few images per class for val. Use --val 0 to take those of training",
        ),
        ("data --out out --cfg none.yaml", "none.yaml does not exist"),
        ("two --out out", "frames are named in two ways: {:03d}.png in a/1, {:04d}.png in a/2"),
    ],
)
def test_mistakes(
    tmp_path: Path, words: str, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "data", "images")
    make(tmp_path / "single", "images", count=1)
    for name in ("flat", "full", "two/a/1", "two/a/2"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full" / "categories.txt").write_text("mine")
    for name in ("1/001", "2/0001"):
        (tmp_path / "two" / "a" / f"{name}.png").touch()
    assert main(words.split()) == 2
    message = capsys.readouterr().err
    assert problem in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists() and (tmp_path / "full" / "categories.txt").read_text() == "mine"


def test_the_tool_runs_from_any_folder(tmp_path: Path) -> None:
    make(tmp_path / "data", "images")
    line = [sys.executable, str(TOOL), "data", "--out", "index"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index" / "train_list.txt").is_file()


@pytest.mark.parametrize("name", [" leading", "a\nb", "l\udce9"])
def test_names_that_no_index_can_hold_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make(tmp_path / "samples", "images", (name, "other"))
    assert main([str(tmp_path / "samples"), "--out", str(tmp_path / "index")]) == 2
    assert "cannot be listed in an index" in capsys.readouterr().err and not (tmp_path / "index").exists()


def test_shares_that_are_no_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "samples", "images")
    assert main([str(tmp_path / "samples"), "--out", str(tmp_path / "index"), "--val", "nan"]) == 2
    assert "is not a number from 0 to 1" in capsys.readouterr().err
