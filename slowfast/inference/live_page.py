"""Local web page of live event streams: class, scores, latency, rate and a picture of the latest window."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socket import socket
from typing import Any

import cv2
import numpy as np

from slowfast.datasets.dvs.frames import accumulate
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.inference.demo_server import is_loopback, page_address
from slowfast.inference.live_events import EventWindowOptions, LiveEvents, StreamWindow
from slowfast.inference.live_loop import PERCENTILES
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import show

_DRAWN = 200_000  # events of a picture at most, the latest ones
_LAST = 1.0  # seconds for which the page shows that the run has ended
_FILES = {
    "/": ("live.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
}
_STATE, _PICTURE = "/state.json", "/window/"
# The page loads nothing from other servers, and no other page embeds it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class LivePage:
    """Server of the page, in a thread.

    Args:
        listening: Socket to serve; closed at the end.
        model: Name of the model.
        options: Windows.
        sensor: Sensor height and width in pixels.
    """

    def __init__(self, listening: socket, model: str, options: EventWindowOptions, sensor: tuple[int, int]) -> None:
        self._listening, self._sensor = listening, sensor
        self._about = {"model": model, "windows": options.text}
        self._streams: dict[int, LiveEvents] = {}
        self._latest: dict[int, dict[str, Any]] = {}
        self._events: dict[int, EventColumns] = {}
        self._ended, self._lock = False, threading.Lock()
        self._server = _Server(self, listening)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True, name="page")

    def start(self) -> None:
        """Serve the page and show its address."""
        self._thread.start()
        if not is_loopback(self._listening):
            get_logger().warning("Everyone who can reach this machine can see the page: it has no password")
        show(f"The page is at {page_address(self._listening)}")

    def close(self) -> None:
        """Let the page show the end of the run, if it is open, and stop serving."""
        self._ended = True
        if self._server.visited:
            time.sleep(_LAST)
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def update(
        self, stream: LiveEvents, window: StreamWindow, best: Sequence[tuple[str, float]], latency: float
    ) -> None:
        """Show the latest window of a source."""
        entry = {
            "start": round(window.start, 3),
            "end": round(window.end, 3),
            "best": [[name, round(score, 4)] for name, score in best],
            "latency": round(1e3 * latency, 1),
            "number": window.number,
        }
        with self._lock:
            self._streams[stream.record.index] = stream
            self._latest[stream.record.index] = entry
            self._events[stream.record.index] = window.events

    def state(self) -> dict[str, Any]:
        """Return what the page shows."""
        with self._lock:
            latest = [(index, self._streams[index], entry) for index, entry in sorted(self._latest.items())]
        return {**self._about, "ended": self._ended, "sources": [_source_state(*one) for one in latest]}

    def picture(self, index: int) -> bytes | None:
        """Return the latest window of a source as PNG; None if there is none."""
        with self._lock:
            events = self._events.get(index)
        if events is None:
            return None
        x, y, t, p = (getattr(events, key)[-_DRAWN:] for key in "xytp")
        image = accumulate(x, y, t, p, self._sensor, frames=1)[0]
        _, png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
        return png.tobytes()


def _source_state(index: int, stream: LiveEvents, latest: dict[str, Any]) -> dict[str, Any]:
    connection, known = stream.feed.connection, len(stream.latencies) > 0
    absence = connection.absence if stream.feed.source.live else None
    percentiles = [round(1e3 * stream.latencies.percentile(rank), 1) if known else None for rank in PERCENTILES]
    return {
        **latest,
        "index": index,
        "name": stream.record.name,
        "absence": None if absence is None else round(absence, 1),
        "ended": stream.ended,
        "percentiles": percentiles,
        "rate": round(stream.rate),
        "windows": stream.windows,
        "silent": stream.silent,
        "losses": stream.losses,
    }


class _Server(ThreadingHTTPServer):
    """HTTP server on a socket that listens already."""

    daemon_threads = True

    def __init__(self, page: LivePage, listening: socket) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.page, self.visited = page, False
        # Protects against pages that resolve their own name to this machine (DNS rebinding).
        host = listening.getsockname()[0]
        self.hosts = {"localhost", host, f"[{host}]"} if is_loopback(listening) else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a browser may close a connection at any time."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds

    def do_GET(self) -> None:
        """Serve the files of the page, its state and the pictures."""
        path = self.path.partition("?")[0]
        hosts = self.server.hosts
        if hosts is not None and self.headers.get("Host", "").rpartition(":")[0] not in hosts:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"")
        elif path in _FILES:
            name, kind = _FILES[path]
            self._answer(HTTPStatus.OK, kind, (resources.files(__package__) / "assets" / name).read_bytes())
        elif path == _STATE:
            self.server.visited = True
            self._answer(HTTPStatus.OK, "application/json", json.dumps(self.server.page.state()).encode())
        else:
            self._send_picture(path)

    def _send_picture(self, path: str) -> None:
        number = path.removeprefix(_PICTURE).removesuffix(".png")
        is_picture = path.startswith(_PICTURE) and number.isascii() and number.isdecimal() and len(number) < 6
        png = self.server.page.picture(int(number)) if is_picture else None
        if png is None:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"")
        else:
            self._answer(HTTPStatus.OK, "image/png", png)

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        for name, value in {**_HEADERS, "Content-Type": kind + charset, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
