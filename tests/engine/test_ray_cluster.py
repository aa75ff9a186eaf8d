"""Ray cluster of two nodes on this machine: same results as one machine, even if a node is lost or the run stops."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slowfast.cli.run import run as run_config
from slowfast.cli.setup import load_config
from slowfast.event_driven.cluster_videos import ClusterRun
from slowfast.event_driven.sources import find_sources
from slowfast.event_driven.videos import VideoRun, run_on_videos
from slowfast.utils.logging import get_logger
from tests.conftest import ROOT, tiny_settings
from tests.event_driven.settings import EMPTY, on_videos, small_evmlp
from tests.event_driven.synthetic_videos import CPU

pytestmark = [pytest.mark.slow, pytest.mark.extensive]
VOLATILE = ("seconds", "clips_per_second", "peak_memory_mib", "config_digest", "date")
VIDEOS = 160  # enough that the command is still running when it is stopped
MEMORY = 100 * 2**20  # bytes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="ray, of the extra ray, is not installed")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        started = Cluster(initialize_head=True, head_node_args=head)
        started.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield started
    started.shutdown()


def start(words: list[object], address: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "slowfast", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A shell that starts the tests in the background ignores SIGINT, and so would the command.
    return subprocess.Popen(line, text=True, env=env, preexec_fn=accept_interrupts, **pipes)


def accept_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(words: list[object], address: str) -> str:
    process = start(words, address)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def settings(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Overrides of a tiny network; one of the test videos cannot be read."""
    data = tmp_path_factory.mktemp("data")
    (data / "videos").symlink_to(kinetics_folder / "videos")
    lines = (kinetics_folder / "test.csv").read_text()
    (data / "test.csv").write_text(f"{lines}gone.mp4 0\n{lines}")
    (data / "categories.txt").write_bytes((kinetics_folder / "categories.txt").read_bytes())
    return [*tiny_settings(data, data / "out"), "TEST.BATCH_SIZE", 3, "DATA_LOADER.NUM_WORKERS", 1]


def test_tests_predictions_and_features(
    cluster: Any, settings: list[object], kinetics_folder: Path, tmp_path: Path
) -> None:
    config, results = ROOT / "tests" / "empty.yaml", {}
    for engine in ("local", "ray"):
        out = tmp_path / engine
        shared = ["--cfg", config, *settings, "OUTPUT_DIR", out]
        run(["test", *shared, "ENGINE", engine], cluster.address)
        found = json.loads((out / "test_results.json").read_text())
        for key in VOLATILE:
            del found[key]
        tested = (out / "predictions.csv").read_text(), (out / "failed.csv").read_text()
        run(
            ["features", "--split", "test", "--out", out / "features.npz", "--engine", engine, *shared], cluster.address
        )
        run(["predict", kinetics_folder / "videos", "--engine", engine, *shared], cluster.address)
        assert not (out / "parts").exists()
        with np.load(out / "features.npz") as arrays:
            results[engine] = found, *tested, (out / "predictions.csv").read_text(), dict(arrays)
    local, ray = results["local"], results["ray"]
    assert local[:4] == ray[:4] and "gone.mp4" in local[2] and local[1].count("\n") == 18
    assert local[4].keys() == ray[4].keys()
    assert all(np.array_equal(local[4][key], ray[4][key]) for key in local[4])


def test_a_lost_node_and_a_stopped_run(cluster: Any, kinetics_folder: Path, tmp_path: Path) -> None:
    """Videos are prepared; the command is stopped, started again, and a node is lost."""
    target = tmp_path / "ray"
    source = tmp_path / "source"
    source.mkdir()
    videos = sorted((kinetics_folder / "videos").rglob("*.mp4"))
    for number in range(VIDEOS):
        (source / f"{number}.mp4").symlink_to(videos[number % len(videos)])
    words: list[object] = ["prepare", source, "--out", target, "--preset", "veryslow", "--engine", "ray"]
    first = start(words, cluster.address)
    wait_for_videos(target, 2, first)
    first.send_signal(signal.SIGINT)
    out, _ = first.communicate(timeout=60)
    kept = {path: path.stat().st_mtime_ns for path in target.rglob("*.mp4")}
    assert first.returncode == 130 and 2 <= len(kept) < VIDEOS, out
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    second = start(words, cluster.address)
    wait_for_videos(target, len(kept) + 2, second)
    cluster.remove_node(node, allow_graceful=False)
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 0, out
    local = tmp_path / "local"
    run([*words[:3], local, *words[4:-1], "local"], cluster.address)
    assert {path.relative_to(target): path.read_bytes() for path in target.rglob("*.mp4")} == {
        path.relative_to(local): path.read_bytes() for path in local.rglob("*.mp4")
    }
    assert (target / "failed.csv").read_text() == (local / "failed.csv").read_text()


EVENT_TIMES = ("event_fps", "end_to_end_fps", "whole_fps", "speed_up")


def without_times(found: Any) -> Any:
    """Results without measured times and the settings of the engine."""
    if isinstance(found, dict):
        return {key: without_times(one) for key, one in found.items() if key not in (*EVENT_TIMES, "threads")}
    return [without_times(one) for one in found] if isinstance(found, list) else found


def event_outputs(folder: Path) -> dict[str, object]:
    """All outputs of a run on videos, without times: results, activity, and other files as they are."""
    with (folder / "event_videos.csv").open(newline="") as file:
        rows = [{key: one for key, one in row.items() if key not in EVENT_TIMES} for row in csv.DictReader(file)]
    results = without_times(json.loads((folder / "event_results.json").read_text()))
    names = ["event_activity.json", "event_frames.csv", "failed.csv"]
    files = [folder / name for name in names] + sorted((folder / "annotated").iterdir())
    assert sorted(path.name for path in (folder / "activity").iterdir())
    return {"rows": rows, "results": results} | {path.name: path.read_bytes() for path in files}


def test_event_driven_runs_on_videos(
    cluster: Any,
    kinetics_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run is stopped, resumed and compared with one of this process."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    source = tmp_path / "source"
    source.mkdir()
    for path in sorted((kinetics_folder / "videos").rglob("*.mp4"))[:5]:
        (source / path.name).symlink_to(path)
    (source / "text.mp4").write_text("no video")
    settings = [*on_videos(source, tmp_path / "local"), "EVENT.ANNOTATE", True, "EVENT.COMPARE_EVERY", 2]
    settings += ["EVENT.CHUNK", 5]
    run_on_videos(load_config(EMPTY, settings), CPU)
    there = load_config(EMPTY, [*settings, "OUTPUT_DIR", tmp_path / "ray", "ENGINE", "ray"])
    parts = tmp_path / "ray" / "parts"
    stopped = VideoRun(there, CPU, find_sources(str(source), 1))
    report = ClusterRun(stopped).run(lambda: len(list(parts.rglob("result.pt"))) == 2)
    assert len(report.videos) <= 2 and len(list(parts.rglob("result.pt"))) == 2
    with caplog.at_level("INFO"):
        monkeypatch.setattr(get_logger(), "propagate", True)
        run_on_videos(there, CPU)
    assert "has finished 2 of 6" in caplog.text and not parts.exists()
    local, ray = event_outputs(tmp_path / "local"), event_outputs(tmp_path / "ray")
    assert local == ray and "text.mp4" in str(local["failed.csv"]) and len(local["rows"]) == 5


def test_event_driven_test_of_clips(
    cluster: Any, kinetics_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    clips = [*small_evmlp(tmp_path), *("DATA.PATH_TO_DATA_DIR", kinetics_folder, "DATA.PATH_PREFIX", kinetics_folder)]
    clips += ["DATA.NUM_FRAMES", 4, "MODEL.FRAMEWISE", "logits", "TRAIN.ENABLE", False, "EVENT.ENABLE", True]
    results = {}
    for engine in ("local", "ray"):
        out = tmp_path / "clips" / engine
        run_config(load_config(EMPTY, [*clips, "TEST.NUM_ENSEMBLE_VIEWS", 2, "OUTPUT_DIR", out, "ENGINE", engine]))
        found = json.loads((out / "test_results.json").read_text())
        kept = {key: one for key, one in found.items() if key not in VOLATILE}
        results[engine] = kept, (out / "predictions.csv").read_text()
    assert results["local"] == results["ray"] and 0 < results["ray"][0]["macs_saved"] < 100


def wait_for_videos(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while len(list(folder.rglob("[!.]*.mp4"))) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.05)


def test_no_cluster() -> None:
    pytest.importorskip("ray", reason="ray, of the extra ray, is not installed")
    process = start(["prepare", ROOT / "tests", "--out", "/nowhere", "--engine", "ray"], "127.0.0.1:9")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "error: " in out and out.count("error: ") == 1
