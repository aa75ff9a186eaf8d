"""Demo data in the Kinetics layout whose class is the shape of a moving object, seen by a camera that stands still.

The shapes are those of the demo images, which a network can be trained on. The files are those of kinetics.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demo_data.kinetics import video_path, write_lists, write_video
from demo_data.settings import SPLITS, DemoSettings
from demo_data.shapes import SHAPES, render_shape_clip


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write one video; its content depends on nothing but the settings, the split and the number."""
    name = list(SHAPES)[number % len(SHAPES)]
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    clip = render_shape_clip(name, settings.frames, settings.size, settings.width, rng)
    write_video(folder / video_path(split, number, name), clip)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt and the csv file of each split."""
    write_lists(folder, settings, list(SHAPES))
