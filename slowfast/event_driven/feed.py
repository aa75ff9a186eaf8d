"""Videos to changes, in a thread of its own: decode, resize, crop, normalize, find what changed.

Files are read there, as fast as they are looked at; cameras and streams in threads of their own (reading.py).

K frames of each of S videos that are read at once, P pixels of a crop's side.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from slowfast.datasets.transforms import ViewTransform
from slowfast.datasets.types import Failure
from slowfast.engine.forward import ClipForward
from slowfast.event_driven.detector import Changes
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.reading import FileReading, LiveReading, Reading
from slowfast.event_driven.sources import VIDEO_ERRORS, Source, crops, reason
from slowfast.runtime.device import synchronize

AHEAD = 2  # batches that wait for the network at most
_ROOM = 2  # chunks of a live source that wait to be taken at most
_POLL = 0.1  # seconds between two looks whether to stop
_JOIN = 12.0  # seconds for the thread to end; a stream may be waiting for data
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
    images: torch.Tensor  # uint8 (K, S, P, P, 3), the crops
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
        transform: ViewTransform,
        forward: ClipForward,
        streams: int,
        chunk: int,
        limit: int,
        reconnect: float = 0.0,
    ) -> None:
        """`streams` videos at once, `chunk` frames of each, `limit` frames of a video at most (0: all).

        reconnect: seconds until a camera or stream that has ended is opened again, 0: never.
        """
        self.engine, self.transform, self.forward = engine, transform, forward
        self.streams, self.chunk, self.limit, self.reconnect = streams, chunk, limit, reconnect
        self.left: list[Failure] = []  # once `messages` has ended: of videos that had not, what is wrong with them
        self._announced: set[int] = set()
        self._queue: queue.Queue[Message | BaseException | None] = queue.Queue(AHEAD)
        self._stop, self._arrived = threading.Event(), threading.Event()

    def messages(self, sources: list[Source], stopped: Callable[[], bool]) -> Iterator[Message]:
        """Read all sources, until `stopped`; the videos' own errors are told by Closed, any other is raised here."""
        thread = threading.Thread(target=self._work, args=(sources,), daemon=True, name="decoding")
        thread.start()
        try:
            while (message := self._get(stopped)) is not None:
                if isinstance(message, BaseException):
                    raise message
                yield message
        finally:
            self._stop.set()
            thread.join(_JOIN)
            while not self._queue.empty():
                self._not_delivered(self._queue.get_nowait())

    def _get(self, stopped: Callable[[], bool]) -> Message | BaseException | None:
        while not stopped():  # looked at also while the thread waits for a stream's data
            try:
                return self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
        return None

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
    def _work(self, sources: list[Source]) -> None:
        torch.set_num_threads(1)  # of this thread; the network has the other cores
        readings: list[Reading] = []
        try:
            self._read_all(deque(sources), readings)
            self._put(None)
        except BaseException as error:  # raised again by `messages`
            self._put(error)
        finally:
            for reading in readings:
                reading.stop()
            until = time.monotonic() + _JOIN / 2  # for all together
            for reading in readings:
                reading.close(max(until - time.monotonic(), 0))
            for reading in readings:
                never = reading.source.live and not reading.seen
                if why := reading.error or ("no frame had come when the run was stopped" if never else None):
                    self.left.append(_failure(reading.source, why, lost=not reading.seen))

    def _read_all(self, waiting: deque[Source], readings: list[Reading]) -> None:
        """readings: those that are open are kept there."""
        while (waiting or readings) and not self._stop.is_set():
            self._arrived.clear()
            while waiting and len(readings) < self.streams:
                readings += self._open(waiting.popleft())
            for reading in readings:
                self._announce(reading)
                reading.fill(self.chunk)
                self._announce(reading)  # a camera that has been opened meanwhile
            self._send(readings)
            ended = [reading for reading in readings if reading.ended]
            for reading in ended:
                readings.remove(reading)
                self._close(reading)
            if not ended and not any(reading.next for reading in readings):
                self._arrived.wait(_POLL)

    def _open(self, source: Source) -> list[Reading]:
        if source.live:
            room = _ROOM * self.chunk
            return [LiveReading(source, self.transform, self.limit, room, self.reconnect, self._arrived)]
        began = time.perf_counter()
        try:
            video = source.open()
        except VIDEO_ERRORS as error:
            self._put(Closed(source, _failure(source, reason(error), lost=True)))
            return []
        return [FileReading(source, video, crops(video, self.transform, self.limit), self._stop.is_set, began)]

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


def _failure(source: Source, why: str, lost: bool) -> Failure:
    return Failure(source.record.index, source.record.name, why, lost)
