"""Sources of live events: sockets, and recordings that are played.

Notation: n events of a block.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import EventReader, open_events, read_blocks
from slowfast.datasets.dvs.formats.base import EventBlock, Sensor, seconds_per_tick
from slowfast.datasets.dvs.recording import stream_number
from slowfast.datasets.dvs.stream_decoders import AEDAT4, STREAM_FORMATS, DetectingDecoder, StreamDecoder, decoder_of
from slowfast.datasets.index.samples import UNLABELED
from slowfast.datasets.types import Record
from slowfast.errors import UserError, system_reason
from slowfast.event_driven.sources import is_address
from slowfast.utils.paths import nearest_file
from slowfast.utils.text import did_you_mean, nearest_name, plain, redact

TCP, UNIX, DV = "tcp", "unix", "dv"
_FORM = "tcp://HOST:PORT, dv://HOST:PORT, unix:///PATH or dv:///PATH"
_CONNECT = 10.0  # seconds for a connection to be made
_POLL = 0.05  # seconds between checks whether to stop
_RECEIVED = 2**18  # bytes received at once
_SLICE = 2e-3  # seconds of events that a played recording delivers at once, at least


@dataclass(frozen=True)
class StreamAddress:
    """Address of a server of events.

    Attributes:
        host: Host; "" for a Unix socket.
        port: Port.
        path: Path of a Unix socket.
        format: One of STREAM_FORMATS; None to detect it.
    """

    host: str
    port: int
    path: str
    format: str | None

    @classmethod
    def parse(cls, text: str) -> StreamAddress:
        """Parse an address. Raises UserError, without the secrets that it may contain."""
        shown = plain(redact(text))
        try:
            parts = urlsplit(text)
            port, scheme = parts.port, parts.scheme.lower()
        except ValueError:
            raise UserError(f"{shown}: invalid address. Use {_FORM}") from None
        if scheme not in (TCP, UNIX, DV):
            raise UserError(f"{shown}: unknown kind of stream {plain(scheme)}. Use {_FORM}")
        if "@" in parts.netloc:
            raise UserError(f"{shown}: streams of events have no user and password. Remove them")
        is_local = scheme == UNIX or (scheme == DV and not parts.netloc)
        if is_local and (parts.netloc or parts.path in ("", "/")):
            raise UserError(f"{shown}: the path of the socket is missing. Use {scheme}:///PATH")
        if not is_local and (not parts.hostname or not port or parts.path not in ("", "/")):
            raise UserError(f"{shown}: invalid address. Use {scheme}://HOST:PORT")
        kind = _stream_format(parts, shown)
        if scheme == DV and kind not in (None, AEDAT4):
            raise UserError(f"{shown}: dv:// streams have the format {AEDAT4}. Use tcp:// or unix:// for others")
        return cls(parts.hostname or "", port or 0, parts.path if is_local else "", AEDAT4 if scheme == DV else kind)

    def connect(self) -> socket.socket:
        """Connect to the server. Raises DecodeError if it cannot be reached."""
        try:
            if self.host:
                return socket.create_connection((self.host, self.port), _CONNECT)
            local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                local.settimeout(_CONNECT)
                local.connect(self.path)
            except BaseException:
                local.close()
                raise
            return local
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else system_reason(error)
            raise DecodeError(f"cannot connect: {reason}. Is the server running?") from error


def _stream_format(parts: SplitResult, shown: str) -> str | None:
    """Return the format in the query of an address; UserError for anything else in it."""
    found: str | None = None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "format":
            raise UserError(f"{shown}: unknown option {plain(name)} of the address. The only one is format")
        if value not in STREAM_FORMATS:
            near = did_you_mean(nearest_name(value, STREAM_FORMATS))
            raise UserError(f"{shown}: unknown format.{near} Choices: {', '.join(STREAM_FORMATS)}")
        found = value
    if parts.fragment:
        raise UserError(f"{shown}: # has no meaning in the address of a stream. Remove it")
    return found


class OpenEvents(Protocol):
    """Source that is open.

    Attributes:
        speed: Seconds of events per second; None for recordings that are read as fast as possible.
        sensor: Sensor height and width in pixels, once the source has stated them.
        missing: What could not be read, at the end.
    """

    speed: float | None
    missing: str | None

    @property
    def sensor(self) -> Sensor | None: ...

    def blocks(self, stopped: Callable[[], bool]) -> Iterator[EventBlock | None]:
        """Yield blocks with times in microseconds, and None when nothing has arrived for a while."""

    def close(self) -> None:
        """Close the source."""


class SocketEvents:
    """Events from a server.

    Args:
        address: Its address.

    Raises:
        DecodeError: If it cannot be reached.
    """

    speed: float | None = 1.0
    missing: str | None = None

    def __init__(self, address: StreamAddress) -> None:
        self._socket = address.connect()
        self._socket.settimeout(_POLL)
        self._decoder: StreamDecoder = DetectingDecoder() if address.format is None else decoder_of(address.format)

    @property
    def sensor(self) -> Sensor | None:
        """Size that the header states."""
        return self._decoder.sensor

    def blocks(self, stopped: Callable[[], bool]) -> Iterator[EventBlock | None]:
        """Yield what is received."""
        while not stopped():
            try:
                data = self._socket.recv(_RECEIVED)
            except TimeoutError:
                yield None
                continue
            except OSError as error:
                self.missing = f"the connection was lost: {system_reason(error)}"
                return
            if not data:
                self.missing = self._decoder.end()
                return
            yield from self._decoder.feed(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class PlayedEvents:
    """Events of a recording.

    Args:
        path: The recording.
        time_unit: Seconds per tick, for formats that do not state it.
        speed: Seconds of events per second; None for as fast as possible.
        stream: Name of the stream, for files with several streams.

    Raises:
        DecodeError: If it cannot be read or contains several streams, none of which has this name.
    """

    missing: str | None = None

    def __init__(self, path: Path, time_unit: float, speed: float | None, stream: str) -> None:
        self.speed = speed
        self._reader: EventReader = open_events(path)
        self._stream = stream_number(self._reader, stream)
        self._scale = seconds_per_tick(self._reader, time_unit) / 1e-6

    @property
    def sensor(self) -> Sensor | None:
        """Size that the file states."""
        return self._reader.streams[self._stream].sensor

    def blocks(self, stopped: Callable[[], bool]) -> Iterator[EventBlock | None]:
        """Yield the events, each not before its time."""
        start: tuple[float, float] | None = None  # perf_counter() and time of the first event
        for block in read_blocks(self._reader, self._stream):
            events = self._microseconds(block)
            if self.speed is None:
                yield events
            else:
                start = start or (time.perf_counter(), float(events.t[0]))
                yield from self._paced(events, start, self.speed, stopped)
            if stopped():
                return
        self.missing = "; ".join(self._reader.damage) or None

    def _microseconds(self, block: EventBlock) -> EventBlock:
        """Return a block in microseconds and in ascending order of time."""
        t = block.t if self._scale == 1 and block.t.dtype.kind != "f" else np.rint(block.t * self._scale)
        if (t[1:] < t[:-1]).any():
            order = np.argsort(t, kind="stable")
            t, block = t[order], EventBlock(*(column[order] for column in block))
        return block._replace(t=t.astype(np.int64, copy=False))

    @staticmethod
    def _paced(
        events: EventBlock, start: tuple[float, float], speed: float, stopped: Callable[[], bool]
    ) -> Iterator[EventBlock | None]:
        done = 0
        while done < len(events.t) and not stopped():
            now = start[1] + (time.perf_counter() - start[0]) * 1e6 * speed
            due = int(np.searchsorted(events.t, now, side="right"))
            if due > done:
                yield EventBlock(*(column[done:due] for column in events))
                done = due
                time.sleep(_SLICE)
            else:
                time.sleep(min(max((float(events.t[done]) - now) / 1e6 / speed, _SLICE), _POLL))
                yield None

    def close(self) -> None:
        """Do nothing: the file is closed after each read."""


@dataclass(frozen=True)
class EventSource:
    """Source of events that can be opened.

    Attributes:
        record: The source, with the name that all reports show, without secrets.
        open: Function that opens it.
        live: Whether it is a server, which may send events for ever, and not a recording.
    """

    record: Record
    open: Callable[[], OpenEvents]
    live: bool


def find_event_sources(places: list[str], time_unit: float, speed: float | None, stream: str) -> list[EventSource]:
    """Return the sources of a command line.

    Args:
        places: Addresses of servers, and recordings.
        time_unit: Seconds per tick, for recordings that do not state it.
        speed: Speed of recordings: seconds of events per second; None for as fast as possible.
        stream: Name of the stream of recordings with several streams.

    Raises:
        UserError: If an address is invalid or a recording does not exist.
    """
    sources = []
    for index, place in enumerate(places):
        name = redact(place)
        record = Record(index, Path(name), name, UNLABELED)
        if is_address(place) or re.match(r"[a-z]+:/", place, re.IGNORECASE):
            address = StreamAddress.parse(place)
            sources.append(EventSource(record, _opens_socket(address), live=True))
        else:
            if not Path(place).exists():
                near = did_you_mean(nearest_file(Path(place)))
                raise UserError(f"{plain(place)} does not exist.{near}".removesuffix("."))
            sources.append(EventSource(record, _opens_recording(Path(place), time_unit, speed, stream), live=False))
    return sources


def _opens_socket(address: StreamAddress) -> Callable[[], OpenEvents]:
    return lambda: SocketEvents(address)


def _opens_recording(path: Path, time_unit: float, speed: float | None, stream: str) -> Callable[[], OpenEvents]:
    return lambda: PlayedEvents(path, time_unit, speed, stream)
