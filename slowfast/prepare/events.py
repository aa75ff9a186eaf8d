"""Videos to event recordings, as an event camera would have seen them.

H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.simulate import LUMA, EventSimulator, join_events
from slowfast.datasets.sampling import scaled_size
from slowfast.errors import UserError
from slowfast.prepare.jobs import Conversion, ConvertedFile, Job, convert_files, target_exists
from slowfast.utils.files import written_whole
from slowfast.utils.worker import still_working

SUFFIX = ".npz"
# Between frames shown no longer apart than this (seconds), movement is interpolated: a cut or a gap is none.
LONGEST_STEP = 0.5


@dataclass(frozen=True)
class EventSettings:
    """How events are made; raises UserError for values that cannot be used."""

    height: int = 128  # pixels of the sensor; a frame's middle that has its shape is scaled to it
    width: int = 128
    threshold_on: float = 0.2  # change of log intensity of an event
    threshold_off: float = 0.2
    refractory: float = 0.0  # microseconds in which a pixel that has fired stays silent
    noise: float = 0.0  # events a pixel and second that nothing causes
    interpolate: int = 4  # steps from one frame to the next, moved by optical flow; 1: none
    seed: int = 0  # of the noise

    def __post_init__(self) -> None:
        limits = (("height", 16, 4320), ("width", 16, 7680), ("threshold_on", 0.01, 5), ("threshold_off", 0.01, 5))
        for name, low, high in (*limits, ("refractory", 0, 1e6), ("noise", 0, 1000), ("interpolate", 1, 64)):
            if not low <= getattr(self, name) <= high:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {getattr(self, name)}: must be from {low} to {high}")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be at least 0")


def videos_to_events(source: Path, target: Path, settings: EventSettings, workers: int) -> Conversion:
    """Simulate the events of all videos below `source` and write them to files below `target`.

    ``a/b.mp4`` becomes ``a/b.npz``. A file appears once it is complete; existing files are skipped. Failures are listed
    in failed.csv.

    Args:
        source: Folder of videos.
        target: Folder to write to, outside of `source`.
        settings: Settings of the simulated event camera.
        workers: Number of worker processes.

    Raises:
        UserError: If a folder is unsuitable or the events cannot be written.
        DataError: If no video can be read.
    """
    work = partial(_convert_one, settings)
    return convert_files(work, source, target, workers, is_done=target_exists, target_suffix=SUFFIX)


def _convert_one(settings: EventSettings, job: Job) -> ConvertedFile:
    with PyAVReader(job.source) as video:
        events = events_of(video, settings)
        damage = video.error
    if not len(events):
        raise DecodeError("nothing in the video changes, so there are no events. Lower the thresholds")
    save_events(job.target, events)
    return ConvertedFile(damage)


def save_events(file: Path, events: EventColumns) -> None:
    """Write x, y (uint16), t (int64, microseconds) and p (uint8) as .npz, stored so that it can be mapped.

    The file appears whole or not at all; its folder is made. Raises OSError where the disk does not take it.
    """
    x, y = events.x.astype(np.uint16), events.y.astype(np.uint16)
    with written_whole(file) as part, part.open("wb") as opened:
        np.savez(opened, x=x, y=y, t=np.rint(events.t).astype(np.int64), p=events.p.astype(np.uint8))


def events_of(video: PyAVReader, settings: EventSettings) -> EventColumns:
    """The events of a whole video. Raises DecodeError where no frame of it can be decoded."""
    simulator = EventSimulator(
        np.random.default_rng(settings.seed),
        (settings.threshold_on, settings.threshold_off),
        settings.refractory,
        settings.noise,
    )
    times, convert = 1e6 * video.times(), RgbConverter()
    shown = ((times[index], fit(convert(frame), settings)) for index, frame in video.every_frame())
    parts = []
    for time, image in in_between(shown, settings.interpolate):
        still_working()
        parts.append(simulator.feed(image, time))
    if not parts:
        raise DecodeError(f"no frame can be decoded ({video.error or 'the decoder gave no error'})")
    return join_events(parts)


def fit(image: np.ndarray, settings: EventSettings) -> np.ndarray:
    """The grey of a frame's middle on the sensor: uint8 (H, W, 3), R G B -> float32 (height, width)."""
    height, width = image.shape[:2]
    scale = max(settings.height / height, settings.width / width)
    short = round(min(height, width) * scale)
    rows, columns = scaled_size(height, width, short)
    rows, columns = max(rows, settings.height), max(columns, settings.width)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled: np.ndarray = cv2.resize(image.astype(np.float32) @ LUMA, (columns, rows), interpolation=method)
    top, left = (rows - settings.height) // 2, (columns - settings.width) // 2
    return scaled[top : top + settings.height, left : left + settings.width]


def in_between(frames: Iterator[tuple[float, np.ndarray]], steps: int) -> Iterator[tuple[float, np.ndarray]]:
    """Frames and their times (microseconds), with steps - 1 more from each to the next; times that do not grow are
    left out.
    """
    before: tuple[float, np.ndarray] | None = None
    for time, image in frames:
        if before is not None and time <= before[0]:
            continue
        if before is not None and steps > 1 and time - before[0] <= 1e6 * LONGEST_STEP:
            yield from _interpolated(before, (time, image), steps)
        yield time, image
        before = time, image


def _interpolated(
    one: tuple[float, np.ndarray], other: tuple[float, np.ndarray], steps: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Both frames moved towards each other along their optical flow (DIS, Kroeger et al. 2016), and blended."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    whole = [frame.clip(0, 255).astype(np.uint8) for _, frame in (one, other)]
    start = np.zeros((*one[1].shape, 2), np.float32)
    forth, back = flow.calc(whole[0], whole[1], start.copy()), flow.calc(whole[1], whole[0], start)  # (H, W, 2): x, y
    for step in range(1, steps):
        share = step / steps
        images = [_moved(one[1], -share * forth), _moved(other[1], -(1 - share) * back)]
        yield one[0] + share * (other[0] - one[0]), (1 - share) * images[0] + share * images[1]


def _moved(image: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """What lies at each pixel's place plus its offset (H, W, 2)."""
    height, width = image.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + offset[..., 0], y + offset[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
