"""Event-driven inference behind cameras, all of it: streams over TCP, decoding, network, reports.

S cameras that send a video at its rate (camera.py). A frame's delay runs from its being sent to its logits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch

from slowfast.benchmark.camera import Recording, Served, cameras
from slowfast.benchmark.figures import Figure
from slowfast.benchmark.videos import changed
from slowfast.config.node import ConfigNode
from slowfast.errors import DataError
from slowfast.event_driven.feed import Batch
from slowfast.event_driven.mode import check_network
from slowfast.event_driven.sources import find_sources
from slowfast.event_driven.videos import VideoRun

_START = 5.0  # seconds before the first window: streams are opened, first frames computed as a whole
_WINDOW = 5.0  # seconds


def measure_cameras(cfg: ConfigNode, device: torch.device, runs: int, video: Path, folder: Path) -> list[Figure]:
    """The figures of EVENT.STREAMS cameras, medians over windows of time; reports are written to `folder`."""
    check_network(cfg)
    recording = Recording.of(video)
    count = cfg.EVENT.STREAMS
    with cameras(recording, count) as served:
        listed = folder / "cameras.txt"
        listed.write_text("\n".join(served.addresses) + "\n")
        keys = ("EVENT.ENABLE", True, "EVENT.COMPARE", False, "EVENT.ANNOTATE", False, "EVENT.MAX_FRAMES", 0)
        live = changed(cfg, *keys, "DATA.PATH_PREFIX", str(listed), "OUTPUT_DIR", str(folder))
        names = [str(label) for label in range(cfg.MODEL.NUM_CLASSES)]
        run = VideoRun(live, device, find_sources(str(listed), cfg.DATA.DECODING_THREADS), names)
        watch = _Watch(run, served, recording.rate, runs)
        report = run.run(watch.ended)
    if len(watch.windows) < runs:
        raise DataError("; ".join(f"{failure.name}: {failure.reason}" for failure in report.failures))
    sent = f"{recording.width} x {recording.height}, {recording.rate:g} frames/s each"
    name = f"{count} cameras, {sent}, {cfg.EVENT.PRECISION}"
    saved = Figure(name, "multiply-adds saved", report.all.macs_saved, "%", 1)
    return [*_figures(name, watch.windows), saved]


@dataclass
class _Window:
    """What happened in some seconds."""

    frames: int = 0
    dropped: int = 0
    delays: list[float] = field(default_factory=list)  # seconds
    seconds: float = 0.0
    busy: float = 0.0  # seconds of processors


class _Watch:
    """Looks at a run while it goes on, window after window."""

    def __init__(self, run: VideoRun, served: Served, rate: float, windows: int) -> None:
        self.windows: list[_Window] = []
        self._run, self._served, self._rate, self._wanted = run, served, rate, windows
        self._process = psutil.Process()
        self._now = _Window()
        self._before: tuple[float, float, int] | None = None  # time, processors' seconds, dropped frames
        self._next = 0.0  # reading of the clock at which a window ends
        run.watch = self._see

    def _see(self, batch: Batch) -> None:
        now = time.monotonic()
        self._next = self._next or now + _START
        self._now.frames += batch.frames.shape[0] * batch.frames.shape[1]
        for source, ticks in zip(batch.sources, batch.ticks, strict=True):
            sent = self._served.begun[source.record.index]
            self._now.delays += [now - sent - tick / self._rate for tick in ticks]

    def ended(self) -> bool:
        """Whether all windows are there; to be asked often, as it ends them."""
        now = time.monotonic()
        if self._next and now >= self._next:
            state = now, sum(self._process.cpu_times()[:2]), self._dropped()
            if self._before is not None:
                self._now.seconds, self._now.busy, dropped = (b - a for a, b in zip(self._before, state, strict=True))
                self._now.dropped = int(dropped)
                self.windows.append(self._now)
            self._before, self._now, self._next = state, _Window(), now + _WINDOW
        return len(self.windows) >= self._wanted

    def _dropped(self) -> int:
        return sum(video.dropped for video in self._run.activity.values())


def _figures(name: str, windows: Sequence[_Window]) -> list[Figure]:
    values = {
        ("frames looked at", "frames/s"): [window.frames / window.seconds for window in windows],
        ("frames left out", "%"): [100 * one.dropped / max(one.dropped + one.frames, 1) for one in windows],
        ("delay, half of the frames", "ms"): [1e3 * median(one.delays or [0]) for one in windows],
        ("delay, 99 % of the frames", "ms"): [1e3 * float(np.quantile(one.delays or [0], 0.99)) for one in windows],
        ("processors in use", "cores"): [one.busy / one.seconds for one in windows],
    }
    return [Figure(name, what, median(of), unit, len(windows)) for (what, unit), of in values.items()]
