"""Network cameras for tests: encoded video that threads of the test send over TCP on the loopback interface."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Sequence
from typing import Any

import av

from tests.video_files import picture


def encoded(frames: int, size: tuple[int, int] = (48, 64), rate: int = 50) -> list[bytes]:
    """Return the bytes of each frame of an MPEG-TS stream whose frames are all keyframes."""
    sink, parts = _Sink(), []
    with av.open(sink, "w", format="mpegts", options={"flush_packets": "1"}) as out:
        stream = out.add_stream("mpeg2video", rate=rate, options={"g": "1"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
            parts.append(sink.take())
        out.mux(stream.encode(None))
    return [*parts, sink.take()]


class _Sink(io.RawIOBase):
    """File in memory whose content is taken piece by piece."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._data += data
        return len(memoryview(data))

    def take(self) -> bytes:
        taken = bytes(self._data)
        self._data.clear()
        return taken


class NetworkCamera:
    """Camera that sends one list of parts to each client in turn, then closes the connection.

    Args:
        connections: Parts for each client; the port is closed after the last one.
        interval: Seconds between the parts.
        stays: Keep the last connection open and silent instead of closing it.
    """

    def __init__(self, *connections: Sequence[bytes], interval: float = 0.01, stays: bool = False) -> None:
        self._connections, self._interval, self._stays = connections, interval, stays
        self._server = socket.create_server(("127.0.0.1", 0))
        self._end = threading.Event()
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for number, parts in enumerate(self._connections):
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client:
                self._send(client, parts)
                if self._stays and number == len(self._connections) - 1:
                    self._end.wait()
        self._server.close()

    def _send(self, client: socket.socket, parts: Sequence[bytes]) -> None:
        for part in parts:
            if self._end.wait(self._interval):
                return
            try:
                client.sendall(part)
            except OSError:
                return

    def close(self) -> None:
        """End the camera."""
        self._end.set()
        self._server.close()

    def __enter__(self) -> NetworkCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
