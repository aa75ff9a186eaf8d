"""Cameras on the network to measure with: a video as an H.264 MPEG-TS stream over TCP, again and again, at its rate.

One process serves all of them. The video is encoded before, as cameras do it: no B-frames, a key frame a second.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import time
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av

from slowfast.errors import DataError

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
