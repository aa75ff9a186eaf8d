"""Benchmark of event-driven inference on network cameras, simulated by H.264 MPEG-TS streams over TCP.

One process serves all cameras. Each sends the same video in a loop at its frame rate, encoded as by a camera: without
B-frames, with one keyframe per second.
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

from benchmarks.measure import Measurement
from benchmarks.videos import with_overrides
from slowfast.config.node import ConfigNode
from slowfast.errors import DataError
from slowfast.event_driven.checks import check_network
from slowfast.event_driven.messages import Batch
from slowfast.event_driven.sources import find_sources
from slowfast.event_driven.videos import VideoRun
from slowfast.utils.signals import end_with_parent

_MAX_FRAMES = 600
_START_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class CameraStream:
    """Encoded video that a camera sends.

    Args:
        parts: Bytes of each frame.
        keys: Frame numbers of the keyframes.
        width: Frame width in pixels.
        height: Frame height in pixels.
        rate: Frames per second.
    """

    parts: list[bytes]
    keys: list[int]
    width: int
    height: int
    rate: float

    @classmethod
    def from_video(cls, path: Path) -> CameraStream:
        """Encode the first frames of a video. Raises DataError if it cannot be read."""
        sink, parts, keys = _Sink(), list[bytes](), list[int]()
        try:
            with av.open(str(path)) as source, _to(sink) as out:
                video = source.streams.video[0]
                rate = Fraction(round(video.average_rate or 25))
                coding = {"preset": "veryfast", "tune": "zerolatency", "g": str(int(rate)), "x264-params": "scenecut=0"}
                stream = out.add_stream("libx264", rate=rate, options=coding)
                stream.width, stream.height, stream.pix_fmt = video.width // 2 * 2, video.height // 2 * 2, "yuv420p"
                for number, frame in enumerate(islice(source.decode(video), _MAX_FRAMES)):
                    plain = frame.reformat(stream.width, stream.height, "yuv420p")
                    plain.pts, plain.time_base = number, 1 / rate
                    packets = stream.encode(plain)  # packets of this frame, because there is no lookahead
                    keys += [number] * any(packet.is_keyframe for packet in packets)
                    out.mux(packets)
                    parts.append(sink.take())
                size = stream.width, stream.height
        except (av.FFmpegError, OSError, IndexError) as error:
            raise DataError(f"--videos {path} cannot be encoded as a camera stream: {error}") from error
        if not parts:
            raise DataError(f"--videos {path} contains no frames")
        return cls(parts, keys, *size, float(rate))


def _to(sink: _Sink) -> av.container.OutputContainer:
    # Flush each frame; a client may start at any keyframe.
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
class Cameras:
    """Running cameras.

    Args:
        addresses: Their addresses.
        started: Time of each camera's first frame (time.monotonic(), shared by all processes); 0 before it.
    """

    addresses: list[str]
    started: MutableSequence[float]


@contextmanager
def cameras(stream: CameraStream, count: int) -> Iterator[Cameras]:
    """Run cameras that send a stream, in a separate process."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    started = spawn.Array("d", count, lock=False)
    process = spawn.Process(target=_serve, args=(stream, count, there, started), daemon=True)
    process.start()
    try:
        if not here.poll(_START_TIMEOUT):
            raise DataError("the camera process did not start")
        yield Cameras([f"tcp://127.0.0.1:{port}" for port in here.recv()], started)
    finally:
        process.kill()
        process.join()


def _serve(stream: CameraStream, count: int, channel: Connection, started: MutableSequence[float]) -> None:
    end_with_parent()
    asyncio.run(_serve_all(stream, count, channel, started))


async def _serve_all(stream: CameraStream, count: int, channel: Connection, started: MutableSequence[float]) -> None:
    servers = []
    for number in range(count):

        async def send(_: asyncio.StreamReader, out: asyncio.StreamWriter, number: int = number) -> None:
            started[number] = start = time.monotonic()
            first = stream.keys[number * len(stream.keys) // count]  # cameras show different parts of the video
            try:
                for sent in range(2**62):
                    await asyncio.sleep(max(start + sent / stream.rate - time.monotonic(), 0))
                    out.write(stream.parts[(first + sent) % len(stream.parts)])
                    await out.drain()
            except ConnectionError:
                out.close()

        servers.append(await asyncio.start_server(send, "127.0.0.1", 0))
    channel.send([server.sockets[0].getsockname()[1] for server in servers])
    await asyncio.Event().wait()


_WARM_UP = 5.0  # seconds to open the streams and to compute the first frames densely
_WINDOW = 5.0  # seconds


def measure_cameras(cfg: ConfigNode, device: torch.device, runs: int, video: Path, folder: Path) -> list[Measurement]:
    """Measure event-driven inference on EVENT.STREAMS cameras.

    Args:
        cfg: Config of event-driven inference.
        device: Device to run on.
        runs: Number of time windows, whose median is reported.
        video: Video that the cameras send.
        folder: Folder for reports.
    """
    check_network(cfg)
    stream = CameraStream.from_video(video)
    count = cfg.EVENT.STREAMS
    with cameras(stream, count) as served:
        listed = folder / "cameras.txt"
        listed.write_text("".join(f"camera {n} = {place}\n" for n, place in enumerate(served.addresses, start=1)))
        keys = ("EVENT.ENABLE", True, "EVENT.COMPARE", False, "EVENT.ANNOTATE", False, "EVENT.MAX_FRAMES", 0)
        live = with_overrides(cfg, *keys, "DATA.PATH_PREFIX", str(listed), "OUTPUT_DIR", str(folder))
        run = VideoRun(live, device, find_sources(str(listed), cfg.DATA.DECODING_THREADS))
        watch = _Watch(run, served, stream.rate, runs)
        report = run.run(watch.ended)
    if len(watch.windows) < runs:
        raise DataError("; ".join(f"{failure.name}: {failure.reason}" for failure in report.failures))
    sent = f"{stream.width} x {stream.height}, {stream.rate:g} frames/s each"
    name = f"{count} cameras, {sent}, {cfg.EVENT.PRECISION}"
    saved = Measurement(name, "MACs saved", report.all.macs_saved, "%", 1)
    return [*_summarize(name, watch.windows), saved]


@dataclass
class _Window:
    """Counts of a time window.

    Attributes:
        frames: Frames processed.
        dropped: Frames dropped.
        latencies: Seconds from sending a frame to its prediction.
        seconds: Duration of the window.
        busy: CPU time in seconds.
    """

    frames: int = 0
    dropped: int = 0
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    busy: float = 0.0


class _Watch:
    """Observer of a run that measures consecutive time windows.

    Args:
        run: The run.
        served: The cameras.
        rate: Their frame rate.
        windows: Number of windows to observe.
    """

    def __init__(self, run: VideoRun, served: Cameras, rate: float, windows: int) -> None:
        self.windows: list[_Window] = []
        self._run, self._served, self._rate, self._wanted = run, served, rate, windows
        self._process = psutil.Process()
        self._now = _Window()
        self._before: tuple[float, float, int] | None = None  # time, CPU seconds, dropped frames
        self._next = 0.0  # end of the current window
        run.on_batch = self._see

    def _see(self, batch: Batch) -> None:
        now = time.monotonic()
        self._next = self._next or now + _WARM_UP
        self._now.frames += batch.frames.shape[0] * batch.frames.shape[1]
        for source, ticks in zip(batch.sources, batch.ticks, strict=True):
            sent = self._served.started[source.record.index]
            self._now.latencies += [now - sent - tick / self._rate for tick in ticks]

    def ended(self) -> bool:
        """Return whether all windows are complete; call it often, because it also closes them."""
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


def _summarize(name: str, windows: Sequence[_Window]) -> list[Measurement]:
    values = {
        ("frames processed", "frames/s"): [window.frames / window.seconds for window in windows],
        ("frames dropped", "%"): [100 * one.dropped / max(one.dropped + one.frames, 1) for one in windows],
        **{
            (f"latency p{percent}", "ms"): [
                1e3 * float(np.percentile(one.latencies or [0], percent)) for one in windows
            ]
            for percent in (50, 95, 99)
        },
        ("CPU cores in use", "cores"): [one.busy / one.seconds for one in windows],
    }
    return [Measurement(name, what, median(of), unit, len(windows)) for (what, unit), of in values.items()]
