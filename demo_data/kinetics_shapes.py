"""Demo dataset in the Kinetics layout whose class is the shape of a moving object, seen by a fixed camera.

The shapes are those of the demo images, on which a model can be trained. The files are laid out as in kinetics.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demo_data.kinetics import video_path, write_lists, write_video
from demo_data.settings import SPLITS, DemoSettings
from demo_data.shapes import SHAPES, render_shape_clip


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write one video, which depends only on settings, split and number."""
    name = list(SHAPES)[number % len(SHAPES)]
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    clip = render_shape_clip(name, settings.frames, settings.size, settings.width, rng)
    write_video(folder / video_path(split, number, name), clip)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt and the CSV file of each split."""
    write_lists(folder, settings, list(SHAPES))
