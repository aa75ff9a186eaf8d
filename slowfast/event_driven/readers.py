"""Readers of files, on demand, and of live sources, in one thread each so that a slow one does not delay the others.

Notation: P pixels per side of the network's input.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch

from slowfast.datasets.types import failure_of, log_traceback
from slowfast.errors import UserError
from slowfast.event_driven.captures import OpenVideo
from slowfast.event_driven.connection import Connection
from slowfast.event_driven.frame_resize import Frame, FrameResize, resized_frames
from slowfast.event_driven.sources import Source


def _reason(source: Source, error: Exception) -> str:
    """Return why a video cannot be read; log the traceback of an unexpected error."""
    failure = failure_of(source.record.index, source.record.name, error)
    log_traceback(failure)
    return failure.reason


@dataclass
class FileReader:
    """Reader of a file; for the fields see :class:`LiveReader`."""

    source: Source
    video: OpenVideo
    frames: Generator[Frame]
    stopped: Callable[[], bool]
    began: float  # perf_counter() before it was opened
    next: list[Frame] = field(default_factory=list)
    seen: int = 0
    dropped: int = 0  # always 0
    ended: bool = False
    error: str | None = None
    fatal: None = None

    def fill(self, count: int) -> None:
        """Read the next `count` frames; fewer only at the end or after an error."""
        self.next = []
        try:
            while len(self.next) < count and not (self.ended or self.stopped()):
                frame = next(self.frames, None)
                if frame is None:
                    self.ended, self.error = True, self.video.missing
                else:
                    self.next.append(frame)
        except UserError:
            raise
        except Exception as error:
            self.ended, self.error = True, _reason(self.source, error)
        self.seen += len(self.next)

    def stop(self) -> None:
        """Do nothing: frames are read in :meth:`fill`."""

    def close(self, wait: float) -> None:
        """Close the file immediately."""
        self.frames.close()
        self.video.close()


class LiveReader:
    """Reader of a live source in a thread; the oldest frames are dropped, and counted, if they are not read in time.

    Args:
        source: Source to read.
        transform: Resizes frames to the network's input.
        limit: Largest number of frames to read; 0 for all.
        capacity: Maximum number of frames waiting to be read.
        connection: Connection to the source; it is reopened after it has ended for any reason if there is a delay.
        arrived: Event set after every change of state.

    Attributes:
        video: The video once it is open.
        next: Frames of the last :meth:`fill`.
        seen: Number of frames that were read.
        dropped: Number of frames that were dropped.
        error: Reason of the failure, once the source has ended.
        fatal: Error unrelated to the source, raised by the consumer.
        began: perf_counter() before the source was opened.
    """

    def __init__(
        self,
        source: Source,
        transform: FrameResize,
        limit: int,
        capacity: int,
        connection: Connection,
        arrived: threading.Event,
    ) -> None:
        self.source, self.connection = source, connection
        self.video: OpenVideo | None = None
        self.next: list[Frame] = []
        self.seen, self.dropped = 0, 0
        self.error: str | None = None
        self.fatal: BaseException | None = None
        self.began = time.perf_counter()
        self._transform, self._limit = transform, limit
        self._arrived = arrived
        self._last_tick = -1
        self._frames: deque[Frame] = deque()
        self._capacity, self._lock = capacity, threading.Lock()
        self._stop, self._done = threading.Event(), False
        self._thread = threading.Thread(target=self._read, daemon=True, name=f"reading {source.record.name}")
        self._thread.start()

    def fill(self, count: int) -> None:
        """Take up to `count` of the frames that have arrived."""
        wanted = min(count, self._limit - self.seen) if self._limit else count
        with self._lock:
            self.next = [self._frames.popleft() for _ in range(min(wanted, len(self._frames)))]
        self.seen += len(self.next)
        if self.seen == self._limit > 0:
            self.stop()
            self.error = self.video.missing if self.video is not None else None  # later errors are irrelevant

    @property
    def ended(self) -> bool:
        """True if no more frames will be read."""
        return self.seen == self._limit > 0 or (self._done and not self._frames)

    def stop(self) -> None:
        """Stop reading."""
        self._stop.set()

    def close(self, wait: float) -> None:
        """Stop and wait up to `wait` seconds for the thread, which may be waiting for data."""
        self.stop()
        self._thread.join(wait)

    def _read(self) -> None:
        torch.set_num_threads(1)  # limits this thread; live sources share the cores
        try:
            self._read_once()
            while self.connection.reconnects_after_loss and not self._stop.is_set():
                if not self._stop.wait(self.connection.lost(self.error or "the stream ended")):
                    self._read_once()
        except BaseException as error:  # for example a UserError, which the consumer raises
            self.fatal = error
        finally:
            self._done = True
            self._arrived.set()

    def _read_once(self) -> None:
        """Open the source and read it until it ends; set `error` if it failed."""
        try:
            video = self.source.open()
        except UserError:
            raise
        except Exception as error:
            self.error = _reason(self.source, error)
            return
        if self.video is None:
            self.began = time.perf_counter()
        self.video, self.error = video, None
        self.connection.rate = float(video.rate)
        self._arrived.set()
        try:
            self._read_frames(video, first=self._last_tick + 1)
            self.error = video.missing
        except UserError:
            raise
        except Exception as error:
            if not self._stop.is_set():
                self.error = "; ".join(filter(None, (_reason(self.source, error), video.missing)))
        finally:
            video.close()

    def _read_frames(self, video: OpenVideo, first: int) -> None:
        """Read frames; `first` is the tick of the first one, not 0 for a source that was reopened."""
        for frame in resized_frames(video, self._transform, 0):
            if self._stop.is_set():
                return
            self._last_tick = first + frame.tick
            self.connection.frame_arrived()
            self._append(frame._replace(tick=self._last_tick))

    def _append(self, frame: Frame) -> None:
        with self._lock:
            if len(self._frames) == self._capacity:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
        self._arrived.set()


Reader = FileReader | LiveReader
