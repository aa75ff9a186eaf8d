"""Parts of the benchmark on tiny videos and a tiny network: what they report, never how long they take."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import loading, network
from benchmarks.loading import decode_once, measure_large_frames, measure_loading, measure_testing, read_views
from benchmarks.main import main, parse
from benchmarks.measure import TARGETS, Measurement
from benchmarks.network import FLOAT32, LiveBytes, example_batch, measure_network, train_steps
from benchmarks.videos import (
    SyntheticClip,
    enlarge_video,
    find_videos,
    link_videos,
    make_fixed_camera_video,
    make_videos,
    on_folder,
)
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import build_dataset
from slowfast.datasets.clip_dataset import VideoEvalDataset
from slowfast.datasets.decode import open_video
from slowfast.errors import DataError
from slowfast.models.linear import count_macs
from tests.video_files import plain_frames, write_video

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "videos"
    folder.mkdir()
    return [write_video(folder / f"{name}.mp4", frames=20) for name in ("one", "two")]


@pytest.fixture
def on_videos(tiny_cfg: ConfigNode, videos: list[Path], tmp_path: Path) -> ConfigNode:
    return on_folder(tiny_cfg, link_videos(videos, tmp_path / "given"))


def test_loading_is_split_into_all_its_pieces(on_videos: ConfigNode) -> None:
    measured = measure_loading({"given": on_videos}, runs=1, samples=2)["given"]
    assert measured.clips_per_second > 0 and measured.clips_per_cpu_second > 0
    assert list(measured.milliseconds) == [*loading.STAGES, "rest"]
    assert all(value > 0 for value in measured.milliseconds.values())
    whole = sum(measured.milliseconds.values()) / 1e3
    assert math.isclose(measured.clips_per_second, on_videos.AUG.NUM_SAMPLE / whole)


def test_scaling_while_decoding_is_compared_with_full_size(
    tiny_cfg: ConfigNode, videos: list[Path], tmp_path: Path
) -> None:
    large = enlarge_video(videos[0], tmp_path / "large" / "a.mp4", size=(192, 288), frames=16)
    frames = plain_frames(large)
    assert frames.shape == (16, 192, 288, 3)
    with open_video(large) as enlarged, open_video(videos[0]) as source:
        assert enlarged.fps == pytest.approx(source.fps)
    assert np.abs(plain_frames(large, "96:64:flags=area").astype(int) - plain_frames(videos[0])[:16]).mean() < 12
    measurements = measure_large_frames(on_folder(tiny_cfg, large.parent), runs=1, samples=2)
    found = {(measurement.group, measurement.name): measurement.value for measurement in measurements}
    assert all(value > 0 for value in found.values())
    clips = [found[group, "clips/s"] for group in (loading.LARGE, loading.FULL_SIZE)]
    assert found[loading.LARGE, "ratio to full size"] == pytest.approx(clips[0] / clips[1])


def test_large_files_are_read_in_both_sizes(
    tiny_cfg: ConfigNode, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    transform = loading.TrainTransform.__call__

    def spy(self: loading.TrainTransform, frames: np.ndarray, *rest: Any) -> np.ndarray:
        shapes.append(frames.shape[1:3])
        return transform(self, frames, *rest)

    monkeypatch.setattr(loading.TrainTransform, "__call__", spy)
    measure_large_frames(on_folder(tiny_cfg, link_videos(videos, tmp_path / "given")), runs=1, samples=2)
    assert set(shapes) == {(32, 48), (64, 96)}


def test_measuring_leaves_the_pipeline_as_it_was(on_videos: ConfigNode) -> None:
    before = loading.TrainTransform.__call__, loading.RgbConverter.__call__
    measure_loading({"given": on_videos}, runs=1, samples=2)
    assert (loading.TrainTransform.__call__, loading.RgbConverter.__call__) == before


@pytest.mark.parametrize("measure", [lambda cfg: measure_loading({"": cfg}, 1, 2), lambda cfg: measure_testing(cfg, 1)])
def test_a_broken_video_is_named(
    on_videos: ConfigNode, videos: list[Path], measure: Callable[[ConfigNode], object]
) -> None:
    videos[0].write_text("no video")
    with pytest.raises(DataError, match="one.mp4"):
        measure(on_videos)


def test_views_are_compared_with_plain_decoding(on_videos: ConfigNode) -> None:
    measurements = measure_testing(on_videos, runs=1, views=[(2, 1), (3, 3)])
    assert [measurement.group for measurement in measurements] == ["test, 2x1 views"] * 4 + ["test, 3x3 views"] * 4
    assert all(measurement.value > 0 for measurement in measurements)


def test_all_views_are_read(on_videos: ConfigNode) -> None:
    dataset = build_dataset(on_videos, "test")
    assert isinstance(dataset, VideoEvalDataset)
    assert read_views(dataset, 0) == on_videos.TEST.NUM_ENSEMBLE_VIEWS * on_videos.TEST.NUM_SPATIAL_CROPS


def test_plain_decoding_gives_the_frames_that_the_reader_gives(videos: list[Path]) -> None:
    wanted = {3, 4, 11}
    with open_video(videos[0]) as reader:
        size = reader.height
        expected = reader.read(sorted(wanted)).frames
    np.testing.assert_array_equal(np.stack(decode_once(videos[0], wanted, size)), expected)
    assert decode_once(videos[0], wanted, 32)[0].shape == (32, 48, 3)


def test_every_figure_of_the_network_is_there(tiny_cfg: ConfigNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "in_fresh_process", lambda function, *args: function(*args))  # starting one is slow
    measurements = measure_network(tiny_cfg, CPU, runs=1, clips=2, side=32)
    assert all(math.isfinite(measurement.value) and measurement.value > 0 for measurement in measurements)
    dtypes = network.measured_dtypes(CPU)
    names = {(measurement.group, measurement.name) for measurement in measurements}
    assert {key for key in TARGETS if key[0] in {f"network, {dtype}" for dtype in dtypes}} <= names
    by_name = {(measurement.group, measurement.name): measurement.value for measurement in measurements}
    for dtype in dtypes:
        assert by_name[f"network, {dtype}", "checkpointing, activation memory"] < 100


def test_multiply_adds_are_those_of_a_sample(tiny_cfg: ConfigNode) -> None:
    step = train_steps(tiny_cfg, CPU, 2, checkpointing=False)[FLOAT32]
    clips = [step.forward.prepare(example_batch(tiny_cfg, count).clips) for count in (1, 2)]
    assert count_macs(step.model, clips[0], 1) == pytest.approx(count_macs(step.model, clips[1], 2))
    assert count_macs(torch.nn.Linear(7, 5), torch.ones(3, 7), 3) == 35


def test_live_bytes_count_what_is_alive_at_once() -> None:
    x = torch.ones(1000)  # made before: not counted
    with LiveBytes() as memory:
        for _ in range(5):
            y = x * 2  # one of 4000 bytes replaces the last only when it is made
            y.add_(1)
            y.view(10, 100)
        del y
        assert memory.peak == 8000
        kept = [x + 1 for _ in range(3)]
    assert memory.peak == 12000 and len(kept) == 3


def test_live_bytes_know_what_autograd_keeps() -> None:
    x = torch.ones(1000, requires_grad=True)
    x.grad = torch.zeros(1000)
    with LiveBytes() as memory:
        y = x
        for _ in range(4):
            y = y.exp()  # each result is kept for the backward pass
        y.sum().backward()
    assert 4 * 4000 <= memory.peak <= 7 * 4000


def test_synthetic_clips_have_the_stated_form(tmp_path: Path) -> None:
    clip = SyntheticClip(frames=12, height=32, width=48, keyframe_interval=8)
    first, second = make_videos(tmp_path / "made", clip)
    with open_video(first) as reader:
        assert (reader.num_frames, reader.height, reader.width, reader.fps) == (12, 32, 48, 30)
    assert not np.array_equal(plain_frames(first), plain_frames(second))


def test_the_rendered_camera_is_fixed(tmp_path: Path) -> None:
    frames = plain_frames(make_fixed_camera_video(tmp_path / "new" / "camera.mp4", frames=4)).astype(int)
    changed = (np.abs(frames[0] - frames[-1]) > 20).any(-1)
    assert frames.shape == (4, 360, 640, 3) and 0 < changed.mean() < 0.05


def test_videos_are_found_and_missing_ones_named(videos: list[Path], tmp_path: Path) -> None:
    assert find_videos([videos[0].parent]) == videos
    assert find_videos(videos[:1]) == videos[:1]
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, reason in ((empty, "contains no videos"), (tmp_path / "none.mp4", "does not exist")):
        with pytest.raises(DataError, match=reason):
            find_videos([path])


@pytest.mark.parametrize(
    ("line", "parts", "overrides"),
    [
        ("", ["load", "load_1080p", "test", "network"], []),
        ("test load", ["load", "test"], []),
        ("--repeats 2", ["load", "load_1080p", "test", "network"], []),
        ("networks --only EAT_S,EAT_B", ["networks"], []),
        ("network --videos a b NUM_GPUS 0 DATA.NUM_FRAMES 8", ["network"], ["NUM_GPUS", "0", "DATA.NUM_FRAMES", "8"]),
        ("--json RESULTS network", ["network"], []),
    ],
)
def test_command_line(line: str, parts: list[str], overrides: list[str]) -> None:
    chosen = parse(line.split())
    assert (chosen.parts, chosen.overrides) == (parts, overrides)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("load --videos {tmp}/none.mp4", "none.mp4 does not exist"),
        ("network --json {tmp}", "is a directory. Name a file"),
        ("network NUM_GPU 0", "NUM_GPUS"),
    ],
)
def test_mistakes_are_told(line: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.format(tmp=tmp_path).split()) == 2
    assert reason in capsys.readouterr().err


def test_results_are_printed_and_written(
    videos: list[Path], tiny_cfg: ConfigNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, results = tmp_path / "tiny.yaml", tmp_path / "results.json"
    config.write_text(tiny_cfg.dump())
    line = ["test", "--cfg", str(config), "--videos", str(videos[0].parent), "--repeats", "1", "--json", str(results)]
    assert main([*line, "DATA.NUM_FRAMES", "5"]) == 0
    written = json.loads(results.read_text())
    assert written["overrides"] == ["DATA.NUM_FRAMES", "5"] and written["machine"]["cores"] >= 1
    assert {measurement["group"] for measurement in written["figures"]} == {"test, 4x1 views", "test, 10x3 views"}
    printed = capsys.readouterr().out
    assert all(measurement["name"] in printed for measurement in written["figures"])
    assert Measurement("a", "b", 1.0, "s", 1).target is None
