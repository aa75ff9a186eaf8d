"""Demo data in the Kinetics layout whose class is the colour of a moving object: every frame tells it.

So networks that know no order of frames can learn it. Place, size, turn, motion and background say nothing about the
class. The files are those of kinetics.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from demo_data.kinetics import video_path, write_lists, write_video
from demo_data.motion import MOTIONS, draw_path
from demo_data.scene import animate, colour
from demo_data.settings import SPLITS, DemoSettings

COLOURS = ("red", "orange", "lime", "green", "cyan", "blue", "violet", "magenta")  # an eighth of the circle apart
SPREAD = 0.3  # of a clip's hue about its class's, at most, in distances of two classes


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write one video; its content depends on nothing but the settings, the split and the number."""
    label = number % len(COLOURS)
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    clip = render_colour_clip(label, settings.frames, settings.size, settings.width, rng)
    write_video(folder / video_path(split, number, COLOURS[label]), clip)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt and the csv file of each split."""
    write_lists(folder, settings, COLOURS)


def render_colour_clip(label: int, frames: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A clip of an object of one of COLOURS in a random motion: uint8 (T, H, W, 3), R G B."""
    motion = list(MOTIONS.values())[rng.integers(len(MOTIONS))]
    hue = (label + rng.uniform(-SPREAD, SPREAD)) / len(COLOURS)
    return animate(draw_path(motion, frames, height, width, rng), height, width, partial(_shades, hue), rng)


def _shades(hue: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A light and a darker colour of one hue."""
    return colour(hue, rng.uniform(0.6, 1.0), rng.uniform(0.9, 1.0)), colour(hue, rng.uniform(0.8, 1.0), 0.5)
