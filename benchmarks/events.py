"""Benchmarks of event recordings: reading of samples, and a stream."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.measure import Measurement
from slowfast.datasets.dvs.dataset import EventSampling, RecordingTrainDataset, Repairs
from slowfast.datasets.dvs.event_windows import windows_by_count
from slowfast.datasets.dvs.index import read_event_index
from slowfast.datasets.dvs.recording import Opening
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.loader import collate_clips
from slowfast.datasets.types import Record
from slowfast.engine.forward import ClipForward
from slowfast.inference.stream import StreamClassifier, stream_metrics
from slowfast.models.event2vec import Event2Vec

# Event2Vec as published for ASL-DVS.
EVENTS, SENSOR = 255, (180, 240)
LONG = 5_000_000  # events of a long recording
USUAL, RECORDINGS = 28_000, 100  # events per recording (the mean of ASL-DVS), and number of recordings
WINDOWS, PIECE = 20, 4_000  # windows of the stream, and events that arrive at once
SAMPLING = EventSampling(Opening(SENSOR), EVENTS, "random_sample", "dataset", 1e6)
FILES = {"stored": np.savez, "compressed": np.savez_compressed}
_CAN_DROP_CACHE = hasattr(os, "posix_fadvise")


def measure_reading(folder: Path, runs: int) -> list[Measurement]:
    """Measure reading samples from stored and compressed files, which are written here, against reading bytes."""
    measurements = []
    for kind, write in FILES.items():
        long = folder / kind / "long.npz"
        _write(long, LONG, write)
        read = partial(SAMPLING.draw, Record(0, long, long.name, 0), [(0, 0, 1)], Repairs())
        group = f"events, {EVENTS} of {LONG / 1e6:.0f} million, {kind}"
        measurements.append(Measurement(group, "file", long.stat().st_size / 2**20, "MiB", 1))
        measurements.append(Measurement(group, "sample, file in memory", 1e3 * _seconds(read, runs), "ms", runs))
        measurements += _from_disk(group, long, read, runs)
        measurements += _measure_folder(folder / f"{kind} usual", kind, write, runs)
    return measurements


def measure_stream(device: torch.device, runs: int) -> list[Measurement]:
    """Measure the classification of a stream, window by window, by the published model with random weights."""
    torch.manual_seed(0)
    forward = ClipForward(device, (0.0,), (1.0,), False, None)
    classifier = StreamClassifier(Event2Vec().to(device), forward, SAMPLING)
    rng = np.random.default_rng(0)
    count = WINDOWS * USUAL
    x, y, p = (rng.integers(0, limit, count) for limit in (SENSOR[1], SENSOR[0], 2))
    stream = [EventColumns(x, y, np.sort(rng.uniform(0, 1e7, count)), p)]
    pieces = [stream[0].take(np.arange(at, at + PIECE)) for at in range(0, count, PIECE)]
    metrics = [stream_metrics(classifier(windows_by_count(pieces, USUAL))) for _ in range(runs + 1)][1:]
    group = f"events, stream in windows of {USUAL}, {EVENTS} sampled"
    units = {"latency_ms": "ms", "latency_99_ms": "ms", "events_per_second": "events/s"}
    return [
        Measurement(group, key, median(values[key] for values in metrics), unit, runs) for key, unit in units.items()
    ]


def _from_disk(group: str, file: Path, read: Callable[[], object], runs: int) -> list[Measurement]:
    """Measure with a cold cache; return nothing if the system does not count bytes read."""
    if not (_CAN_DROP_CACHE and Path("/proc/self/io").exists()):
        return []
    seconds, sizes = [], []
    for _ in range(runs):
        _drop_cache(file)
        before = _bytes_from_disk()
        start = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - start)
        sizes.append(_bytes_from_disk() - before)
    return [
        Measurement(group, "sample, file on disk", 1e3 * median(seconds), "ms", runs),
        Measurement(group, "read from disk for it", median(sizes) / 2**20, "MiB", runs),
    ]


def _measure_folder(folder: Path, kind: str, write: Callable[..., None], runs: int) -> list[Measurement]:
    """Measure the training samples of one worker from a folder of recordings, with a warm and a cold cache."""
    for number in range(RECORDINGS):
        _write(folder / "train" / "a" / f"{number:03d}.npz", USUAL, write, number)
    records = read_event_index(folder, "train", 1)
    size = sum(record.path.stat().st_size for record in records)
    group = f"events, {RECORDINGS} recordings of {USUAL}, {kind}"
    everything_sampled = EventSampling(Opening(SENSOR), 0, "random_sample", "dataset", 1e6)
    sampled, everything = (RecordingTrainDataset(records, sampling) for sampling in (SAMPLING, everything_sampled))

    def read(recordings: RecordingTrainDataset) -> object:
        return [collate_clips([recordings[0, place]]) for place in range(len(records))]

    def read_bytes() -> object:
        return [record.path.read_bytes() for record in records]

    samples, events, plain = (
        _seconds(work, runs) for work in (lambda: read(sampled), lambda: read(everything), read_bytes)
    )
    measurements = [
        Measurement(group, f"recordings, {EVENTS} events of each", RECORDINGS / samples, "recordings/s", runs),
        Measurement(group, "recordings, all events", RECORDINGS / events, "recordings/s", runs),
        Measurement(group, "events, all of them", RECORDINGS * USUAL / events / 1e6, "million/s", runs),
        Measurement(group, "bytes, all events", size / events / 2**20, "MiB/s", runs),
        Measurement(group, "reading of the bytes", size / plain / 2**20, "MiB/s", runs),
    ]
    if not _CAN_DROP_CACHE:
        return measurements

    def drop_cache() -> None:
        for record in records:
            _drop_cache(record.path)

    cold, plain_cold = (_seconds(work, runs, drop_cache) for work in (lambda: read(everything), read_bytes))
    return [
        *measurements,
        Measurement(group, "recordings, all events, files on disk", RECORDINGS / cold, "recordings/s", runs),
        Measurement(group, "bytes, all events, files on disk", size / cold / 2**20, "MiB/s", runs),
        Measurement(group, "reading of the bytes, files on disk", size / plain_cold / 2**20, "MiB/s", runs),
    ]


def _write(file: Path, n: int, write: Callable[..., None], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    x, y, p = (rng.integers(0, limit, n, np.int16) for limit in (SENSOR[1], SENSOR[0], 2))
    write(file, x=x, y=y, t=np.sort(rng.integers(0, 10**6, n)), p=p)


def _seconds(work: Callable[[], object], runs: int, before: Callable[[], object] = lambda: None) -> float:
    """Return the median over runs after a warm-up; `before` is called, untimed, before each run."""
    seconds = []
    for _ in range(runs + 1):
        before()
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def _drop_cache(file: Path) -> None:
    """Drop a file from the page cache."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _bytes_from_disk() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split(":")[1])
