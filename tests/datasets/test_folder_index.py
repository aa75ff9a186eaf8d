"""`slowfast index` on a folder: samples, split and check, and a run that reads the index after a move."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import environment
from event_files import write_recording
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from video_files import picture, write_video

import slowfast.prepare.check
from slowfast.cli.index import main
from slowfast.cli.setup import load_config
from slowfast.datasets.build import eval_dataset
from slowfast.datasets.index.folder import Collection, IndexedSample, check_names, frame_template, scan
from slowfast.datasets.index.write import find_sources, split, split_by_source
from slowfast.errors import UserError
from slowfast.prepare.check import check_samples
from tests.warm_start import run_script

TOOL = Path(__file__).parents[2] / "tools" / "index_folder.py"


def make(root: Path, kind: str, classes: tuple[str, ...] = ("b", "a c"), count: int = 5) -> Path:
    """A folder of class folders of the smallest samples of a kind."""
    for name in classes:
        for number in range(count):
            place = root / name / f"m{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if kind == "videos":
                write_video(place.with_suffix(".mp4"), frames=4, size=(32, 32))
            elif kind == "recordings":
                write_recording(place.with_suffix(".npz"), 60, number)
            elif kind == "images":
                Image.fromarray(picture(number, 32, 32)).save(place.with_suffix(".png"))
            else:
                place.mkdir()
                for frame in range(4):
                    Image.fromarray(picture(frame, 32, 32)).save(place / f"img_{frame + 1:03d}.jpg")
    return root


@pytest.mark.parametrize("kind", ["videos", "frames", "images", "recordings"])
def test_a_run_reads_the_index_after_a_move(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    folder, out = make(old / "data", kind), old / "results" / "index"
    assert main([str(folder), "--out", str(out), "--val", "0.2", "--test", "0.4"]) == 0
    printed = capsys.readouterr().out
    what = {"frames": "folders of frames", "recordings": "event recordings"}.get(kind, kind)
    assert f"10 {what} of 2 classes: 4 train, 2 val, 4 test" in printed
    assert shlex.split(printed.strip().splitlines()[-1])[2:] == ["--cfg", str(out / "run.yaml")]
    assert ("DVS.SENSOR_SIZE [128,128]" in printed) == (kind == "recordings")
    old.rename(tmp_path / "new place")
    out = tmp_path / "new place" / "results" / "index"
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
        assert dataset[0].count and not dataset[0].failures
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


GROUPS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=40)


@given(groups=GROUPS, seed=st.integers(0, 5), shares=st.sampled_from([(0.1, 0.2), (0.0, 0.3), (0.4, 0.5)]))
@hypothesis_settings(max_examples=50, deadline=None)
def test_a_source_is_in_one_split(groups: list[tuple[int, int]], seed: int, shares: tuple[float, float]) -> None:
    items = [IndexedSample(f"{label}/p{source}_{at}", label) for at, (source, label) in enumerate(groups)]
    sources, unmatched = find_sources(items, "(p[0-9]+)_")
    assert not unmatched and len(set(sources.values())) == len({source for source, _ in groups})
    parts = split_by_source(items, sources, *shares, seed)
    assert split_by_source(items[::-1], sources, *shares, seed)["test"] == parts["test"][::-1]
    assert {sample.label for sample in parts["train"]} == {label for _, label in groups}
    own = [part for part, share in zip(("train", "val", "test"), (1.0, *shares), strict=True) if share]
    assert sorted(sample.name for part in own for sample in parts[part]) == sorted(sample.name for sample in items)
    in_split = [{sources[sample.name] for sample in parts[part]} for part in own]
    assert sum(map(len, in_split)) == len(set().union(*in_split))
    if shares[0] == 0:
        assert parts["val"] == parts["train"]


def test_the_split_by_source_is_stratified() -> None:
    # The layout of UCF101: 25 sources of 4 videos in each of 5 classes; and one source that has half of a class.
    items = [IndexedSample(f"{c}/v_{c}_g{n // 4:02d}_c{n % 4}", c) for c in range(5) for n in range(100)]
    items += [IndexedSample(f"0/v_x_g99_c{n}", 0) for n in range(100)]
    sources, _ = find_sources(items, "(v_.*_g[0-9]+)_c")
    parts = split_by_source(items, sources, 0.1, 0.2, 0)
    counts = {part: Counter(sample.label for sample in found) for part, found in parts.items()}
    assert counts["test"] == {0: 40, 1: 20, 2: 20, 3: 20, 4: 20}
    assert all(8 <= counts["val"][label] <= (20 if label == 0 else 12) for label in range(5))
    assert {sample.name for sample in split_by_source(items, sources, 0.1, 0.2, 1)["test"]} != {
        sample.name for sample in parts["test"]
    }


def test_what_matches_no_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "data", "images", count=4)
    (folder / "b" / "m0.png").rename(folder / "b" / "other.png")
    line = [str(folder), "--out", str(tmp_path / "index"), "--group", r"/(m\d)"]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "1 images do not match --group and count as separate sources: b/other.png" in printed
    for file in (tmp_path / "index").glob("*_list.txt"):
        assert all(file.read_text().count(f"m{number}.png") in (0, 2) for number in (1, 2, 3))
    for group, problem in {
        "(m": "is not a regular expression: missing )",
        "m.": "has no group",
        "(clip[0-9])": "matches none of 8 names, such as 'a c/m0.png'",
        "(.)": "too few sources (--group)",
    }.items():
        extra = ["--test", "0.4"] if group == "(.)" else []
        assert main([str(folder), "--out", str(tmp_path / "no"), "--group", group, *extra]) == 2
        message = capsys.readouterr().err
        assert problem in message and message.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_unreadable_files_are_left_out_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make(tmp_path / "data", "images", count=4), tmp_path / "index"
    (folder / "b" / "m1.png").write_bytes(b"")
    (folder / "b" / "m2.png").write_bytes((folder / "b" / "m3.png").read_bytes()[:60])
    (folder / "b" / "gone.png").symlink_to("nowhere")
    # An interrupted check had read some of them, one of which has changed since.
    with monkeypatch.context() as patch:
        patch.setattr(slowfast.prepare.check, "run_jobs", _interrupted)
        assert main([str(folder), "--out", str(out), "--check"]) == 130
    assert "Run the same command to continue" in capsys.readouterr().err and not (out / "run.yaml").exists()
    os.utime(folder / "a c" / "m0.png", (1, 1))
    assert main([str(folder), "--out", str(out), "--check", "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "checked 1/9 images" not in printed and "checked 9/9 images" in printed  # 2 of 3 were not read again
    with (out / "unreadable.csv").open() as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert (
        listed.keys() == {"b/gone.png", "b/m1.png", "b/m2.png"} and listed["b/m1.png"] == "the file is empty (0 bytes)"
    )
    assert "b/gone.png: cannot be read, left out of the index: no such file or directory" in printed
    assert "6 images of 2 classes" in printed and not (out / ".checked.jsonl").exists()
    indexed = "".join((out / f"{part}_list.txt").read_text() for part in ("train", "val", "test"))
    assert indexed.count("b/m0.png") == 1 and not any(name in indexed for name in listed)
    # Without a readable file a class cannot be kept.
    for name in ("m0", "m3"):
        (folder / "b" / f"{name}.png").write_bytes(b"")
    assert main([str(folder), "--out", str(tmp_path / "new"), "--check", "--workers", "1"]) == 2
    assert "b: none of the images can be read" in capsys.readouterr().err
    assert (tmp_path / "new" / "unreadable.csv").exists() and not (tmp_path / "new" / "run.yaml").exists()


def _interrupted(work: object, jobs: list, *_: object, on_output: object, **__: object) -> None:
    """Check the first three samples, then be interrupted, in the middle of a line of the record."""
    for job in jobs[:3]:
        on_output(work(job))
    record = jobs[0].target.parents[1] / ".checked.jsonl"
    record.write_text(record.read_text() + '{"name": "a c/m3.p')
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["videos", "frames", "recordings"])
def test_the_check_of_each_kind(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "data", kind, classes=("a",), count=3)
    if kind == "videos":
        (folder / "a" / "m0.mp4").unlink()
        video = write_video(folder / "a" / "m0.avi", frames=40, size=(32, 32))
        video.write_bytes(video.read_bytes()[: video.stat().st_size * 4 // 5])
    elif kind == "frames":
        (folder / "a" / "m0" / "img_003.jpg").write_bytes(b"no image")
    else:
        write_recording(folder / "a" / "m0.npz", 60, 0, p=np.full(60, 7))
    for broken in (folder / "a").glob("m1*"):
        for file in broken.iterdir() if broken.is_dir() else [broken]:
            file.write_bytes(b"nothing")
    collection = scan(folder)

    def in_this_process(work: object, jobs: list, *_: object, **__: object) -> None:
        for job in jobs:
            try:
                found[job.name] = work(job).damage
            except Exception as error:
                found[job.name] = f"unreadable: {error}"
        raise KeyboardInterrupt

    found: dict[str, str | None] = {}
    monkeypatch.setattr(slowfast.prepare.check, "run_jobs", in_this_process)
    with pytest.raises(KeyboardInterrupt):
        check_samples(collection, folder, tmp_path / "out", 1)
    first, second, third = (found[sample.name] for sample in collection.samples)
    assert first and first.startswith("unreadable") == (kind == "recordings"), first
    assert second and second.startswith("unreadable"), second
    assert third is None


def test_links_are_followed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path / "data", "images", count=2)
    make(tmp_path / "elsewhere", "images", ("c",), 2)
    (folder / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (folder / "c" / "self").symlink_to(".")
    (folder / "b" / "up").symlink_to(folder)
    (folder / "b" / "again").symlink_to(folder / "a c")
    (folder / "loop").symlink_to("loop")
    (folder / "top.png").touch()
    found = scan(folder)
    assert [sample.name for sample in found.samples] == [f"{c}/m{n}.png" for c in ("a c", "b", "c") for n in (0, 1)]
    assert "top.png: in no class folder, skipped" in caplog.text
    assert "b/again, b/up, c/self: link to a folder that is read already, skipped" in caplog.text
    # The folder of the index is no class, also if a check was interrupted.
    (folder / "index").mkdir()
    assert scan(folder, out=folder / "index").classes == ["a c", "b", "c"]


def test_a_single_class_and_equal_base_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "data", "images", ("x",), 3)
    assert main([str(folder), "--out", str(tmp_path / "one")]) == 0
    assert "All samples are of one class" in capsys.readouterr().out
    shutil.copytree(folder / "x", folder / "y")
    assert main([str(folder), "--out", str(tmp_path / "two")]) == 0
    lines = [line for file in (tmp_path / "two").glob("*_list.txt") for line in file.read_text().splitlines()]
    assert sorted(lines) == [f"{name}/m{n}.png {label}" for label, name in enumerate("xy") for n in range(3)]


def test_recordings_of_cameras_are_listed_without_remarks_beside_them(tmp_path: Path) -> None:
    for name in ("1.raw", "1.txt", "2.es"):
        (tmp_path / "data" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "a" / name).touch()
    assert main([str(tmp_path / "data"), "--out", str(tmp_path / "index")]) == 0
    lists = "".join(path.read_text() for path in (tmp_path / "index").glob("*_list.txt"))
    assert set(lists.split()) == {"a/1.raw", "a/2.es", "0"}


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
    with pytest.raises(UserError, match="a c contains no videos. Remove the folder or fill it"):
        scan(folder, "videos")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("nowhere --out out", "nowhere does not exist"),
        ("full/categories.txt --out out", "full/categories.txt is not a folder"),
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


def test_the_tool_runs_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "data", "images")
    monkeypatch.chdir(tmp_path)
    done = run_script(TOOL, ["data", "--out", "index"], environment(), timeout=180)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index" / "train_list.txt").is_file()


def test_many_names_are_counted() -> None:
    odd = ["a/x\n.png", "a/y ", "a/ok.png"]
    with pytest.raises(UserError, match=r"2 names cannot be listed in an index, such as 'a/x\\n.png'"):
        check_names(Collection("images", ["a"], [IndexedSample(name, 0) for name in odd]))


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
