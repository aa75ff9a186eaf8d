"""Conversion of videos to recordings of a simulated event camera.

Notation: H x W pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.simulate import LUMA, EventSimulator, PixelNoise
from slowfast.datasets.resample import scaled_size
from slowfast.prepare.event_spool import save_events
from slowfast.prepare.files import ConvertedFile, Job, target_exists
from slowfast.prepare.jobs import Conversion, convert_files
from slowfast.utils.ray_cluster import LOCAL
from slowfast.utils.worker import still_working

SUFFIX = ".npz"
MAX_STEP = 0.5  # seconds between frames up to which motion is interpolated; longer gaps are not motion


@dataclass(frozen=True)
class EventSettings:
    """Settings of the simulated event camera.

    Args:
        height: Sensor height in pixels. Frames are scaled and center-cropped to the sensor.
        width: Sensor width in pixels.
        threshold_on: Increase of log intensity that fires an ON event.
        threshold_off: Decrease of log intensity that fires an OFF event.
        refractory: Time in microseconds in which a pixel that has fired stays silent.
        noise: Rate of noise events per pixel and second, independent of the intensity.
        threshold_sigma: Standard deviation of the thresholds over the pixels.
        leak: Rate of ON events per pixel and second by leakage.
        shot: Rate of shot noise per pixel and second in the dark; a quarter of it at full intensity.
        hot_pixels: Fraction of hot pixels.
        hot_rate: Rate of ON events of a hot pixel per second.
        cutoff: Cutoff frequency of the pixels at full intensity in Hz, lower in the dark; 0 for no low-pass filter.
        leak_jitter: Standard deviation of the leakage from frame to frame, relative to its rate.
        interpolate: Number of steps from one frame to the next, interpolated by optical flow; 1 for none.
        seed: Seed of the noise and of the pixels: all videos are recorded by the same camera.
    """

    height: int = 128
    width: int = 128
    threshold_on: float = 0.2
    threshold_off: float = 0.2
    refractory: float = 0.0
    noise: float = 0.0
    threshold_sigma: float = 0.0
    leak: float = 0.0
    shot: float = 0.0
    hot_pixels: float = 0.0
    hot_rate: float = 100.0
    cutoff: float = 0.0
    leak_jitter: float = 0.0
    interpolate: int = 4
    seed: int = 0


def videos_to_events(
    source: Path, target: Path, settings: EventSettings, workers: int, engine: str = LOCAL
) -> Conversion:
    """Simulate the events of all videos below `source` and write them to files below `target`.

    ``a/b.mp4`` becomes ``a/b.npz``. A file appears once it is complete; existing files are skipped. Failures are listed
    in failed.csv.

    Args:
        source: Folder of videos.
        target: Folder to write to, outside of `source`.
        settings: Settings of the simulated event camera.
        workers: Number of worker processes.
        engine: `LOCAL` or `RAY`, see :func:`~slowfast.prepare.jobs.run_jobs`.

    Raises:
        UserError: If a folder is unsuitable or the events cannot be written.
        DataError: If no video can be read.
    """
    work = partial(_convert_one, settings)
    return convert_files(work, source, target, workers, is_done=target_exists, target_suffix=SUFFIX, engine=engine)


def _convert_one(settings: EventSettings, job: Job) -> ConvertedFile:
    with PyAVReader(job.source) as video:
        events = events_of(video, settings)
        damage = video.error
    if not len(events):
        raise DecodeError("nothing in the video changes, so there are no events. Lower the thresholds")
    save_events(job.target, events)
    return ConvertedFile(damage)


def events_of(video: PyAVReader, settings: EventSettings) -> EventColumns:
    """Simulate the events of a video.

    Raises:
        DecodeError: If no frame can be decoded.
    """
    pixels = {field.name: getattr(settings, field.name) for field in fields(PixelNoise)}
    simulator = EventSimulator(
        np.random.default_rng(settings.seed),
        (settings.threshold_on, settings.threshold_off),
        settings.refractory,
        settings.noise,
        PixelNoise(**pixels),
    )
    times, convert = 1e6 * video.times(), RgbConverter()
    shown = ((times[index], fit(convert(frame), settings)) for index, frame in video.every_frame())
    parts = []
    for time, image in interpolate_frames(shown, settings.interpolate):
        still_working()
        parts.append(simulator.feed(image, time))
    if not parts:
        raise DecodeError(f"no frame can be decoded: {video.error or 'no error reported by the decoder'}")
    return EventColumns.join(*parts)


def fit(image: np.ndarray, settings: EventSettings) -> np.ndarray:
    """Scale and center-crop a frame to the sensor, in grayscale: RGB uint8 (H, W, 3) -> float32 (height, width)."""
    height, width = image.shape[:2]
    scale = max(settings.height / height, settings.width / width)
    short = round(min(height, width) * scale)
    rows, columns = scaled_size(height, width, short)
    rows, columns = max(rows, settings.height), max(columns, settings.width)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled: np.ndarray = cv2.resize(image.astype(np.float32) @ LUMA, (columns, rows), interpolation=method)
    top, left = (rows - settings.height) // 2, (columns - settings.width) // 2
    return scaled[top : top + settings.height, left : left + settings.width]


def interpolate_frames(frames: Iterator[tuple[float, np.ndarray]], steps: int) -> Iterator[tuple[float, np.ndarray]]:
    """Insert frames between consecutive ones; frames whose time does not increase are dropped.

    Args:
        frames: Times in microseconds and frames, float32 (H, W).
        steps: Number of steps from one frame to the next.
    """
    previous: tuple[float, np.ndarray] | None = None
    for time, image in frames:
        if previous is not None and time <= previous[0]:
            continue
        if previous is not None and steps > 1 and time - previous[0] <= 1e6 * MAX_STEP:
            yield from _interpolated(previous, (time, image), steps)
        yield time, image
        previous = time, image


def _interpolated(
    first: tuple[float, np.ndarray], second: tuple[float, np.ndarray], steps: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Warp both frames towards each other along their optical flow (DIS, Kroeger et al. 2016), and blend them."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    gray = [frame.clip(0, 255).astype(np.uint8) for _, frame in (first, second)]
    start = np.zeros((*first[1].shape, 2), np.float32)
    forward, backward = flow.calc(gray[0], gray[1], start.copy()), flow.calc(gray[1], gray[0], start)  # (H, W, 2): x, y
    for step in range(1, steps):
        share = step / steps
        images = [_warp(first[1], -share * forward), _warp(second[1], -(1 - share) * backward)]
        yield first[0] + share * (second[0] - first[0]), (1 - share) * images[0] + share * images[1]


def _warp(image: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Sample an image at each pixel plus an offset (H, W, 2)."""
    height, width = image.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + offset[..., 0], y + offset[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
