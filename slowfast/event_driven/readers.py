"""Readers of files, on demand, and of live sources, in one thread each so that a slow one does not delay the others.

Notation: K frames of a video, P pixels per side of the network's input.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np

from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.types import failure_of, log_traceback
from slowfast.errors import UserError
from slowfast.event_driven.connection import Connection, SourceThread
from slowfast.event_driven.sources import Source
from slowfast.event_driven.video_frames import Frame, FrameResize, OpenVideo, resized_frames


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
            failure = failure_of(self.source.record.index, self.source.record.name, error)
            log_traceback(failure)
            self.ended, self.error = True, failure.reason
        self.seen += len(self.next)

    def stop(self) -> None:
        """Do nothing: frames are read in :meth:`fill`."""

    def close(self, wait: float) -> None:
        """Close the file immediately."""
        self.frames.close()
        self.video.close()


class LiveReader(SourceThread):
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
        super().__init__(source.record.index, source.record.name, connection, arrived)
        self.source = source
        self.video: OpenVideo | None = None
        self.next: list[Frame] = []
        self.seen, self.dropped = 0, 0
        self.began = time.perf_counter()
        self._transform, self._limit = transform, limit
        self._last_tick = -1
        self._frames: deque[Frame] = deque()
        self._capacity, self._lock = capacity, threading.Lock()
        self.start()

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

    def read_once(self) -> None:
        """Open the source and read it until it ends."""
        try:
            video = self.source.open()
        except UserError:
            raise
        except Exception as error:
            self.error = self.reason(error)
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
                self.error = "; ".join(filter(None, (self.reason(error), video.missing)))
        finally:
            video.close()

    def _read_frames(self, video: OpenVideo, first: int) -> None:
        """Read frames; `first` is the tick of the first one, not 0 for a source that was reopened."""
        for frame in resized_frames(video, self._transform, 0):
            if self._stop.is_set():
                return
            self._last_tick = first + frame.tick
            self.connection.arrived(1)
            self._append(frame._replace(tick=self._last_tick))

    def _append(self, frame: Frame) -> None:
        with self._lock:
            if len(self._frames) == self._capacity:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
        self._arrived.set()


Reader = FileReader | LiveReader


def read_frames(source: Source, transform: FrameResize, limit: int) -> tuple[np.ndarray, str | None]:
    """Read the first frames of a video at the network's resolution.

    Args:
        source: Video to read.
        transform: Resizes the frames.
        limit: Largest number of frames; 0 for all.

    Returns:
        Frames uint8 (K, P, P, 3), and a description of what could not be read.

    Raises:
        DecodeError: If there is no frame. Other errors of FFmpeg or the system are failures of the video, too.
    """
    video = source.open()
    try:
        images = [frame.image for frame in resized_frames(video, transform, limit)]
        missing = video.missing
    finally:
        video.close()
    if not images:
        raise DecodeError("no frame can be decoded")
    return np.stack(images), missing
