"""Benchmarks of costs that grow with the dataset: index, evaluation, confusion matrix, opening of long videos."""

from __future__ import annotations

import gc
import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch

from benchmarks.measure import Measurement, in_fresh_process, on_one_core, time_interleaved
from slowfast.datasets.decode import open_video
from slowfast.datasets.index.labeled_paths import read_kinetics_index
from slowfast.datasets.records import labels_of
from slowfast.datasets.sampling import balanced_order
from slowfast.datasets.types import Record
from slowfast.engine.evaluate import Ensemble
from slowfast.engine.tasks.multi_label import MultiLabelEvaluator
from slowfast.utils.distributed import World
from slowfast.utils.machine import peak_memory_gib
from slowfast.visualization.per_class import draw_confusion

LINES, CLASSES, VIDEOS = 1_000_000, 20_000, 100_000
SAMPLES, LABELS = 10_000, 5_000  # of the evaluation
LONG = 60  # times as long
CPU = torch.device("cpu")
Measured = dict[str, float]  # seconds of each part, and MB of the peak over the memory before


def measure_scale(video: Path, folder: Path, runs: int) -> list[Measurement]:
    """Measure each part in a fresh process.

    Args:
        video: H.264 video in an MP4 file.
        folder: Folder for temporary files.
        runs: Number of runs.
    """
    matrix = f"confusion matrix, {CLASSES:,} classes, {VIDEOS:,} videos"
    parts: dict[str, Callable[[], Measured]] = {
        f"index of {LINES:,} lines": partial(measure_index, folder, LINES),
        matrix: partial(measure_confusion, folder, CLASSES, VIDEOS),
        f"mAP, {SAMPLES:,} samples, {LABELS:,} classes": partial(measure_precision, SAMPLES, LABELS),
    }
    measurements = []
    for group, part in parts.items():
        found = [in_fresh_process(part) for _ in range(runs)]
        for name in found[0]:
            unit = "MB" if name.endswith("memory") else "s"
            measurements.append(Measurement(group, name, float(np.median([one[name] for one in found])), unit, runs))
    return measurements + on_one_core(measure_opening, video, folder, runs)


def _timed(parts: dict[str, Callable[[], object]]) -> Measured:
    """Return the time of each part in seconds, and the peak memory in MB over the memory before."""
    gc.collect()
    before, seconds = _peak_memory(), {}
    for name, part in parts.items():
        start = time.perf_counter()
        part()
        seconds[name] = time.perf_counter() - start
    return seconds | {"additional memory": _peak_memory() - before}


def _peak_memory() -> float:
    """Return the peak memory of this process in MB; a child process inherits that of `resource` from its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1000
    return 1024 * peak_memory_gib(CPU)


def measure_index(folder: Path, lines: int) -> Measured:
    """Measure reading a Kinetics index, and the order of a balanced epoch."""
    with (folder / "train.csv").open("w") as file:
        file.writelines(f"class_{i % 400:03d}/clip_{i:07d}_000012_000022.mp4 {i % 400}\n" for i in range(lines))
    (folder / "class_000").mkdir(exist_ok=True)
    (folder / "class_000" / "clip_0000000_000012_000022.mp4").touch()
    tables = []
    return _timed(
        {
            "reading": lambda: tables.append(read_kinetics_index(folder, "train", str(folder), " ", 400)),
            "order of a balanced epoch": lambda: balanced_order(labels_of(tables[0]), 0, 0),
        }
    )


def measure_confusion(folder: Path, classes: int, videos: int) -> Measured:
    """Measure counting and drawing."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, videos)
    predicted = np.where(rng.random(videos) < 0.6, labels, rng.integers(0, classes, videos)).tolist()
    names = [f"class {number}" for number in range(classes)]
    draw_confusion([0, 1], [0, 1], names[:100], folder / "first.png")  # loads the library and its fonts
    return _timed(
        {"counting and drawing": lambda: draw_confusion(labels.tolist(), predicted, names, folder / "confusion.png")}
    )


def measure_precision(samples: int, classes: int) -> Measured:
    """Measure collecting the scores of samples with three classes each, and their mean average precision."""
    rng, rows = np.random.default_rng(0), torch.randn(64, 1, classes)
    labels = [tuple(sorted(rng.choice(classes, 3, replace=False).tolist())) for _ in range(samples)]
    with tempfile.TemporaryDirectory() as folder:
        evaluator = MultiLabelEvaluator(World(), classes, Ensemble(), keep_scores=True, folder=Path(folder))

        def collect() -> None:
            for number, label in enumerate(labels):
                evaluator.process(Record(number, Path("a"), "a", label), rows[number % len(rows)])

        return _timed({"collecting": collect, "average precision": evaluator.evaluate})


def measure_opening(video: Path, folder: Path, runs: int) -> list[Measurement]:
    """Measure opening a video, and one that repeats it LONG times; each run opens both 20 times in turns."""
    times = {"as given": 1, f"{LONG} times as long": LONG}
    files = {name: repeat_video(video, folder / f"repeated_{count}.mp4", count) for name, count in times.items()}
    timings = time_interleaved({name: partial(_open, path) for name, path in files.items()}, 20 * runs, CPU)
    group = "opening a video"
    measurements = [Measurement(group, name, 1e3 * timings.median(name), "ms", runs) for name in files]
    return [*measurements, Measurement(group, "ratio", timings.ratio(*reversed(files)), "x", runs)]


def _open(path: Path) -> None:
    with open_video(path):
        pass


def repeat_video(source: Path, target: Path, count: int) -> Path:
    """Write the packets of a video `count` times in a row to an MP4 file."""
    with av.open(str(source)) as video, av.open(str(target), "w") as out:
        stream = video.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in video.demux(stream) if packet.size]
        step = sum(packet.duration or 0 for packet in packets)
        for number in range(count):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = (packet.pts or 0) + number * step, (packet.dts or 0) + number * step
                again.duration, again.time_base = packet.duration, packet.time_base
                again.is_keyframe, again.stream = packet.is_keyframe, copy
                out.mux(again)
    return target
