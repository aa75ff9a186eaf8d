"""Drawings of event recordings: videos of accumulated events, and points in x, y and time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from slowfast.datasets.dvs.frames import accumulate
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.errors import UserError
from slowfast.utils.files import atomic_path
from slowfast.utils.imports import import_extra
from slowfast.visualization.plots import BLUE, RED, new_figure, save_png
from slowfast.visualization.video_writer import VideoWriter, pad_to_even

MIN_SIDE = 240  # pixels of the short side; smaller sensors are enlarged by an integer factor
MAX_FRAMES = 100_000  # frames per video
MAX_POINTS = 20_000  # points drawn per recording


def draw_events(
    events: EventColumns, sensor: tuple[int, int], target: Path, fps: int = 20, slower: float = 1.0
) -> None:
    """Draw a recording.

    Args:
        events: Events to draw.
        sensor: Height and width of the sensor in pixels.
        target: File to write: .gif or .mp4 for frames of accumulated events, .png for points in x, y and time.
        fps: Frames per second of the video.
        slower: Slow-motion factor of the video.

    Raises:
        UserError: For another suffix, or a video with too many frames.
    """
    writers: dict[str, Callable[[Iterable[np.ndarray], Path, int], None]] = {".gif": _write_gif, ".mp4": _write_mp4}
    suffix = target.suffix.lower()
    if suffix == ".png":
        _draw_points(events, sensor, target)
        return
    if suffix not in writers:
        raise UserError(f"{target}: unknown suffix. Events are drawn as .gif, .mp4 or .png")
    seconds = slower * 1e-6 * float(events.t[-1] - events.t[0])
    if seconds * fps > MAX_FRAMES:
        raise UserError(
            f"{target}: a video of {seconds:.3g} s has more than {MAX_FRAMES} frames. Lower --fps, or cut the recording"
        )
    with atomic_path(target, suffix=suffix) as partial:
        writers[suffix](event_frames(events, sensor, max(1, round(seconds * fps))), partial, fps)


def event_frames(events: EventColumns, sensor: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """Yield frames of the events accumulated over equal parts of the duration.

    Args:
        events: Events in time order.
        sensor: Height and width of the sensor in pixels.
        frames: Number of frames.

    Yields:
        uint8 (H, W, 3) RGB; small sensors are enlarged.
    """
    factor = max(1, -(-MIN_SIDE // min(sensor)))
    ends = events.t[0] + (events.t[-1] - events.t[0]) * np.arange(1, frames) / frames
    rows = [0, *np.searchsorted(events.t, ends), len(events)]
    for start, end in itertools.pairwise(rows):
        part = events.take(np.arange(start, end))
        image = accumulate(part.x, part.y, part.t, part.p, sensor, frames=1)[0]
        yield image.repeat(factor, 0).repeat(factor, 1)


def _write_gif(images: Iterable[np.ndarray], path: Path, fps: int) -> None:
    image_module = import_extra("PIL.Image", "plots", "--out: .gif", "write .mp4")
    first, *rest = (image_module.fromarray(image) for image in images)
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def _write_mp4(images: Iterable[np.ndarray], path: Path, fps: int) -> None:
    with VideoWriter(path, Fraction(fps), 1 / Fraction(fps)) as out:
        for number, image in enumerate(images):
            out.write(pad_to_even(image), number)


def _draw_points(events: EventColumns, sensor: tuple[int, int], target: Path) -> None:
    """Draw events as points, with time along the depth axis; if there are many, draw evenly spaced ones."""
    shown = events.take(np.linspace(0, len(events) - 1, min(MAX_POINTS, len(events))).astype(np.int64))
    figure = new_figure(6.0, 5.0)
    axes = figure.add_subplot(projection="3d")
    colors = np.where(shown.p > 0, RED, BLUE)
    axes.scatter(1e-3 * (shown.t - shown.t[0]), shown.x, sensor[0] - 1 - shown.y, c=colors, s=2.0, linewidths=0)
    axes.set(xlabel="time (ms)", ylabel="x (pixels)", zlabel="y, up (pixels)", ylim=(0, sensor[1]), zlim=(0, sensor[0]))
    figure.suptitle(f"{len(events)} events, {len(shown)} shown (red: brighter, blue: darker)", fontsize=9)
    save_png(figure, target)
