"""Heat maps over the frames of a clip; activity of event-driven inference, as event_activity.json and as a plot.

Live runs rewrite event_activity.json while frames arrive, so the many numbers are bytes in base64, which takes a tenth
of the time: ``heat`` is uint8 (side, side), 255 for a patch that was computed in each frame; ``shares`` is uint16
(stages, B), little-endian, in units of 1 / SHARE_LEVELS %, of the intervals that begin at the frames ``starts`` (B), at
the times ``times`` (B) in the unit ``time_unit``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from slowfast.utils.files import atomic_write_text
from slowfast.utils.text_files import to_json
from slowfast.visualization.plots import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    even_indices,
    jpeg,
    label_text,
    new_figure,
    save_png,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ACTIVITY_FILE = "event_activity.json"
MAX_BINS = 100  # points over time per video: curves of several stages stay legible
TIME_DIGITS = 6  # significant digits of a time
HEAT_LEVELS, SHARE_LEVELS = 255, 500  # levels for a fraction of 1, and levels per percent
_TIME_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
_UNITS_SHOWN = 3.0  # smallest duration of an axis in a unit; 1 s is always shown in seconds
MAX_FRAMES = 8  # frames shown per clip
FRAME_WIDTH, IMAGE_WIDTH = 1.6, 3.2  # inches: width of a frame of a clip, and of a single image
HEAT_ALPHA = 0.5  # opacity of the heat map
HEAT_COLORS, HEAT_COLORMAP = cv2.COLORMAP_INFERNO, "inferno"  # names in OpenCV and in matplotlib; perceptually uniform
TITLE_LETTERS = 10.0  # per inch


@dataclass(frozen=True)
class PatchActivity:
    """Activity of a video.

    Attributes:
        name: Name of the video or camera.
        image: First frame, as the network sees it, uint8 (P, P, 3) RGB.
        heat: Fraction of the frames in which each patch of the first stage was computed, (n, n) in [0, 1].
        starts: First frame of each of B intervals, (B,).
        seconds: Time of these frames in the video, or since a live source was opened, (B,).
        shares: Patches computed per stage in percent, mean over each interval, (B, stages).
        frames: Number of frames.
    """

    name: str
    image: np.ndarray
    heat: np.ndarray
    starts: np.ndarray
    seconds: np.ndarray
    shares: np.ndarray
    frames: int

    @property
    def times(self) -> tuple[np.ndarray, str]:
        """Times (B,) of the intervals, in seconds, minutes or hours, and that unit: s, min or h."""
        longest = float(self.seconds.max(initial=0.0))
        unit, size = next((one for one in _TIME_UNITS if longest >= _UNITS_SHOWN * one[1]), _TIME_UNITS[-1])
        return self.seconds / size, unit

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        first, shares = _merged(self.starts, self.shares, self.frames)
        times, unit = self.times
        levels = np.rint(HEAT_LEVELS * np.clip(self.heat, 0, 1)).astype(np.uint8)
        return {
            "name": self.name,
            "frames": self.frames,
            "starts": self.starts[first].tolist(),
            "times": [float(f"{time:.{TIME_DIGITS}g}") for time in times[first]],
            "time_unit": unit,
            "stages": shares.shape[1],
            "shares": _base64(np.rint(SHARE_LEVELS * shares.T).astype("<u2").tobytes()),
            "side": len(levels),
            "heat": _base64(levels.tobytes()),
            "image": _base64(jpeg(self.image)),
        }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _merged(starts: np.ndarray, shares: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Merge neighboring intervals so that at most MAX_BINS are left; their means are weighted by their frames.

    Returns:
        The first of the intervals that make up each one, and the shares.
    """
    size = max(-(-len(starts) // MAX_BINS), 1)
    first = np.arange(0, len(starts), size)
    counts = np.diff(np.append(starts, frames))
    sums = np.add.reduceat(shares * counts[:, None], first)
    return first, sums / np.add.reduceat(counts, first)[:, None]


def write_activity(videos: Iterable[PatchActivity], path: Path) -> None:
    """Write event_activity.json, completely or not at all."""
    atomic_write_text(path, to_json([video.as_dict() for video in videos]) + "\n", "OUTPUT_DIR")


def overlay(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend frames with a heat map.

    Args:
        frames: uint8 (T, H, W, 3) RGB.
        heat: Values in [0, 1] (T, H, W), from black over red to yellow.

    Returns:
        uint8 (T, H, W, 3) RGB.
    """
    levels = np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    colors = np.stack([cv2.applyColorMap(one, HEAT_COLORS)[:, :, ::-1] for one in levels])
    return np.rint((1 - HEAT_ALPHA) * frames + HEAT_ALPHA * colors).astype(np.uint8)


def draw_heat_map(frames: np.ndarray, heat: np.ndarray, title: str, note: str, path: Path) -> None:
    """Draw frames and below them the same frames with their heat map, as a PNG.

    At most MAX_FRAMES evenly spaced frames are drawn; a single image is drawn beside its heat map.

    Args:
        frames: uint8 (T, H, W, 3) RGB.
        heat: Values in [0, 1] (T, H, W).
        title: Text above.
        note: Text below.
        path: File to write.

    Raises:
        PlotsUnavailable: Without matplotlib.
    """
    shown = even_indices(len(frames), MAX_FRAMES)
    images = np.stack([frames[shown], overlay(frames, heat)[shown]])  # (2, F, H, W, 3)
    if len(shown) == 1:
        images = images.swapaxes(0, 1)
    rows, columns = images.shape[:2]
    across = IMAGE_WIDTH if rows == 1 else FRAME_WIDTH
    figure = new_figure(columns * across + 0.7, rows * across * frames.shape[1] / frames.shape[2] + 0.6)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, image in zip(grid.flat, images.reshape(-1, *frames.shape[1:]), strict=True):
        axes.set_axis_off()
        axes.imshow(image, interpolation="antialiased")
    _add_colorbar(figure, grid[-1], "relative\nactivation", 1)
    letters = round(TITLE_LETTERS * columns * across)
    figure.suptitle(label_text(title, letters), fontsize=10, color=INK)
    figure.supxlabel(label_text(note, round(1.5 * letters)), fontsize=7, color=GRAY)
    save_png(figure, path)


def draw_activity(activity: PatchActivity, note: str, path: Path) -> None:
    """Draw event-driven activity as a PNG: how often each patch was computed, and the percentage over time.

    Args:
        activity: Activity of a video, whose name is the title. The first and the last stage are drawn.
        note: Text below.
        path: File to write.

    Raises:
        PlotsUnavailable: Without matplotlib.
    """
    image, heat, shares = activity.image, activity.heat, activity.shares
    figure = new_figure(10.0, 3.4)
    place, time = figure.subplots(1, 2, width_ratios=(1.2, 2.4))
    larger = cv2.resize(heat.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    place.imshow(overlay(image[None], larger[None])[0], interpolation="nearest")
    place.set_axis_off()
    place.set_title(f"stage 1: {100 * heat.mean():.0f} % of the patches computed", fontsize=9, color=INK)
    _add_colorbar(figure, [place], "patch computed in (% of the frames)", 100)
    times, unit = activity.times
    for stage, color in ((len(shares[0]) - 1, ORANGE), (0, BLUE)):
        time.plot(times, shares[:, stage], color=color, linewidth=1.2, label=f"stage {stage + 1}")
    time.set_ylim(0, 105)
    time.set_xlabel(f"time ({unit})", fontsize=9, color=INK)
    time.set_ylabel("patches computed (%)", fontsize=9, color=INK)
    time.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    style_axes(time)
    figure.suptitle(label_text(activity.name, 80), fontsize=11, color=INK)
    figure.supxlabel(note, fontsize=8, color=GRAY)
    save_png(figure, path)


def _add_colorbar(figure: Figure, all_axes: Sequence[Axes], title: str, largest: float) -> None:
    """Add a color bar from 0 to `largest`, with the colors as they appear on gray frames."""
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=HEAT_COLORMAP), ax=list(all_axes), fraction=0.05, pad=0.02)
    bar.set_ticks([0.0, 0.5, 1.0], labels=[f"{largest * share:g}" for share in (0.0, 0.5, 1.0)])
    bar.set_label(title, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    bar.outline.set_visible(False)
