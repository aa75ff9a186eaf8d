"""Live sources of predictions: cameras, streams, and files that are played at their own speed.

Event-driven inference numbers the frames of a live source. The sources here add when each of them is shown, because a
clip has a duration: the frame rate that a stream states is often wrong, and cameras slow down in the dark.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from slowfast.datasets.decode.reader import scaled_down
from slowfast.datasets.transforms import ViewTransform
from slowfast.errors import UserError
from slowfast.event_driven.connection import Connection, SourceThread
from slowfast.event_driven.sources import Source, find_files, find_sources, is_address, is_camera
from slowfast.event_driven.video_frames import CameraFrames, FileFrames, OpenVideo, StreamFrames
from slowfast.utils.text import plain, redact

TICKS = 90_000  # per second, of streams and cameras
_LONGEST_GAP = 10.0  # seconds between frames; more is a jump of the timestamps
_BUFFERED = 256  # frames that wait for the main thread, which takes them within milliseconds
_NAP = 0.1  # seconds between checks whether to stop while a file is played


class TimedStream(StreamFrames):
    """Frames of a network stream, each with the time of its timestamp."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._clock, self._times = TickClock(1 / float(self.rate)), deque[float | None]()
        self.time_base = Fraction(1, TICKS)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for _, image in super().__iter__():
            yield self._clock(self._times.popleft()), image

    def _decoded(self, packet: av.Packet) -> Sequence[av.VideoFrame]:
        frames = super()._decoded(packet)
        self._times.extend(frame.time for frame in frames)
        return frames


class TickClock:
    """Converts the timestamps of a stream to ticks from 0 that always ascend.

    Args:
        period: Seconds between frames, for those without a timestamp and after a jump of the timestamps.
    """

    def __init__(self, period: float) -> None:
        self._period, self._last, self._tick = period, 0.0, -1

    def __call__(self, seconds: float | None) -> int:
        """Return the tick of the next frame."""
        step = self._period if seconds is None else seconds - self._last
        if not 0 < step <= _LONGEST_GAP:
            step = self._period
        self._last = self._last + step if seconds is None else seconds
        self._tick = 0 if self._tick < 0 else self._tick + max(round(step * TICKS), 1)
        return self._tick


class TimedCamera(CameraFrames):
    """Frames of a camera of this machine, each with the time of its arrival."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._clock = TickClock(1 / float(self.rate))
        self.time_base = Fraction(1, TICKS)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for _, image in super().__iter__():
            yield self._clock(time.perf_counter()), image


class PlayedFrames:
    """Frames of a file, each delivered when it is shown.

    Args:
        path: The file.
        threads: Number of decoder threads.
    """

    pixel_aspect = 1.0
    arrived = 0.0

    def __init__(self, path: Path, threads: int) -> None:
        self._file = FileFrames(path, threads)
        self.rate, self.time_base = self._file.rate, self._file.time_base
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        start = time.perf_counter()
        for tick, image in self._file:
            shown = start + float(tick * self.time_base)
            while (wait := shown - time.perf_counter()) > 0:
                if self._closed.wait(min(wait, _NAP)):
                    return
            yield tick, image

    @property
    def missing(self) -> str | None:
        return self._file.missing

    def close(self) -> None:
        self._closed.set()
        self._file.close()


def find_live(places: Sequence[str], threads: int, *, play: bool = False) -> list[Source] | None:
    """Return the live sources among the places of a command line; None if they are files and folders.

    Args:
        places: Numbers of cameras, addresses of streams, files and folders.
        threads: Number of decoder threads of a file.
        play: Play files as live sources.

    Raises:
        UserError: If files are mixed with live sources without `play`, or a file cannot be played.
    """
    live = [is_camera(place) or is_address(place) for place in places]
    if not play and not any(live):
        return None
    sources: list[Source] = []
    for place, is_live in zip(places, live, strict=True):
        if not (is_live or play):
            raise UserError(
                f"{plain(place)} is a file, but {plain(redact(places[live.index(True)]))} is live. Predict them with "
                "two commands, or play files with --live"
            )
        sources += [_live(place, threads)] if is_live else _played(Path(place), threads)
    return [replace(source, record=replace(source.record, index=index)) for index, source in enumerate(sources)]


def _live(place: str, threads: int) -> Source:
    [source] = find_sources(place, threads).videos
    opened = functools.partial(TimedCamera, int(place)) if is_camera(place) else functools.partial(TimedStream, place)
    return replace(source, open=opened)


def _played(path: Path, threads: int) -> list[Source]:
    found = find_files([path], threads)
    if found.refused:
        raise UserError(f"--live: {found.refused[0].name}: {found.refused[0].reason}")
    return [
        Source(source.record, functools.partial(PlayedFrames, source.record.path, threads), live=True)
        for source in found.videos
    ]


class LiveFrame(NamedTuple):
    """Scaled frame of a live source."""

    tick: int
    seconds: float  # time of the source
    image: np.ndarray  # RGB, uint8 (H, W, 3)
    arrived: float  # perf_counter() when it was decoded


class LiveScale:
    """Scaling of the frames of live sources, as in testing: by area averaging, then as a view.

    Args:
        short_side: Short side (pixels) that larger frames are scaled down to first.
        transform: Scaling of a view.
    """

    def __init__(self, short_side: int, transform: ViewTransform) -> None:
        self._short_side, self._transform = short_side, transform

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Scale a frame, uint8 (H, W, 3) -> (H', W', 3)."""
        width, height = scaled_down(image.shape[1], image.shape[0], self._short_side)
        if (height, width) != image.shape[:2]:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        scaled: np.ndarray = self._transform(image[None])[0][0]
        return scaled


class LiveFrames(SourceThread):
    """Thread that opens a live source and reads its frames until it ends.

    Args:
        source: The source.
        scale: Scaling of its frames.
        arrived: Event to set when anything has happened.

    Attributes:
        rate: Nominal frames/s; None until the source is open.
        time_base: Seconds per tick.
    """

    def __init__(self, source: Source, scale: Callable[[np.ndarray], np.ndarray], arrived: threading.Event) -> None:
        record = source.record
        super().__init__(record.index, record.name, Connection(record.name, first_delay=0), arrived)
        self.source, self._scale = source, scale
        self.rate: Fraction | None = None
        self.time_base = Fraction(1)
        self._frames: deque[LiveFrame] = deque(maxlen=_BUFFERED)
        self.start()

    def take(self) -> list[LiveFrame]:
        """Return the frames that have arrived since the last call."""
        taken = []
        while self._frames:
            taken.append(self._frames.popleft())
        return taken

    @property
    def ended(self) -> bool:
        """True if no more frames will arrive and all were taken."""
        return self._done and not self._frames

    def read_once(self) -> None:
        """Open the source and read it until it ends."""
        try:
            video = self.source.open()
            try:
                self._read(video)
            finally:
                video.close()
        except UserError:
            raise
        except Exception as error:
            if not self._stop.is_set():
                self.error = self.reason(error)

    def _read(self, video: OpenVideo) -> None:
        self.time_base, self.rate = video.time_base, video.rate
        for tick, image in video:
            if self._stop.is_set():
                return
            arrived = time.perf_counter()
            self._frames.append(LiveFrame(tick, float(tick * video.time_base), self._scale(image), arrived))
            self._arrived.set()
        self.error = video.missing
