"""Videos to changes, in a separate thread: decode, resize to the square, normalize, find what changed.

Files are read there, as fast as they are processed; cameras and streams in one thread each (reading.py). A thread that
hangs in a file is left behind, and a new one goes on with the others.

K frames of each of S videos that are read at once, P pixels of the side of the network's input.
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
from slowfast.event_driven.detector import Changes
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.frame_resize import FrameToSquare, squares
from slowfast.event_driven.readers import FileReading, LiveReading, Reading
from slowfast.event_driven.sources import Source
from slowfast.utils.machine import synchronize

AHEAD = 2  # batches that wait for the network at most
_ROOM = 2  # chunks of a live source that wait to be taken at most
_POLL = 0.1  # seconds between two looks whether to stop
_JOIN = 6.0  # seconds for the thread to end; a stream may be waiting for data
_LEAVE = 1.0  # seconds to wait for a camera of which enough has been seen, while the others wait


@dataclass(frozen=True)
class Opened:
    """A video begins."""

    source: Source
    rate: Fraction  # frames a second, nominal
    time_base: Fraction  # seconds of a tick
    began: float  # reading of the clock before anything of it was read


@dataclass(frozen=True)
class Batch:
    """The next K frames of each of S videos."""

    sources: list[Source]  # S
    ticks: list[list[int]]  # S K
    images: torch.Tensor  # uint8 (K, S, P, P, 3), as the network sees them
    frames: torch.Tensor  # float (K, S, 3, P, P), normalized, on the device
    changes: Changes
    detect_seconds: float
    dropped: list[int]  # S, frames left out so far


@dataclass(frozen=True)
class Closed:
    """A video has ended; what was wrong with it."""

    source: Source
    failure: Failure | None


Message = Opened | Batch | Closed


class Feed:
    """Iterating gives the messages of all videos; each video's are Opened, Batches, Closed, or Closed alone."""

    def __init__(
        self,
        engine: EventDrivenInference,
        transform: FrameToSquare,
        forward: ClipForward,
        streams: int,
        chunk: int,
        limit: int,
        reconnect: float = 0.0,
        timeout: float = 0.0,
    ) -> None:
        """`streams` videos at once, `chunk` frames of each, `limit` frames of a video at most (0: all).

        reconnect: seconds until a camera or stream that has ended is opened again, 0: never. timeout: seconds that a
        file may take to open, and for each of its frames; 0: no limit.
        """
        self.engine, self.transform, self.forward = engine, transform, forward
        self.streams, self.chunk, self.limit, self.reconnect = streams, chunk, limit, reconnect
        self.timeout = timeout
        self.left: list[Failure] = []  # once `messages` has ended: of videos that had not, what is wrong with them
        self._announced: set[int] = set()
        self._queue: queue.Queue[Message | BaseException | None] = queue.Queue(AHEAD)
        self._stop, self._arrived = threading.Event(), threading.Event()
        self._waiting: deque[Source] = deque()
        self._readings: list[Reading] = []  # that are open
        self._thread: threading.Thread | None = None  # the one that is not left behind
        self._reads: tuple[Source, float] | None = (
            None  # the file the thread is reading, and the clock at its last sign
        )

    def messages(self, sources: list[Source], stopped: Callable[[], bool]) -> Iterator[Message]:
        """Read all sources, until `stopped`; the videos' own errors are told by Closed, any other is raised here."""
        self._waiting = deque(sources)
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
            while not self._queue.empty():
                self._not_delivered(self._queue.get_nowait())

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._work, daemon=True, name="decoding")
        self._thread.start()

    def _get(self, stopped: Callable[[], bool]) -> Message | BaseException | None:
        while not stopped():  # looked at also while the thread waits for a stream's data
            try:
                return self._queue.get(timeout=_POLL)
            except queue.Empty:
                if (closed := self._leave_behind()) is not None:
                    return closed
        return None

    def _leave_behind(self) -> Closed | None:
        """Give up the file that the thread hangs in, and the thread with it; another one goes on with the rest."""
        reads = self._reads
        if reads is None or not self.timeout or time.monotonic() - reads[1] <= self.timeout:
            return None
        source, self._reads = reads[0], None
        hung = [reading for reading in self._readings if reading.source is source]
        self._readings = [reading for reading in self._readings if reading.source is not source]
        seen = any(reading.seen for reading in hung)
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
        return self._not_delivered(message)

    def _not_delivered(self, message: Message | BaseException | None) -> None:
        if isinstance(message, Closed) and message.failure is not None:
            self.left.append(message.failure)

    # ------------------------------------------------------------------ in the thread
    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread; the network has the other cores
        try:
            self._read_all()
            self._put(None)
        except _LeftBehind:
            return  # another thread has taken over
        except BaseException as error:  # raised again by `messages`
            self._put(error)
        self._end_readings()

    def _end_readings(self) -> None:
        for reading in self._readings:
            reading.stop()
        until = time.monotonic() + _JOIN / 2  # for all together
        for reading in self._readings:
            reading.close(max(until - time.monotonic(), 0))
        for reading in self._readings:
            never = reading.source.live and not reading.seen
            if why := reading.error or ("no frame had come when the run was stopped" if never else None):
                self.left.append(_failure(reading.source, why, lost=not reading.seen))

    def _read_all(self) -> None:
        """Read the sources that wait and those that are open."""
        self._send(self._readings)  # what a thread that was left behind had read of the others
        while (self._waiting or self._readings) and not self._stop.is_set():
            self._arrived.clear()
            while self._waiting and len(self._readings) < self.streams:
                self._readings += self._open(self._waiting.popleft())
            for reading in self._readings:
                self._announce(reading)
                with self._timed(reading.source):
                    reading.fill(self.chunk)
                self._announce(reading)  # a camera that has been opened meanwhile
            idle = not any(reading.next for reading in self._readings)
            self._send(self._readings)
            ended = [reading for reading in self._readings if reading.ended]
            for reading in ended:
                self._readings.remove(reading)
                self._close(reading)
            if idle and not ended:
                self._arrived.wait(_POLL)

    @contextmanager
    def _timed(self, source: Source) -> Iterator[None]:
        """Limit the time of the block, in which a file is read; raise _LeftBehind after it if that was exceeded."""
        if not source.live:
            self._reads = (source, time.monotonic())
        yield
        if threading.current_thread() is not self._thread:
            raise _LeftBehind
        self._reads = None

    def _next_frame(self) -> bool:
        """Note that a file gets on; whether to stop reading it."""
        reads = self._reads
        if reads is not None and threading.current_thread() is self._thread:
            self._reads = (reads[0], time.monotonic())
        return self._stop.is_set()

    def _open(self, source: Source) -> list[Reading]:
        if source.live:
            room = _ROOM * self.chunk
            return [LiveReading(source, self.transform, self.limit, room, self.reconnect, self._arrived)]
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
            self._put(Closed(source, failure))
            return []
        return [FileReading(source, video, squares(video, self.transform, self.limit), self._next_frame, began)]

    def _announce(self, reading: Reading) -> None:
        index = reading.source.record.index
        if reading.video is not None and index not in self._announced:
            self._announced.add(index)
            self._put(Opened(reading.source, reading.video.rate, reading.video.time_base, reading.began))

    def _close(self, reading: Reading) -> None:
        reading.close(_LEAVE)
        if reading.mistake is not None:
            raise reading.mistake
        self.engine.reset(reading.source.record.index)
        error = reading.error or (None if reading.seen else "no frame can be decoded")
        failure = _failure(reading.source, error, lost=not reading.seen) if error else None
        self._put(Closed(reading.source, failure))

    def _send(self, readings: list[Reading]) -> None:
        """The frames read of all videos: as many of each at once as the shortest still has."""
        done = 0
        for count in sorted({len(reading.next) for reading in readings} - {0}):
            members = [reading for reading in readings if len(reading.next) >= count]
            self._put(self._batch(members, done, count))
            done = count
        for reading in readings:
            reading.next = []

    def _batch(self, members: list[Reading], first: int, last: int) -> Batch:
        images = torch.from_numpy(np.stack([[one.next[k][1] for one in members] for k in range(first, last)]))
        ticks = [[tick for tick, _ in one.next[first:last]] for one in members]
        prepared = self.forward.prepare(images.flatten(0, 1)[:, None])  # (K S) 3 P P
        frames = prepared.unflatten(0, images.shape[:2])  # K S 3 P P
        synchronize(self.forward.device)
        start = time.perf_counter()
        changes = self.engine.detect(frames, [one.source.record.index for one in members])
        synchronize(self.forward.device)
        seconds = time.perf_counter() - start
        dropped = [one.dropped for one in members]
        return Batch([one.source for one in members], ticks, images, frames, changes, seconds, dropped)


class _LeftBehind(Exception):
    """The thread took too long in a file: it must not touch anything any more."""


def _failure(source: Source, why: str, lost: bool) -> Failure:
    return Failure(source.record.index, source.record.name, why, lost)
