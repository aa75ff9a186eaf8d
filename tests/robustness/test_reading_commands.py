"""All commands that read files: a bad file only fails itself, is listed, and leaves no process behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, environment, tiny_settings
from tests.csv_files import read_reasons
from tests.event_driven.settings import on_videos
from tests.robustness.hostile_reading import ERRORS, LIMIT, REASONS
from tests.warm_start import Run, none_left, run_script, session_processes

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("hostile_reading.py")
EMPTY = ROOT / "tests" / "empty.yaml"
GOOD = 4  # files that can be read


@pytest.fixture(scope="module")
def clips(kinetics_folder: Path) -> list[Path]:
    return sorted(kinetics_folder.rglob("*.mp4"))


@pytest.fixture
def hostile(clips: list[Path], tmp_path: Path) -> Path:
    """Some good clips and one file for each kind of failure."""
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [f"good{number}" for number in range(GOOD)] + list(REASONS)
    for name, clip in zip(names, clips, strict=False):
        shutil.copy(clip, folder / f"{name}.mp4")
    return folder


def run(tool: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; none of its processes may be left."""
    return run_script(SCRIPT, [tool, *map(str, words)], environment(), timeout=300)


def rows(path: Path) -> dict[str, str]:
    return {Path(name).stem: reason for name, reason in read_reasons(path).items()}


def all_listed(reasons: dict[str, str], wanted: dict[str, str]) -> None:
    assert reasons.keys() == wanted.keys()
    for name, reason in reasons.items():
        assert wanted[name] in reason and "\n" not in reason, (name, reason)


def index(folder: Path, split: str, names: list[str]) -> None:
    lines = [f"{name}.mp4 {label % 8}" for label, name in enumerate(names)]
    (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def settings(hostile: Path, output: Path, *more: object) -> list[object]:
    return [*tiny_settings(hostile, output), "DATA_LOADER.TIMEOUT", LIMIT, "DATA_LOADER.NUM_WORKERS", 2, *more]


def test_training_and_test(hostile: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in hostile.iterdir())
    for split in ("train", "val", "test"):
        index(hostile, split, names)
    more = ("DATA.MAX_FAILED", 0.9, "SOLVER.MAX_EPOCH", 2, "TRAIN.BATCH_SIZE", 4)
    done = run("run_net", "--cfg", EMPTY, *settings(hostile, tmp_path / "out", *more))
    assert done.returncode == 0, done.stderr
    for name in ("failed_train.csv", "failed.csv"):
        all_listed(rows(tmp_path / "out" / name), REASONS)
    results = json.loads((tmp_path / "out" / "test_results.json").read_text())
    assert (results["videos"], results["failed"]) == (len(names), len(REASONS))
    log = (tmp_path / "out" / "stdout.log").read_text()
    unexpected = [kind for kind in ERRORS if kind not in ("input/output error", "OpenCV")]
    assert all(f"\n{kind}" in log for kind in unexpected)  # the last line of the traceback
    assert log.count("Traceback (most recent call last)") == len(unexpected) + 1  # once each


def test_features(hostile: Path, tmp_path: Path) -> None:
    index(hostile, "test", sorted(path.stem for path in hostile.iterdir()))
    out = tmp_path / "features.npz"
    done = run("extract_features", "--cfg", EMPTY, "--out", out, *settings(hostile, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    all_listed(rows(tmp_path / "features_failed.csv"), REASONS)
    with np.load(out) as features:
        assert [Path(str(name)).stem for name in features["path"]] == [f"good{number}" for number in range(GOOD)]


def test_predict(hostile: Path, tmp_path: Path) -> None:
    done = run("predict", "--cfg", EMPTY, hostile, *settings(tmp_path / "none", tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(one["path"]).stem for one in found["predictions"]] == [f"good{number}" for number in range(GOOD)]
    all_listed({Path(one["path"]).stem: one["reason"] for one in found["failed"]}, REASONS)


def test_grad_cam(hostile: Path, tmp_path: Path) -> None:
    done = run("grad_cam", "--cfg", EMPTY, hostile, *settings(tmp_path / "none", tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    drawn = sorted(path.stem for path in (tmp_path / "out" / "grad_cam").iterdir())
    assert drawn == [f"good{number}" for number in range(GOOD)]
    for name, reason in REASONS.items():
        (line,) = [line for line in done.stdout.splitlines() if f"{name}.mp4 cannot be read: " in line]
        assert reason in line


EVENTS = ("--height", 32, "--width", 36)


@pytest.mark.parametrize(
    ("tool", "options", "suffix"),
    [("prepare_videos", (), ".mp4"), ("extract_frames", (), ""), ("video_to_events", EVENTS, ".npz")],
)
def test_conversions(hostile: Path, tmp_path: Path, tool: str, options: tuple[object, ...], suffix: str) -> None:
    target = tmp_path / "target"
    done = run(tool, hostile, target, "--workers", 2, *options)
    assert done.returncode == 0, done.stderr
    all_listed(rows(target / "failed.csv"), REASONS)
    made = {path.name for path in target.iterdir()}
    assert {f"good{number}{suffix}" for number in range(GOOD)} <= made
    assert not [name for name in made if "hostile" in name]


def test_event_driven_inference(hostile: Path, tmp_path: Path) -> None:
    """Files are read in a thread of the process, so files that kill the process are left out."""
    wanted = {name: reason for name, reason in REASONS.items() if reason in ERRORS}
    for name in REASONS.keys() - wanted.keys():
        (hostile / f"{name}.mp4").unlink()
    done = run("run_net", "--cfg", EMPTY, *on_videos(hostile, tmp_path / "out"), "DATA_LOADER.TIMEOUT", LIMIT)
    assert done.returncode == 0, done.stderr
    all_listed(rows(tmp_path / "out" / "failed.csv"), wanted)
    results = json.loads((tmp_path / "out" / "event_results.json").read_text())
    assert [Path(video["path"]).stem for video in results["videos"]] == [f"good{number}" for number in range(GOOD)]


Line = Callable[[Path, Path], tuple[object, ...]]
READERS: dict[str, Line] = {
    "train": lambda data, out: ("run_net", "--cfg", EMPTY, *settings(data, out, "TRAIN.BATCH_SIZE", 4)),
    "test": lambda data, out: ("run_net", "--cfg", EMPTY, *settings(data, out, "TRAIN.ENABLE", False)),
    "predict": lambda data, out: ("predict", "--cfg", EMPTY, data, *settings(data, out)),
    "features": lambda data, out: ("extract_features", "--cfg", EMPTY, *settings(data, out)),
}


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("command", READERS)
def test_what_is_not_a_files_failure_ends_the_run(hostile: Path, tmp_path: Path, command: str, workers: int) -> None:
    for name in REASONS:
        (hostile / f"{name}.mp4").unlink()
    shutil.copy(hostile / "good0.mp4", hostile / "fatal00.mp4")
    for split in ("train", "val", "test"):
        index(hostile, split, sorted(path.stem for path in hostile.glob("*.mp4")))
    words = READERS[command](hostile, tmp_path / "out")
    done = run(*words, "DATA_LOADER.NUM_WORKERS", workers)  # type: ignore[arg-type]
    assert done.returncode == 1
    assert "WorkerError: SystemExit in a worker process" in done.stderr


def test_workers_end_with_a_killed_run(hostile: Path, tmp_path: Path) -> None:
    """Also a worker that hangs in C."""
    hangs = next(name for name, reason in REASONS.items() if reason == f"{LIMIT} s")
    index(hostile, "test", [hangs, "good0"])
    words = settings(hostile, tmp_path / "out", "TRAIN.ENABLE", False, "DATA_LOADER.TIMEOUT", 600)
    started = Run(SCRIPT, ["run_net", "--cfg", str(EMPTY), *map(str, words)], environment(), tmp_path)
    started.wait_for(lambda: len(session_processes(started.pid)) >= 2)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert none_left(started.pid)
