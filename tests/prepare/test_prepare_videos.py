"""Re-encoding of small folders of videos: contents, resuming, failures, user errors."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from slowfast.cli.main import main
from slowfast.datasets.decode import open_video
from slowfast.datasets.index.labeled_paths import parse_line
from slowfast.prepare.encode import PrepareSettings, prepare_video, prepared_size
from slowfast.prepare.files import find_jobs
from slowfast.prepare.videos import MANIFEST, IndexLines, write_index
from tests.conftest import ROOT
from tests.csv_files import read_reasons
from tests.video_files import break_packets, plain_frames, write_sound, write_video
from tests.worker_processes import kill_once

pytestmark = pytest.mark.slow

TOOL = ROOT / "tools" / "prepare_videos.py"
QUICK = PrepareSettings(short_side=32, preset="ultrafast")


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub folder").mkdir(parents=True)
    write_video(folder / "a.mp4", frames=30)
    write_video(folder / "sub folder" / "b.mkv", frames=20, size=(48, 64), pix_fmt="yuv420p10le")
    write_video(folder / "clip.avi", frames=12, codec="mpeg4")
    write_video(folder / "clip.webm", frames=12, codec="libvpx-vp9", options={"deadline": "realtime"})
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video\n" * 100)
    write_sound(folder / "sound.mp4")
    (folder / "notes.txt").write_text("kept out of it")
    lines = ["a.mp4 0", f"{folder}/clip.avi 1", "./sub folder/b.mkv 2", "text.mp4 0", "gone.mp4 1", "a.mp4 0"]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    (tmp_path / "categories.txt").write_text("x\ny\nz\n")
    return folder


PREPARED = {"a.mp4": 30, "sub folder/b.mp4": 20, "clip.avi.mp4": 12, "clip.webm.mp4": 12}


def files(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def prepare(source: Path, target: Path, *options: str) -> int:
    return main(["prepare", str(source), str(target), "--short-side", "32", "--workers", "1", *options])


def test_folder_of_videos(
    collection: Path, tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    target, before = tmp_path / "target", files(collection)
    assert prepare(collection, target, "--index", str(tmp_path / "train.csv")) == 0
    assert files(collection) == before
    assert set(files(target)) == {*PREPARED, MANIFEST, "failed.csv", "train.csv", "categories.txt"}
    for name, count in PREPARED.items():
        with open_video(target / name) as video:
            assert (video.num_frames, min(video.height, video.width)) == (count, 32)
            assert video.read(np.arange(count)).missing is None
    failed = read_reasons(target / "failed.csv")
    assert set(failed) == {"empty.mp4", "text.mp4", "sound.mp4", "gone.mp4"}
    assert "0 bytes" in failed["empty.mp4"] and "no video stream" in failed["sound.mp4"]
    kept = ["a.mp4 0", "clip.avi.mp4 1", "sub folder/b.mp4 2", "a.mp4 0"]
    assert (target / "train.csv").read_text().splitlines() == kept
    said = capsys.readouterr().out
    assert "prepared" in said and "empty.mp4: the file is empty" in said and "size after" in said


def test_the_same_video_gives_the_same_file(tmp_path: Path) -> None:
    source = write_video(tmp_path / "source.mp4", frames=40, size=(256, 320))
    for number in range(4):
        prepare_video(source, tmp_path / f"{number}.mp4", PrepareSettings(short_side=192))
        prepare_video(source, tmp_path / "other.mp4", PrepareSettings(short_side=128))  # leaves its freed memory
    assert len({(tmp_path / f"{number}.mp4").read_bytes() for number in range(4)}) == 1


def test_run_resumes(collection: Path, tmp_path: Path, in_this_process: None) -> None:
    target = tmp_path / "target"
    prepare(collection, target)
    first = files(target)
    prepare(collection, target)
    assert {name: files(target)[name] for name in PREPARED} == {name: first[name] for name in PREPARED}

    (target / "a.mp4").write_bytes(b"damaged")
    write_video(collection / "clip.avi", frames=9, codec="mpeg4")
    lines = (target / MANIFEST).read_text()
    (target / MANIFEST).write_text(lines + '{"source": "cut sh')  # killed while writing
    prepare(collection, target)
    again = files(target)
    assert {name for name in PREPARED if again[name] != first[name]} == {"a.mp4", "clip.avi.mp4"}
    with open_video(target / "clip.avi.mp4") as video:
        assert video.num_frames == 9

    prepare(collection, target, "--crf", "30")
    assert all(files(target)[name] != again[name] for name in PREPARED)
    last = files(target)
    prepare(collection, target, "--crf", "30")
    assert {name: files(target)[name] for name in PREPARED} == {name: last[name] for name in PREPARED}


def test_killed_run_resumes_with_several_workers(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for number in range(4):
        write_video(source / f"{number}.mp4", frames=100, size=(128, 128))
    command = [sys.executable, str(TOOL), str(source), str(target), "--workers", "2"]
    kill_once(command, lambda: list(target.rglob("*.part")) or (target / MANIFEST).exists())
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert not list(target.rglob("*.part"))
    assert sorted(p.name for p in target.glob("*.mp4")) == [f"{number}.mp4" for number in range(4)]
    assert len({json.loads(line)["source"] for line in (target / MANIFEST).read_text().splitlines()}) == 4
    assert "prepared 4/4 videos" in done.stdout and "\r" not in done.stdout + done.stderr


def test_pixels_times_and_rotation_are_kept(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(1, 9, 40)
    source = write_video(
        tmp_path / "a.mp4", frames=40, pts=np.cumsum(gaps).tolist(), time_base=Fraction(1, 90), rotation=90
    )
    target = tmp_path / "new" / "b.mp4"
    assert prepare_video(source, target, PrepareSettings(short_side=64, crf=1)).frames == 40
    with open_video(source) as old, open_video(target) as new:
        assert (new.height, new.width) == (old.height, old.width) == (96, 64)
        np.testing.assert_allclose(new.times(), old.times(), atol=1e-3)
        a, b = (video.read(np.arange(40)).frames.astype(int) for video in (old, new))
    assert np.abs(a - b).mean() < 1.5


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuvj420p"), ("libx264rgb", "rgb24"), ("ffv1", "gray")])
def test_colors_do_not_shift(codec: str, pix_fmt: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", frames=10, codec=codec, pix_fmt=pix_fmt)
    prepare_video(source, tmp_path / "b.mp4", PrepareSettings(crf=1))
    difference = plain_frames(source).astype(int) - plain_frames(tmp_path / "b.mp4")
    # A limited-range black-to-white shift would be about 8; 4:2:0 blurs the colors of a sharp edge.
    assert abs(difference.mean()) < 1.5 and np.abs(difference).mean() < 4


def test_frame_rate_is_reduced_never_raised(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=50, rate=50)
    for fps, count, rate in ((25.0, 25, 25), (100.0, 50, 50)):
        target = tmp_path / f"{fps}.mp4"
        assert prepare_video(source, target, PrepareSettings(fps=fps, crf=1)).frames == count
        with open_video(target) as video:
            assert (video.num_frames, video.fps) == (count, rate)
            shown = plain_frames(source)[:: 50 // count].astype(int)
            assert np.abs(video.read(np.arange(count)).frames - shown).mean() < 1.5


def test_readable_part_of_a_damaged_source_is_kept(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", frames=20, codec="mjpeg", pix_fmt="yuvj420p")
    source = break_packets(whole, tmp_path / "broken.mkv", {4, 5})
    result = prepare_video(source, tmp_path / "b.mp4", PrepareSettings())
    assert result.frames == 18 and result.damage is not None and "2 of 20 frames lost" in result.damage


def test_sizes() -> None:
    assert prepared_size(1920, 1080, 256) == (456, 256)
    assert prepared_size(1080, 1920, 256) == (256, 456)
    assert prepared_size(340, 256, 256) == (340, 256)
    assert prepared_size(171, 95, 256) == (170, 94)
    assert prepared_size(1000, 3, 256) == (1000, 2)


def test_colliding_names_keep_their_suffix(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.avi", "b.AVI", "c.mp4"):
        (tmp_path / name).touch()
    jobs = {job.name: job.target_name for job in find_jobs(tmp_path, tmp_path / "new")}
    assert jobs == {"a.avi": "a.avi.mp4", "a.mkv": "a.mkv.mp4", "b.AVI": "b.mp4", "c.mp4": "c.mp4"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["missing", "new"], "SOURCE missing does not exist"),
        (["source", "source"], "contain one another"),
        (["source", "source/new"], "contain one another"),
        (["source/sub", "source"], "contain one another"),
        (["source", "file"], "file is not a directory"),
        (["source/sub", "new"], "contains no videos"),
        (["source", "new", "--workers", "0"], "argument --workers: '0'"),
        (["source", "new", "--crf", "99"], "argument --crf: '99' is not an integer from 0 to 51"),
        (["source", "new", "--fps", "-3"], "argument --fps: '-3'"),
        (["source", "new", "--preset", "quick"], "argument --preset: invalid choice: 'quick'"),
        (["source", "new", "--index", "none.csv"], "none.csv does not exist"),
        (["source", "new", "--index", "broken.csv"], "broken.csv line 1"),
        (["source", "new", "--index", "outside.csv"], "is outside of"),
        (["source", "new", "--index", "new/train.csv"], "would be overwritten by the new index"),
    ],
)
def test_user_errors(
    options: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("source/sub", "new"):
        Path(folder).mkdir(parents=True)
    for name, text in {"file": "", "broken.csv": "a.mp4\n", "outside.csv": "../a.mp4 1\n"}.items():
        Path(name).write_text(text)
    Path("new/train.csv").write_text("a.mp4 0\n")
    Path("source/a.mp4").touch()
    assert main(["prepare", *options]) == 2
    said = capsys.readouterr().err
    assert problem in said and len(said.strip().splitlines()) == 1


def test_no_readable_video_is_an_error(
    tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.mp4").touch()
    assert prepare(tmp_path / "source", tmp_path / "new") == 2
    assert "none of 1 videos could be read. First failure: a.mp4: the file is empty" in capsys.readouterr().err
    assert (tmp_path / "new/failed.csv").exists()


def test_unwritable_target_ends_the_run(
    collection: Path, tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub folder").write_text("a file in the way")
    assert prepare(collection, target) == 2
    assert "cannot be written: file exists" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_truncated_source_is_damaged(
    tmp_path: Path, in_this_process: None, name: str, codec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    path = write_video(tmp_path / "source" / name, frames=150, codec=codec, options={"g": "5"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert prepare(tmp_path / "source", tmp_path / "target") == 0
    [entry] = [json.loads(line) for line in (tmp_path / "target" / MANIFEST).read_text().splitlines()]
    assert "the file ends after" in entry["damage"] and "of its 6.0 seconds" in entry["damage"]


def test_rewritten_index_is_read_back(tmp_path: Path) -> None:
    names = ['"quoted".avi', "a b.avi"]
    index = IndexLines(Path("train.csv"), [(name, "3") for name in names])
    assert write_index(index, " ", tmp_path, {name: name for name in names}) == []
    lines = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()
    assert [parse_line(line, " ") for line in lines] == [(name, 3) for name in names]
