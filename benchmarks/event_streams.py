"""Benchmark of live event streams: the cost of sliding windows, and a stream that is classified in real time.

    python -m benchmarks.event_streams                # windows of 10 ms to 5 s, then a server of 3 million events/s

The stream comes over TCP from another process. The process that receives and classifies it has one core.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from statistics import median

import numpy as np
import torch
from tabulate import tabulate

from slowfast.datasets.dvs.dataset import EventSampling, RecordingEvalDataset
from slowfast.datasets.dvs.event_windows import TimeWindows
from slowfast.datasets.dvs.frames import FRAME_KINDS, event_frames
from slowfast.datasets.dvs.recording import Opening
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.index.samples import SampleKind
from slowfast.engine.forward import ClipForward
from slowfast.inference.event_sources import find_event_sources
from slowfast.inference.live_events import EventWindowOptions, LiveEventPredictor
from slowfast.inference.predictor import Predictor
from slowfast.inference.stream import EventViews
from slowfast.models.event2vec import Event2Vec

SENSOR, RATE, STEP = (180, 240), 3_000_000, 0.01  # events/s; seconds from one window to the next
FRAMES = 16  # that a window is drawn in
PART = 10_000  # microseconds of events that arrive at once
LENGTHS = (0.01, 0.1, 1.0, 5.0)  # seconds
RECORD = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1"), ("unused", "V3")])


def some_events(count: int, duration: int, seed: int = 0) -> np.ndarray:
    """Return random events of a duration in microseconds as records."""
    rng, events = np.random.default_rng(seed), np.zeros(count, RECORD)
    events["t"] = np.sort(rng.integers(0, duration, count))
    for key, limit in (("x", SENSOR[1]), ("y", SENSOR[0]), ("p", 2)):
        events[key] = rng.integers(0, limit, count)
    return events


def parts(seconds: float) -> list[EventColumns]:
    """Return the parts of a stream."""
    events = some_events(RATE * PART // 10**6, PART)
    x, y, p = (np.ascontiguousarray(events[key]) for key in "xyp")
    return [EventColumns(x, y, events["t"] + number * PART, p) for number in range(int(seconds * 10**6) // PART)]


def slide(stream: list[EventColumns], length: float) -> int:
    """Slide a window over a stream; return the number of windows."""
    windows, count = TimeWindows(1e6 * length, 1e6 * STEP), 0
    for part in stream:
        windows.append(part)
        while windows.complete(-1.0):
            count += len(windows.take().events) > 0
    return count


def slide_plainly(stream: list[EventColumns], length: float) -> int:
    """Do the same by joining all events of the window with each part."""
    kept, start, count = stream[0].take(slice(0)), 0.0, 0  # type: ignore[arg-type]
    for part in stream:
        kept = EventColumns(*(np.concatenate((getattr(kept, key), getattr(part, key))) for key in "xytp"))
        while len(kept) and kept.t[-1] >= start + 1e6 * length:
            count += len(kept.take((kept.t >= start) & (kept.t < start + 1e6 * length))) > 0
            start += 1e6 * STEP
            kept = kept.take(kept.t >= start)
    return count


def windows_table(runs: int) -> str:
    """Measure sliding windows; the plain way for the shorter ones only."""
    rows = []
    for length in LENGTHS:
        stream = parts(2 * length + 1)
        events, row = sum(map(len, stream)), [f"{length:g} s"]
        for way in (slide, slide_plainly) if length <= 1 else (slide,):
            seconds = []
            for _ in range(runs if way is slide else 1):
                start = time.process_time()
                count = way(stream, length)
                seconds.append(time.process_time() - start)
            row += [f"{1e9 * median(seconds) / events:.1f}"] + ([str(count)] if way is slide else [])
        rows.append([*row, "-"][:4])
    heading = ("window", "ns/event", "windows", "ns/event, joining arrays")
    return tabulate(rows, heading, tablefmt="simple", disable_numparse=True)


def drawing_table(runs: int) -> str:
    """Measure drawing the frames of windows of 1 s, and what windows every 0.1 s of such a stream take of a core."""
    events, rows = parts(1.0), []
    window = EventColumns.join(
        *(EventColumns(*(getattr(one, key).astype(np.int64) for key in "xytp")) for one in events)
    )
    for kind in FRAME_KINDS:
        seconds = []
        for _ in range(1 + runs):  # the first one gets its memory from the system
            start = time.process_time()
            event_frames(window, SENSOR, FRAMES, kind)
            seconds.append(time.process_time() - start)
        found = median(seconds[1:])
        rows.append([kind, f"{1e9 * found / len(window):.1f}", f"{100 * found / 0.1:.0f} %"])
    return tabulate(rows, ("DVS.FRAMES", "ns/event", "of a core"), tablefmt="simple", disable_numparse=True)


def serve(listening: socket.socket, seconds: float, core: int) -> None:
    """Send RATE events/s in real time to one client; runs in another process."""
    os.sched_setaffinity(0, {core})
    events = some_events(RATE * PART // 10**6, PART)
    client, _ = listening.accept()
    start, sent = time.perf_counter(), 0
    with client:
        while sent * PART < seconds * 1e6:
            time.sleep(max(start + (sent + 1) * PART / 1e6 - time.perf_counter(), 0))
            moved = events.copy()
            moved["t"] += sent * PART
            client.sendall(moved.tobytes())
            sent += 1


@contextlib.contextmanager
def server(seconds: float, core: int) -> Iterator[str]:
    """Start a server and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(listening, seconds, core))
        process.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        process.join()


def event2vec() -> Predictor:
    """Return Event2Vec as published for ASL-DVS, with random weights."""
    torch.manual_seed(0)
    forward = ClipForward(torch.device("cpu"), (0.0,), (1.0,), False, None)
    kind = SampleKind(False, "", "", "")
    return Predictor(Event2Vec(), [], lambda _: None, kind, forward, lambda x: x.mean(0))  # type: ignore[arg-type, return-value]


def classified_table(seconds: float, steps: list[float]) -> str:
    """Classify a stream in windows of 1 s on one core."""
    cores = sorted(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    sampling = EventSampling(Opening(SENSOR), 255, "random_sample", "dataset", 1e6)
    views = EventViews(RecordingEvalDataset([], sampling))
    rows = []
    for step in steps:
        predictor = LiveEventPredictor(event2vec(), views, EventWindowOptions(1.0, step, reconnect=0), SENSOR)
        with server(seconds, cores[-1]) as address:
            os.sched_setaffinity(0, {cores[0]})
            sources, before = find_event_sources([address], 1e-6, 1.0, ""), time.process_time()
            [stream] = predictor.run(sources, lambda *_: None, lambda _: None, lambda: False)
            used = (time.process_time() - before) / seconds
            os.sched_setaffinity(0, cores)
        lost = sum(count for reason, count in stream.losses.items() if reason != "dropped windows")
        ranks = [f"{1e3 * stream.latencies.percentile(rank):.1f}" for rank in (50, 95, 99)]
        rows.append([f"{step:g} s", f"{stream.events / seconds / 1e6:.2f} M", lost, f"{100 * used:.0f} %"])
        rows[-1] += [stream.windows, stream.skipped, " / ".join(ranks)]
    heading = ("step", "events/s", "lost events", "of a core", "windows", "dropped", "latency p50 / p95 / p99 (ms)")
    return tabulate(rows, heading, tablefmt="simple", disable_numparse=True)


def main() -> None:
    """Measure and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each way to slide a window")
    parser.add_argument("--seconds", type=float, default=10, help="duration of the stream")
    parser.add_argument(
        "--steps", type=float, nargs="+", default=[1.0, 0.1, 0.01], help="seconds between windows of 1 s"
    )
    chosen = parser.parse_args()
    if chosen.runs:
        print(f"{RATE / 1e6:g} M events/s, a window every {STEP:g} s\n{windows_table(chosen.runs)}\n")
        print(f"{FRAMES} frames of windows of 1 s, {RATE / 1e6:g} M events/s\n{drawing_table(chosen.runs)}\n")
    print(f"Event2Vec, windows of 1 s, one core\n{classified_table(chosen.seconds, chosen.steps)}")


if __name__ == "__main__":
    main()
