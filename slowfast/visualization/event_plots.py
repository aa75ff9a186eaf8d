"""Event recordings to look at: films of accumulated events, and points in x, y and time.

n events, T frames, H height, W width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from slowfast.datasets.dvs.frames import accumulate
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.errors import UserError
from slowfast.utils.files import written_whole
from slowfast.visualization.plots import BLUE, RED, new_figure, save_png
from slowfast.visualization.video_writer import VideoFile, even_sides

SMALLEST = 240  # pixels of a film's short side, at least: small sensors are enlarged by a whole factor
MOST_FRAMES = 100_000  # of a film
POINTS = 20_000  # drawn of a recording, at most


def draw_events(
    events: EventColumns, sensor: tuple[int, int], target: Path, fps: int = 20, slower: float = 1.0
) -> None:
    """Write what the target's suffix says: .gif or .mp4, frames of accumulated events, `slower` times slower than they
    came; .png, points in x, y and time. Raises UserError for another suffix.
    """
    writers: dict[str, Callable[[Iterable[np.ndarray], Path, int], None]] = {".gif": _write_gif, ".mp4": _write_mp4}
    suffix = target.suffix.lower()
    if suffix == ".png":
        _draw_points(events, sensor, target)
        return
    if suffix not in writers:
        raise UserError(f"{target}: events are drawn as .gif, .mp4 or .png")
    seconds = slower * 1e-6 * float(events.t[-1] - events.t[0])
    if seconds * fps > MOST_FRAMES:
        raise UserError(f"{target}: {seconds:.3g} s would be more than {MOST_FRAMES} frames; lower --fps or cut them")
    with written_whole(target, suffix=suffix) as partial:
        writers[suffix](film(events, sensor, max(1, round(seconds * fps))), partial, fps)


def film(events: EventColumns, sensor: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """The events of `frames` equal parts of the time, one after another: uint8 (H, W, 3), small sensors enlarged."""
    factor = max(1, -(-SMALLEST // min(sensor)))
    ends = events.t[0] + (events.t[-1] - events.t[0]) * np.arange(1, frames) / frames
    rows = [0, *np.searchsorted(events.t, ends), len(events)]
    for start, end in itertools.pairwise(rows):
        part = events.take(np.arange(start, end))
        image = accumulate(part.x, part.y, part.t, part.p, sensor, frames=1)[0]
        yield image.repeat(factor, 0).repeat(factor, 1)


def _write_gif(images: Iterable[np.ndarray], path: Path, fps: int) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError(f'.gif needs Pillow ({error}): pip install "slowfast[plots]", or take .mp4') from error
    first, *rest = (Image.fromarray(image) for image in images)
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def _write_mp4(images: Iterable[np.ndarray], path: Path, fps: int) -> None:
    rate = Fraction(fps)
    with VideoFile(path, rate, 1 / rate) as out:
        for number, image in enumerate(images):
            out.write(even_sides(image), number)


def _draw_points(events: EventColumns, sensor: tuple[int, int], target: Path) -> None:
    """Time runs into the depth; of many events, evenly chosen ones."""
    shown = events.take(np.linspace(0, len(events) - 1, min(POINTS, len(events))).astype(np.int64))
    figure = new_figure(6.0, 5.0)
    axes = figure.add_subplot(projection="3d")
    colours = np.where(shown.p > 0, RED, BLUE)
    axes.scatter(1e-3 * (shown.t - shown.t[0]), shown.x, sensor[0] - 1 - shown.y, c=colours, s=0.6, linewidths=0)
    axes.set(xlabel="time, ms", ylabel="x", zlabel="y, up", ylim=(0, sensor[1]), zlim=(0, sensor[0]))
    figure.suptitle(f"{len(events)} events, {len(shown)} shown: red brighter, blue darker", fontsize=9)
    save_png(figure, target)
