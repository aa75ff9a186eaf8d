"""Files, read when they are looked at; cameras and streams, read as they come.

Each camera has a thread of its own, so that a slow or silent one does not hold up the others.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
import torch

from slowfast.datasets.types import failure_of, log_traceback
from slowfast.errors import UserError
from slowfast.event_driven.captures import OpenVideo
from slowfast.event_driven.frame_resize import FrameToSquare, squares
from slowfast.event_driven.sources import Source
from slowfast.utils.logging import get_logger


def _reason(source: Source, error: Exception) -> str:
    """Return why a video could not be read; log the traceback of an unexpected error."""
    failure = failure_of(source.record.index, source.record.name, error)
    log_traceback(failure)
    return failure.reason


@dataclass
class FileReading:
    """A file that is being read; the fields as LiveReading's."""

    source: Source
    video: OpenVideo
    squares: Generator[tuple[int, np.ndarray]]
    stopped: Callable[[], bool]
    began: float  # reading of the clock before it was opened
    next: list[tuple[int, np.ndarray]] = field(default_factory=list)
    seen: int = 0
    dropped: int = 0  # never
    ended: bool = False
    error: str | None = None
    mistake: None = None

    def fill(self, count: int) -> None:
        """Read the next frames; fewer only at the end or where there is an error."""
        self.next = []
        try:
            while len(self.next) < count and not (self.ended or self.stopped()):
                frame = next(self.squares, None)
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
        """Nothing to do: reading is done in `fill`."""

    def close(self, wait: float) -> None:
        """Close the file, at once."""
        self.squares.close()
        self.video.close()


class LiveReading:
    """The frames of a live source as they come. Where they are not taken in time the oldest are dropped, and counted.

    video: once it is open; next: what `fill` took; error: once ended, what was wrong; mistake: an error of the program.
    """

    def __init__(
        self,
        source: Source,
        transform: FrameToSquare,
        limit: int,
        room: int,
        reconnect: float,
        arrived: threading.Event,
    ) -> None:
        """limit: frames to take at most, 0: all; room: that wait at most; arrived: set when anything has happened.

        reconnect: seconds until it is opened again when it has ended in any way, 0: never.
        """
        self.source = source
        self.video: OpenVideo | None = None
        self.next: list[tuple[int, np.ndarray]] = []  # uint8 (S, S, 3), each with its tick
        self.seen, self.dropped = 0, 0
        self.error: str | None = None
        self.mistake: BaseException | None = None
        self.began = time.perf_counter()
        self._transform, self._limit = transform, limit
        self._reconnect, self._arrived = reconnect, arrived
        self._ended_at = -1  # tick of the last frame
        self._frames: deque[tuple[int, np.ndarray]] = deque()
        self._room, self._lock = room, threading.Lock()
        self._stop, self._done = threading.Event(), False
        self._thread = threading.Thread(target=self._read, daemon=True, name=f"reading {source.record.name}")
        self._thread.start()

    def fill(self, count: int) -> None:
        """Take the frames that are there, `count` at most."""
        wanted = min(count, self._limit - self.seen) if self._limit else count
        with self._lock:
            self.next = [self._frames.popleft() for _ in range(min(wanted, len(self._frames)))]
        self.seen += len(self.next)
        if self.seen == self._limit > 0:
            self.stop()
            self.error = self.video.missing if self.video is not None else None  # whatever came after does not matter

    @property
    def ended(self) -> bool:
        """Whether nothing more will be taken."""
        return self.seen == self._limit > 0 or (self._done and not self._frames)

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()

    def close(self, wait: float) -> None:
        """Wait so many seconds at most for the thread, which may be waiting for data."""
        self.stop()
        self._thread.join(wait)

    def _read(self) -> None:
        torch.set_num_threads(1)  # of this thread: the cameras share the cores
        try:
            self._read_once()
            while self._reconnect and not self._stop.is_set():
                why = self.error or "it ended"
                get_logger().warning(f"{self.source.record.name}: {why}; opened again in {self._reconnect:g} seconds")
                if not self._stop.wait(self._reconnect):
                    self._read_once()
        except BaseException as error:  # such as a UserError: raised where the frames are taken
            self.mistake = error
        finally:
            self._done = True
            self._arrived.set()

    def _read_once(self) -> None:
        """Until its end; `error` is then what was wrong."""
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
        self._arrived.set()
        try:
            self._read_frames(video, first=self._ended_at + 1)
            self.error = video.missing
        except UserError:
            raise
        except Exception as error:
            if not self._stop.is_set():
                self.error = "; ".join(filter(None, (_reason(self.source, error), video.missing)))
        finally:
            video.close()

    def _read_frames(self, video: OpenVideo, first: int) -> None:
        """first: the tick of its first frame; not 0 of a source that was opened again."""
        for tick, image in squares(video, self._transform, 0):
            if self._stop.is_set():
                return
            self._ended_at = first + tick
            self._keep((first + tick, image))

    def _keep(self, frame: tuple[int, np.ndarray]) -> None:
        with self._lock:
            if len(self._frames) == self._room:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
        self._arrived.set()


Reading = FileReading | LiveReading
