"""Cameras on the network to measure with: a video as an H.264 MPEG-TS stream over TCP, again and again, at its rate.

One process serves all of them. The video is encoded before, as cameras do it: no B-frames, a key frame a second.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import time
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import psutil
import torch

from benchmarks.measure import Figure
from benchmarks.videos import changed
from slowfast.config.node import ConfigNode
from slowfast.errors import DataError
from slowfast.event_driven.checks import check_network
from slowfast.event_driven.feed import Batch
from slowfast.event_driven.sources import find_sources
from slowfast.event_driven.videos import VideoRun

_MOST_FRAMES = 600
_READY = 60.0  # seconds for the process to start


@dataclass(frozen=True)
class Recording:
    """What a camera sends. parts: the bytes up to the end of each frame; keys: the numbers of key frames."""

    parts: list[bytes]
    keys: list[int]
    width: int
    height: int
    rate: float  # frames a second

    @classmethod
    def of(cls, path: Path) -> Recording:
        """The first frames of a video, at most _MOST_FRAMES. Raises DataError where it cannot be read."""
        sink, parts, keys = _Sink(), list[bytes](), list[int]()
        try:
            with av.open(str(path)) as source, _to(sink) as out:
                video = source.streams.video[0]
                rate = Fraction(round(video.average_rate or 25))
                coding = {"preset": "veryfast", "tune": "zerolatency", "g": str(int(rate)), "x264-params": "scenecut=0"}
                stream = out.add_stream("libx264", rate=rate, options=coding)
                stream.width, stream.height, stream.pix_fmt = video.width // 2 * 2, video.height // 2 * 2, "yuv420p"
                for number, frame in enumerate(islice(source.decode(video), _MOST_FRAMES)):
                    plain = frame.reformat(stream.width, stream.height, "yuv420p")
                    plain.pts, plain.time_base = number, 1 / rate
                    packets = stream.encode(plain)  # this frame's: nothing is looked ahead
                    keys += [number] * any(packet.is_keyframe for packet in packets)
                    out.mux(packets)
                    parts.append(sink.take())
                size = stream.width, stream.height
        except (av.FFmpegError, OSError, IndexError) as error:
            raise DataError(f"--videos {path} cannot be sent as a camera's: {error}") from error
        if not parts:
            raise DataError(f"--videos {path} has no frames")
        return cls(parts, keys, *size, float(rate))


def _to(sink: _Sink) -> av.container.OutputContainer:
    # Each frame's bytes at once; each key frame can be the first.
    return av.open(sink, "w", format="mpegts", options={"flush_packets": "1", "mpegts_flags": "pat_pmt_at_frames"})


class _Sink(io.RawIOBase):
    def __init__(self) -> None:
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._bytes += data
        return len(memoryview(data))

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


@dataclass(frozen=True)
class Served:
    """Cameras that are there: their addresses; and when each sent its first frame, once somebody looks."""

    addresses: list[str]
    begun: MutableSequence[float]  # readings of time.monotonic(), which all processes share; 0: not yet


@contextmanager
def cameras(recording: Recording, count: int) -> Iterator[Served]:
    """So many cameras that all send the recording, in a process of their own."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    begun = spawn.Array("d", count, lock=False)
    process = spawn.Process(target=_serve, args=(recording, count, there, begun), daemon=True)
    process.start()
    try:
        if not here.poll(_READY):
            raise DataError("the process of the cameras did not start")
        yield Served([f"tcp://127.0.0.1:{port}" for port in here.recv()], begun)
    finally:
        process.kill()
        process.join()


def _serve(recording: Recording, count: int, told: Connection, begun: MutableSequence[float]) -> None:
    asyncio.run(_serve_all(recording, count, told, begun))


async def _serve_all(recording: Recording, count: int, told: Connection, begun: MutableSequence[float]) -> None:
    servers = []
    for number in range(count):

        async def send(_: asyncio.StreamReader, out: asyncio.StreamWriter, number: int = number) -> None:
            begun[number] = start = time.monotonic()
            place = recording.keys[number * len(recording.keys) // count]  # not all the same at the same time
            try:
                for sent in range(2**62):
                    await asyncio.sleep(max(start + sent / recording.rate - time.monotonic(), 0))
                    out.write(recording.parts[(place + sent) % len(recording.parts)])
                    await out.drain()
            except ConnectionError:
                out.close()

        servers.append(await asyncio.start_server(send, "127.0.0.1", 0))
    told.send([server.sockets[0].getsockname()[1] for server in servers])
    await asyncio.Event().wait()


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
