"""Demo dataset in the Kinetics layout whose class is the color of a moving object, visible in every frame.

Models without temporal order can learn it. Position, size, rotation, motion and background are independent of the
class. The files are laid out as in kinetics.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from demo_data.kinetics import video_path, write_lists, write_video
from demo_data.motion import MOTIONS, draw_path
from demo_data.scene import animate, color
from demo_data.settings import SPLITS, DemoSettings

COLORS = ("red", "orange", "lime", "green", "cyan", "blue", "violet", "magenta")  # evenly spaced hues
SPREAD = 0.3  # maximum deviation from the hue of the class, relative to the spacing


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write one video, which depends only on settings, split and number."""
    label = number % len(COLORS)
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    clip = render_color_clip(label, settings.frames, settings.size, settings.width, rng)
    write_video(folder / video_path(split, number, COLORS[label]), clip)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt and the CSV file of each split."""
    write_lists(folder, settings, COLORS)


def render_color_clip(label: int, frames: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Render a clip of an object of one color in a random motion: RGB, uint8 (T, H, W, 3)."""
    motion = list(MOTIONS.values())[rng.integers(len(MOTIONS))]
    hue = (label + rng.uniform(-SPREAD, SPREAD)) / len(COLORS)
    return animate(draw_path(motion, frames, height, width, rng), height, width, partial(_shades, hue), rng)


def _shades(hue: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a light and a darker color of one hue."""
    return color(hue, rng.uniform(0.6, 1.0), rng.uniform(0.9, 1.0)), color(hue, rng.uniform(0.8, 1.0), 0.5)
