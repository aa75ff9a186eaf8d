"""Sliding windows over video files: clips and scores equal those of cut files; output files."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_settings
from video_files import break_packets, picture, write_sound, write_video

from slowfast.cli.main import main
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, views_of_records
from slowfast.datasets.decode import open_video
from slowfast.datasets.index.samples import SampleKind, find_samples
from slowfast.datasets.types import EvalVideo, FailureLedger, Record
from slowfast.errors import DataError
from slowfast.inference import sliding, window_reader
from slowfast.inference.predictor import Predictor
from slowfast.inference.segments import WindowScores
from slowfast.inference.sliding import SlidingPredictor
from slowfast.inference.window_reader import ClipSampling, SequentialFile, Window, read_windows
from slowfast.inference.windows import Length, WindowLayout, WindowOptions
from slowfast.utils.screen import Progress
from tests.csv_files import read_rows
from tests.inference.tiny_predictions import predict

EMPTY = str(ROOT / "tests" / "empty.yaml")
LOSSLESS = {"qp": "0"}
CPU = torch.device("cpu")


def config(folder: Path, *more: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list([*tiny_settings(folder / "none", folder / "out"), "DATA_LOADER.NUM_WORKERS", 0, *more])
    cfg.freeze()
    return cfg


def record(path: Path, index: int = 0) -> Record:
    return Record(index, path, str(path), -1)


def windows_of(cfg: ConfigNode, path: Path, layout: WindowLayout) -> list[Window]:
    sampling = ClipSampling.from_config(cfg)
    video = SequentialFile(path, 1, cfg.DATA.TRAIN_JITTER_SCALES[0])
    windows = list(read_windows(record(path), video, layout.plan(video.times(), video.fps), sampling))
    video.close()
    return windows


def clips(sample: EvalVideo) -> torch.Tensor:
    return torch.stack(list(sample.clips(CPU)))


@pytest.mark.parametrize("step", [0.4, 0.16, 1.0])
def test_windows_have_the_clips_of_a_cut_file(tmp_path: Path, step: float) -> None:
    cfg = config(tmp_path)
    video = write_video(tmp_path / "long.mp4", frames=60, size=(64, 96), options=LOSSLESS)
    found = windows_of(cfg, video, WindowLayout(0.8, step))
    for window in found:
        first, count = round(window.start * 25), round((window.end - window.start) * 25)
        cut = write_video(tmp_path / "cut.mp4", frames=count, options=LOSSLESS, first=first)
        [wanted] = views_of_records(cfg, TEST, [record(cut)], all_views=True)
        assert torch.equal(clips(window.sample), clips(wanted))
    assert found[-1].end == pytest.approx(60 / 25)


def predict_windows(cfg: ConfigNode, paths: list[Path], options: WindowOptions) -> list[WindowScores]:
    found: list[WindowScores] = []
    samples = find_samples(paths, SampleKind.from_config(cfg))
    predictor = SlidingPredictor.from_config(cfg, options)
    progress = Progress("predict", 0, "windows", shown=False, every=1)
    predictor.scores(samples.records, found.append, lambda _: None, FailureLedger(samples.count), progress)
    progress.close()
    return found


def test_scores_are_those_of_a_cut_file_in_batches_of_several_files(tmp_path: Path) -> None:
    cfg = config(tmp_path, "TEST.BATCH_SIZE", 7)  # a batch holds parts of windows and of files
    files = [
        write_video(tmp_path / "a.mp4", frames=33, options=LOSSLESS),
        write_video(tmp_path / "b.mp4", frames=41, options=LOSSLESS, first=100),
    ]
    found = predict_windows(cfg, files, WindowOptions(Length(0.8), Length(0.4)))
    assert [window.record.index for window in found] == [0] * 3 + [1] * 4
    one = Predictor.from_config(cfg)
    for window in found:
        first = round(window.start * 25) + 100 * window.record.index
        cut = write_video(tmp_path / "cut.mp4", frames=20, options=LOSSLESS, first=first)
        scores = one(cut).scores
        assert scores is not None
        torch.testing.assert_close(window.scores, scores, rtol=0, atol=1e-6)


def test_segments_in_python(tmp_path: Path) -> None:
    sliding = SlidingPredictor.from_config(config(tmp_path), WindowOptions(Length(1), Length(0.5)))
    segments = sliding(write_video(tmp_path / "a.mp4", frames=50))
    assert [(segment.start, segment.end) for segment in segments] == [(0, 1), (0.52, 1.52), (1, 2)]
    with pytest.raises(DataError, match=r"gone\.mp4: does not exist"):
        sliding(tmp_path / "gone.mp4")
    with pytest.raises(DataError, match="is longer than the video"):
        sliding(write_video(tmp_path / "b.mp4", frames=10))


class CountedFile(SequentialFile):
    """Video file that counts the frames that were converted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, 1, 32)
        self.given: list[int] = []

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for number, image in super().images(wanted):
            self.given.append(number)
            yield number, image


def test_frames_are_read_once_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, held = config(tmp_path), list[int]()
    video = CountedFile(write_video(tmp_path / "long.mp4", frames=200, size=(32, 32)))
    add = window_reader.HeldFrames.add

    def count(frames: window_reader.HeldFrames, number: int, image: np.ndarray) -> None:
        add(frames, number, image)
        held.append(len(frames._frames))

    monkeypatch.setattr(window_reader.HeldFrames, "add", count)
    plan = WindowLayout(1.0, 0.2).plan(video.times(), video.fps)
    assert len(list(read_windows(record(tmp_path), video, plan, ClipSampling.from_config(cfg)))) == 36
    video.close()
    assert video.given == sorted(set(video.given)) and len(video.given) > 100
    assert max(held) <= plan.length


def test_a_variable_rate_is_shown_at_a_constant_one(tmp_path: Path) -> None:
    """The last second of the first part is a still image; its windows show one frame."""
    pts = [*range(25), *range(50, 75)]
    video = write_video(tmp_path / "gap.mkv", frames=50, pts=pts, options=LOSSLESS)
    windows = windows_of(config(tmp_path), video, WindowLayout(0.4, 0.4))
    assert windows[-1].end == pytest.approx(3.0, abs=0.1)
    still = [len(torch.unique(clips(window.sample), dim=1)[0]) for window in windows if 1.1 < window.start < 1.5]
    assert still == [1]


def test_a_window_of_one_clip_is_computed_once(tmp_path: Path) -> None:
    cfg = config(tmp_path, "TEST.NUM_ENSEMBLE_VIEWS", 10)
    video = write_video(tmp_path / "a.mp4", frames=30)
    assert {window.sample.count for window in windows_of(cfg, video, WindowLayout(8 / 30, 0.4))} == {3}
    assert {window.sample.count for window in windows_of(cfg, video, WindowLayout(1.0, 0.4))} == {30}


def test_files_of_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=50)
    write_video(tmp_path / "in" / "short.mp4", frames=5)
    write_sound(tmp_path / "in" / "sound.mp4")
    broken = set(range(30, 50))
    break_packets(write_video(tmp_path / "whole.mp4", frames=60), tmp_path / "in" / "torn.mp4", broken)
    status, out = predict(tmp_path, tmp_path / "in", "--window", "0.8s", "--step", 0.4, "--annotate")
    assert status == 0
    rows = read_rows(out / "segments.csv")
    times = [(Path(row["path"]).name, row["start"], row["end"]) for row in rows]
    assert times[:4] == [("a.mp4", f"{0.4 * n:.3f}", f"{0.4 * n + 0.8:.3f}") for n in range(4)]
    assert all(row["prediction"] == row["five_best"].split(":")[0] for row in rows)
    results = json.loads((out / "segments.json").read_text())
    assert (results["window"], results["step"], results["merged"]) == (0.8, 0.4, False)
    assert [Path(video["path"]).name for video in results["videos"]] == ["a.mp4", "torn.mp4"]
    assert sum(len(video["segments"]) for video in results["videos"]) == len(rows)
    failed = {Path(row["path"]).name: row for row in read_rows(out / "failed.csv")}
    assert {name: row["lost"] for name, row in failed.items()} == {
        "short.mp4": "yes",
        "sound.mp4": "yes",
        "torn.mp4": "no",
    }
    assert "longer than the video, which has 0.2 s" in failed["short.mp4"]["reason"]
    assert "no video" in failed["sound.mp4"]["reason"]
    text = (out / "subtitles" / "a.srt").read_text()
    assert text.count("-->") == 4 and "00:00:00,600 --> 00:00:01,000" in text
    with open_video(out / "annotated" / "a.mp4") as video:
        assert (video.num_frames, video.fps) == (50, 25)
    shown = capsys.readouterr().out
    assert "clips/s" in shown and "times real time" in shown and "2 files read" in shown


def test_segments_are_merged(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=60)
    assert predict(tmp_path, video, "--step", "0.1")[0] == 0
    windows = read_rows(tmp_path / "out" / "segments.csv")
    assert predict(tmp_path, video, "--step", "0.1", "--merge")[0] == 0
    merged = read_rows(tmp_path / "out" / "segments.csv")
    kinds = [row["prediction"] for row in windows]
    assert [row["prediction"] for row in merged] == [a for a, b in zip(kinds, [*kinds[1:], ""], strict=True) if a != b]
    assert (merged[0]["start"], merged[-1]["end"]) == ("0.000", "2.400")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--window", "9"), "a window of 9 s is longer than the video, which has 0.4 s. Use a shorter --window"),
        (("--window", "0"), "'0' is not a length above 0"),
        (("--step", "3 frames"), "is not a length above 0"),
        (("--window", "1", "--out", "{video}/x"), "is not a directory. Choose another folder"),
        (("--weights", "nowhere.pyth"), "nowhere.pyth"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, words: tuple[str, ...], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "a.mp4", frames=10)
    status, out = predict(tmp_path, video, *(word.format(video=video) for word in words))
    error = capsys.readouterr().err
    assert status == 2 and answer in error and error.count("\n") == 1
    assert not out.exists()


def test_images_and_recordings_have_no_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset, reads in (("imagenet", "reads images"), ("dvsframes", "reads event recordings")):
        more = ["TEST.DATASET", dataset, "TEST.NUM_ENSEMBLE_VIEWS", "1", "TEST.NUM_SPATIAL_CROPS", "1"]
        more += ["MODEL.MODEL_NAME", "ConvMLP"] if dataset == "imagenet" else []
        settings = [*tiny_settings(tmp_path, tmp_path / "out"), *more]
        assert main(["predict", "--cfg", EMPTY, "x.mp4", "--window", "1", *map(str, settings)]) == 2
        assert reads in capsys.readouterr().err


def test_ctrl_c_writes_what_was_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = sliding.read_windows

    def interrupted(*args: object) -> Iterator[Window]:
        for number, window in enumerate(read(*args)):  # type: ignore[arg-type]
            if number == 3:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                time.sleep(0.3)
            yield window

    monkeypatch.setattr(sliding, "read_windows", interrupted)
    video = write_video(tmp_path / "a.mp4", frames=100)
    status, out = predict(tmp_path, video, "--window", "0.4")
    assert status == 128 + signal.SIGINT
    assert 0 < len(read_rows(out / "segments.csv")) <= 3
    assert len(json.loads((out / "segments.json").read_text())["videos"][0]["segments"]) <= 3


def test_a_file_that_hangs_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = SequentialFile.images

    def hanging(self: SequentialFile, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for number, image in images(self, wanted):
            if self._short_side == 32 and "a.mp4" in self._reader._container.name and number > 20:
                released.wait(600)
            yield number, image

    released = threading.Event()
    monkeypatch.setattr(SequentialFile, "images", hanging)
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", frames=30)
    words = (tmp_path / "a.mp4", tmp_path / "b.mp4", "--window", "0.4", "DATA_LOADER.TIMEOUT", "3")
    status, out = predict(tmp_path, *words)
    released.set()
    assert status == 0
    [failed] = read_rows(out / "failed.csv")
    assert failed["path"].endswith("a.mp4") and failed["lost"] == "no" and "longer than 3 s" in failed["reason"]
    assert {Path(row["path"]).name for row in read_rows(out / "segments.csv")} == {"a.mp4", "b.mp4"}


def test_folders_of_frames(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "frames").mkdir()
    for number in range(1, 61):
        cv2.imwrite(str(tmp_path / "frames" / f"{number:05d}.jpg"), picture(number, 40, 48))
    words = (tmp_path / "frames", "--window", "1", "TEST.DATASET", "ssv1")
    assert predict(tmp_path, *words)[0] == 0
    assert [row["end"] for row in read_rows(tmp_path / "out" / "segments.csv")] == ["1.000", "2.000"]
