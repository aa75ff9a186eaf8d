"""Background thread that decodes, resizes and normalizes videos and detects their changed patches.

It sends messages: a video begins, the next frames of some videos, a video ends.

The thread reads files as fast as they are processed; each live source has a separate thread (readers.py). A thread
that hangs in a file is abandoned, and a new one continues with the others.

Notation: K frames of each of S videos that are read at once, P pixels per side of the network's input.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from slowfast.datasets.clip_dataset import timeout_reason
from slowfast.datasets.types import Failure, failure_of
from slowfast.engine.forward import ClipForward
from slowfast.errors import UserError
from slowfast.event_driven.connection import Connection
from slowfast.event_driven.crash_watch import CrashWatch
from slowfast.event_driven.detector import Changes
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.readers import FileReader, LiveReader, Reader
from slowfast.event_driven.sources import Source
from slowfast.event_driven.video_frames import FrameResize, resized_frames
from slowfast.utils.machine import synchronize

AHEAD = 2  # largest number of batches that wait for the network
_SHARED_CHUNKS = 4  # largest number of chunks of all live sources in a batch
_BUFFERED_CHUNKS = 2  # largest number of chunks of a live source that wait to be read
_BURST = 8  # frames of a live source that wait without being dropped if its chunks are shorter
_POLL = 0.1  # seconds between checks for a stop
_JOIN = 6.0  # seconds for the thread to end; a stream may be waiting for data
_JOIN_LIVE = 1.0  # seconds for the thread of a live source to end while the other sources wait


@dataclass(frozen=True)
class Opened:
    """Message that a video begins."""

    source: Source
    rate: Fraction  # nominal frames/s
    time_base: Fraction  # seconds per tick
    began: float  # perf_counter() before the first read


@dataclass(frozen=True)
class Batch:
    """Message with the next K frames of each of S videos."""

    sources: list[Source]  # S
    ticks: list[list[int]]  # S K
    images: torch.Tensor  # uint8 (K, S, P, P, 3), at the network's resolution
    frames: torch.Tensor  # float (K, S, 3, P, P), normalized, on the device
    changes: Changes
    detect_seconds: float
    dropped: list[int]  # S, frames dropped so far
    arrived: np.ndarray  # float64 (K, S): perf_counter() when a frame arrived from a live source; 0 for files


@dataclass(frozen=True)
class Closed:
    """Message that a video has ended, with the failure if there was one."""

    source: Source
    failure: Failure | None


Message = Opened | Batch | Closed


class Feed:
    """Source of messages about all videos: Opened, Batches and Closed for each, or only Closed.

    Args:
        engine: Engine that detects the changes.
        transform: Resizes frames to the network's input.
        forward: Normalizes frames and moves them to the device.
        streams: Number of videos read at the same time.
        chunk: Number of frames of each of them in a batch. With many live sources, fewer of each are taken, since the
            next frames would become old while so many are computed.
        limit: Largest number of frames of a video; 0 for all.
        reconnect: Seconds until a live source that has ended is reopened for the first time; 0 for never.
        timeout: Seconds that a file may take to open, and for each of its frames; 0 for no limit.

    Attributes:
        unfinished: Failures of the videos that had not ended when the messages ended.
        connections: Connection of each live source that was opened, by index.
    """

    def __init__(
        self,
        engine: EventDrivenInference,
        transform: FrameResize,
        forward: ClipForward,
        streams: int,
        chunk: int,
        limit: int,
        reconnect: float = 0.0,
        timeout: float = 0.0,
    ) -> None:
        self.engine, self.transform, self.forward = engine, transform, forward
        self.streams, self.chunk, self.limit, self.reconnect = streams, chunk, limit, reconnect
        self.timeout = timeout
        self.unfinished: list[Failure] = []
        self.connections: dict[int, Connection] = {}
        self._announced: set[int] = set()
        self._watch = CrashWatch()
        self._queue: queue.Queue[Message | BaseException | None] = queue.Queue(AHEAD)
        self._stop, self._arrived = threading.Event(), threading.Event()
        self._waiting: deque[Source] = deque()
        self._readers: list[Reader] = []  # readers of the open sources
        self._live_chunk = chunk  # frames of each live source in a batch
        self._thread: threading.Thread | None = None  # the thread that has not been abandoned
        # File that the thread is reading, and monotonic() of its last progress.
        self._reads: tuple[Source, float] | None = None

    def messages(self, sources: list[Source], stopped: Callable[[], bool]) -> Iterator[Message]:
        """Yield the messages of all sources until they end or `stopped` returns True.

        Failures of a video are part of its Closed message; other errors are raised.
        """
        self._waiting = deque(sources)
        live = min(self.streams, sum(source.live for source in sources))
        self._live_chunk = min(max(_SHARED_CHUNKS * self.chunk // max(live, 1), 1), self.chunk)
        self._start_thread()
        try:
            while (message := self._get(stopped)) is not None:
                if isinstance(message, BaseException):
                    raise message
                yield message
        finally:
            self._stop.set()
            if self._thread is not None:
                self._thread.join(_JOIN)
            self._watch.close()
            while not self._queue.empty():
                self._collect_failure(self._queue.get_nowait())

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._work, daemon=True, name="decoding")
        self._thread.start()

    def _get(self, stopped: Callable[[], bool]) -> Message | BaseException | None:
        while not stopped():  # also checked while the thread waits for data of a stream
            try:
                return self._queue.get(timeout=_POLL)
            except queue.Empty:
                if (closed := self._abandon_hung_thread()) is not None:
                    return closed
        return None

    def _abandon_hung_thread(self) -> Closed | None:
        """Abandon a file that hangs, and its thread; a new thread continues with the other sources."""
        reads = self._reads
        if reads is None or not self.timeout or time.monotonic() - reads[1] <= self.timeout:
            return None
        source, self._reads = reads[0], None
        hung = [reader for reader in self._readers if reader.source is source]
        self._readers = [reader for reader in self._readers if reader.source is not source]
        seen = any(reader.seen for reader in hung)
        if seen:
            self.engine.reset(source.record.index)
        self._start_thread()
        return Closed(source, _failure(source, timeout_reason(self.timeout), lost=not seen))

    def _put(self, message: Message | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(message, timeout=_POLL)
            except queue.Full:
                continue
        return self._collect_failure(message)

    def _collect_failure(self, message: Message | BaseException | None) -> None:
        if isinstance(message, Closed) and message.failure is not None:
            self.unfinished.append(message.failure)

    # ---------------------------------------------------------------- in the thread
    def _work(self) -> None:
        torch.set_num_threads(1)  # limits this thread; the network uses the other cores
        try:
            self._read_all()
            self._put(None)
        except _AbandonedError:
            return  # another thread has taken over
        except BaseException as error:  # raised again by `messages`
            self._put(error)
        self._end_readers()

    def _end_readers(self) -> None:
        for reader in self._readers:
            reader.stop()
        until = time.monotonic() + _JOIN / 2  # deadline for all threads together
        for reader in self._readers:
            reader.close(max(until - time.monotonic(), 0))
        for reader in self._readers:
            silent = reader.source.live and not reader.seen
            if reason := reader.error or ("no frame had arrived when the run was stopped" if silent else None):
                self.unfinished.append(_failure(reader.source, reason, lost=not reader.seen))

    def _read_all(self) -> None:
        """Read the open sources, and open waiting ones, until all have ended."""
        self._send(self._readers)  # frames of the other sources, read by an abandoned thread
        while (self._waiting or self._readers) and not self._stop.is_set():
            self._arrived.clear()
            while self._waiting and len(self._readers) < self.streams:
                self._readers += self._open(self._waiting.popleft())
            for reader in self._readers:
                self._announce(reader)
                with self._timed(reader.source):
                    reader.fill(self._live_chunk if reader.source.live else self.chunk)
                self._announce(reader)  # a live source that was opened meanwhile
            idle = not any(reader.next for reader in self._readers)
            self._send(self._readers)
            ended = [reader for reader in self._readers if reader.ended]
            for reader in ended:
                self._readers.remove(reader)
                self._close(reader)
            if idle and not ended:
                self._arrived.wait(_POLL)

    @contextmanager
    def _timed(self, source: Source) -> Iterator[None]:
        """Limit the time of a block that reads a file; raise _AbandonedError after it if the limit was exceeded."""
        if not source.live:
            self._reads = (source, time.monotonic())
        yield
        if threading.current_thread() is not self._thread:
            raise _AbandonedError
        self._reads = None

    def _next_frame(self) -> bool:
        """Record that a file makes progress; return whether to stop reading it."""
        reads = self._reads
        if reads is not None and threading.current_thread() is self._thread:
            self._reads = (reads[0], time.monotonic())
        return self._stop.is_set()

    def _open(self, source: Source) -> list[Reader]:
        self._watch.begin(source.record.index, source.record.name)
        if source.live:
            connection = self.connections[source.record.index] = Connection(source.record.name, self.reconnect)
            capacity = min(max(_BUFFERED_CHUNKS * self._live_chunk, _BURST), _BUFFERED_CHUNKS * self.chunk)
            return [LiveReader(source, self.transform, self.limit, capacity, connection, self._arrived)]
        began = time.perf_counter()
        failure: Failure | None = None
        with self._timed(source):
            try:
                video = source.open()
            except UserError:
                raise
            except Exception as error:
                failure = failure_of(source.record.index, source.record.name, error)
        if failure is not None:
            self._watch.end(source.record.index)
            self._put(Closed(source, failure))
            return []
        return [FileReader(source, video, resized_frames(video, self.transform, self.limit), self._next_frame, began)]

    def _announce(self, reader: Reader) -> None:
        index = reader.source.record.index
        if reader.video is not None and index not in self._announced:
            self._announced.add(index)
            self._put(Opened(reader.source, reader.video.rate, reader.video.time_base, reader.began))

    def _close(self, reader: Reader) -> None:
        reader.close(_JOIN_LIVE)
        self._watch.end(reader.source.record.index)
        if reader.fatal is not None:
            raise reader.fatal
        index = reader.source.record.index
        if index in self.connections:
            self.connections[index].end()
        self.engine.reset(index)
        error = reader.error or (None if reader.seen else "no frame can be decoded")
        failure = _failure(reader.source, error, lost=not reader.seen) if error else None
        self._put(Closed(reader.source, failure))

    def _send(self, readers: list[Reader]) -> None:
        """Send the frames of all readers in rectangular batches: as many frames of each as the shortest still has."""
        done = 0
        for count in sorted({len(reader.next) for reader in readers} - {0}):
            members = [reader for reader in readers if len(reader.next) >= count]
            self._put(self._batch(members, done, count))
            done = count
        for reader in readers:
            reader.next = []

    def _batch(self, members: list[Reader], first: int, last: int) -> Batch:
        images = torch.from_numpy(np.stack([[one.next[k].image for one in members] for k in range(first, last)]))
        ticks = [[frame.tick for frame in one.next[first:last]] for one in members]
        arrived = np.array([[one.next[k].arrived for one in members] for k in range(first, last)])
        prepared = self.forward.prepare(images.flatten(0, 1)[:, None])  # (K S) 3 P P
        frames = prepared.unflatten(0, images.shape[:2])  # K S 3 P P
        synchronize(self.forward.device)
        start = time.perf_counter()
        changes = self.engine.detect(frames, [one.source.record.index for one in members])
        synchronize(self.forward.device)
        seconds = time.perf_counter() - start
        dropped = [one.dropped for one in members]
        return Batch([one.source for one in members], ticks, images, frames, changes, seconds, dropped, arrived)


class _AbandonedError(Exception):
    """Raised in a thread that was abandoned because a file took too long; it must not touch shared state."""


def _failure(source: Source, reason: str, lost: bool) -> Failure:
    return Failure(source.record.index, source.record.name, reason, lost)
