"""Event-driven inference on videos: the command, its reports, and independence of the batching."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowfast.cli.setup import load_config
from slowfast.datasets.decode.reader import DecodeError
from slowfast.errors import ConfigError, UserError
from slowfast.event_driven.activity import BinnedMeans, summarize
from slowfast.event_driven.report import report_files, report_table
from slowfast.event_driven.sources import find_sources
from slowfast.event_driven.videos import VideoRun, run_on_videos
from slowfast.models.build import build_model
from slowfast.utils.signals import StopSignal
from slowfast.visualization.heat_map import PatchActivity, draw_activity
from tests.conftest import run_net
from tests.event_driven.settings import EMPTY, on_videos
from tests.event_driven.synthetic_videos import (
    CPU,
    STILL_FRAMES,
    by_name,
    frame_rows,
    synthetic_sources,
    video_run,
    write_still,
)
from tests.video_files import picture, write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a still video, moving ones of two sizes and lengths, a truncated one, and a text file named as a video."""
    root = tmp_path_factory.mktemp("videos")
    write_still(root / "still.mkv")
    write_video(root / "moving.mp4", 37, size=(48, 64))
    (root / "inner").mkdir()
    write_video(root / "inner" / "tall.avi", 11, codec="mpeg4", size=(80, 34))
    complete = write_video(root / "complete.mkv", 60, size=(48, 64), options={"g": "10"}).read_bytes()
    (root / "complete.mkv").unlink()
    (root / "truncated.mkv").write_bytes(complete[: len(complete) // 3])
    (root / "text.mp4").write_text("no video")
    (root / "notes.txt").write_text("nothing")
    return root


def test_command_reports_every_video(folder: Path, tmp_path: Path) -> None:
    done = run_net([*on_videos(folder, tmp_path), "EVENT.STREAMS", 3, "EVENT.ANNOTATE", True])
    assert done.returncode == 0, done.stderr
    assert "still.mkv" in done.stdout and "all 4" in done.stdout and "event_results.json" in done.stdout
    videos = by_name(tmp_path)
    assert {name: video["frames"] for name, video in videos.items() if name != "truncated.mkv"} == {
        "still.mkv": STILL_FRAMES,
        "moving.mp4": 37,
        "tall.avi": 11,
    }
    assert 0 < videos["truncated.mkv"]["frames"] < 60
    # Of a still video only the first frame is computed.
    assert videos["still.mkv"]["active"] == [100 / STILL_FRAMES] * 4
    assert videos["still.mkv"]["macs_saved"] == pytest.approx(100 * (1 - 1 / STILL_FRAMES))
    assert videos["still.mkv"]["top1_agreement"] == 100 and videos["still.mkv"]["logit_error_max"] < 1e-4
    still = [row for row in frame_rows(tmp_path) if row["path"].endswith("still.mkv")]
    assert [int(row["active_1"]) for row in still] == [64] + [0] * (STILL_FRAMES - 1)
    assert [float(row["seconds"]) for row in still] == [k / 25 for k in range(STILL_FRAMES)]
    assert videos["moving.mp4"]["macs_saved"] < videos["still.mkv"]["macs_saved"]
    with (tmp_path / "failed.csv").open(newline="") as file:
        failed = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert {name: row["lost"] for name, row in failed.items()} == {"text.mp4": "yes", "truncated.mkv": "no"}
    assert "not a video" in failed["text.mp4"]["reason"]
    assert {path.name for path in (tmp_path / "activity").iterdir()} == {
        *("still.png", "moving.png", "tall.png", "truncated.png")
    }
    with av.open(str(tmp_path / "annotated" / "moving.mp4")) as container:
        drawn = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(drawn) == 37 and drawn[0].shape == (448, 448, 3)


def test_batching_does_not_change_the_metrics(folder: Path, tmp_path: Path) -> None:
    rows = {}
    for name, streams, chunk in (("single", 1, 1), ("chunks", 1, 16), ("streams", 3, 7)):
        overrides = [*on_videos(folder, tmp_path / name), "EVENT.STREAMS", streams, "EVENT.CHUNK", chunk]
        cfg = load_config(EMPTY, overrides)
        run_on_videos(cfg, CPU)
        rows[name] = sorted(frame_rows(tmp_path / name), key=lambda row: (row["path"], int(row["frame"])))
    errors = ("logit_error_mean", "logit_error_max")
    for name in ("chunks", "streams"):
        for one, other in zip(rows["single"], rows[name], strict=True):
            found = [[float(row.pop(key)) for key in errors] for row in (dict(one), dict(other))]
            np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-5)
            assert {k: v for k, v in one.items() if k not in errors} == {
                k: v for k, v in other.items() if k not in errors
            }
    assert any(float(row["logit_error_max"]) > 1e-3 for row in rows["single"])  # something was left out


def test_without_comparison_and_with_few_frames(folder: Path, tmp_path: Path) -> None:
    overrides = [*on_videos(folder / "moving.mp4", tmp_path), "EVENT.COMPARE", False, "EVENT.MAX_FRAMES", 5]
    files = run_on_videos(load_config(EMPTY, overrides), CPU)
    video = by_name(tmp_path)["moving.mp4"]
    assert video["frames"] == 5 and "whole_fps" not in video and "top1_agreement" not in video
    assert all(path.exists() for path in files.values())


@pytest.mark.parametrize("trained", [False, True])
def test_reports_state_that_weights_are_untrained(folder: Path, tmp_path: Path, trained: bool) -> None:
    cfg = load_config(EMPTY, on_videos(folder / "moving.mp4", tmp_path))
    torch.save(build_model(cfg).state_dict(), tmp_path / "weights.pth")
    weights = ("TEST.CHECKPOINT_FILE_PATH", str(tmp_path / "weights.pth")) if trained else ()
    overrides = [*on_videos(folder / "moving.mp4", tmp_path / "out"), "EVENT.ANNOTATE", True, *weights]
    run = VideoRun(load_config(EMPTY, overrides), CPU, find_sources(str(folder / "moving.mp4"), 1))
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slowfast.event_driven.report.draw_activity", lambda *drawn: notes.append(drawn[1]))
        report = run.run(lambda: False)
        report_files(report, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "event_results.json").read_text())
    assert results["trained"] is trained and results["weights"] == (weights[1] if trained else "random")
    with (tmp_path / "out" / "event_videos.csv").open(newline="") as file:
        assert [row["weights"] for row in csv.DictReader(file)] == [results["weights"]]
    assert {row.get("untrained") for row in frame_rows(tmp_path / "out")} == {None if trained else "1"}
    drawn = run.annotated._lines(torch.zeros(8))[0]
    for text in (report_table(report), notes[0], drawn):
        assert ("untrained" in text.lower()) is not trained


def test_frame_log_is_optional(folder: Path, tmp_path: Path) -> None:
    overrides = [*on_videos(folder / "still.mkv", tmp_path), "EVENT.FRAME_LOG", False]
    assert "metrics per frame" not in run_on_videos(load_config(EMPTY, overrides), CPU)
    assert not (tmp_path / "event_frames.csv").exists()


def test_unwritable_frame_log_is_a_user_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "event_frames.csv").mkdir(parents=True)
    done = run_net(on_videos(folder / "still.mkv", tmp_path / "out"))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "event_frames.csv cannot be written" in line and "EVENT.FRAME_LOG" in line


def test_no_readable_video_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    done = run_net(on_videos(tmp_path / "text.mp4", tmp_path / "out"))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and "text.mp4: not a video" in line


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (["DATA.PATH_PREFIX", ""], "DATA.PATH_PREFIX is empty"),
        (["DATA.PATH_PREFIX", "nowhere/at/all"], "nowhere/at/all does not exist"),
        (["MODEL.MODEL_NAME", "ConvMLP"], "MODEL.MODEL_NAME must be evMLP"),
        (["EVENT.CHUNK", 0], r"EVENT.CHUNK \(0\) must be from 1"),
        (["EVENT.GATE", "median"], "EVENT.GATE"),
        (["EVENT.PRECISION", "int4"], "int8"),
    ],
)
def test_invalid_settings_are_config_errors(tmp_path: Path, change: list[object], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_config(EMPTY, [*on_videos(tmp_path, tmp_path), *change])


def test_several_processes_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one process"):
        load_config(EMPTY, on_videos(tmp_path, tmp_path), world_size=2)


def test_error_ends_only_its_video(tmp_path: Path) -> None:
    sources = synthetic_sources((21, None), (5, DecodeError("the disk is gone")), (0, OSError("no")), (9, None))
    report = video_run(tmp_path, sources, "EVENT.STREAMS", 2, "EVENT.CHUNK", 4).run(lambda: False)
    assert {index: video.frames for index, video in report.videos.items()} == {0: 21, 1: 5, 3: 9}
    assert [(failure.index, failure.reason, failure.lost) for failure in report.failures] == [
        (1, "the disk is gone", False),
        (2, "no", True),
    ]


def test_user_error_is_raised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a mistake"):
        video_run(tmp_path, synthetic_sources((3, UserError("a mistake")))).run(lambda: False)


def test_stopped_run_reports_processed_frames(tmp_path: Path) -> None:
    run = video_run(tmp_path, synthetic_sources((10**9, None)), "EVENT.CHUNK", 2)
    report = run.run(lambda: run.batches >= 3)
    assert report.videos[0].frames == 6 and summarize([report.videos[0]]).event_fps > 0


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=30), st.sampled_from([2, 6]))
def test_binned_means_use_constant_memory(chunks: list[list[int]], points: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BinnedMeans, "MAX_BINS", points)
        course = BinnedMeans(1)
        for chunk in chunks:
            course.add(np.array(chunk)[:, None], (course.frames + np.arange(len(chunk))) / 25)
    values = np.array(sum(chunks, []), float)
    starts, seconds, means = course.means()
    np.testing.assert_allclose(seconds, starts / 25)
    assert course.frames == len(values) and len(starts) <= points
    assert len(starts) * 2 > points or course.bin_size == 1
    want = [values[start : start + course.bin_size].mean() for start in starts]
    np.testing.assert_allclose(means[:, 0], want)


def test_first_ctrl_c_stops_second_interrupts() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        with StopSignal(signal.SIGINT, signal.SIGTERM) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.seen
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_plots_of_long_videos(tmp_path: Path) -> None:
    shares = np.random.default_rng(0).uniform(0, 100, (4321, 3))
    course = BinnedMeans(3)
    course.add(shares, np.arange(len(shares)) / 25)
    activity = PatchActivity("a $name", picture(0, 32, 32), np.eye(8), *course.means(), course.frames)
    draw_activity(activity, "note", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
