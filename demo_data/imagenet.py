"""Demo dataset in the ImageNet layout: JPEG images in class folders of each split.

train/n00000001/n00000001_0.JPEG, ...   val/ and test/ have the same class folders
categories.txt                          one line `disc<tab>0` per class
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demo_data.settings import SPLITS, DemoSettings
from demo_data.shapes import SHAPES, render_image
from demo_data.something import write_jpeg


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write one image, which depends only on settings, split and number."""
    names = list(SHAPES)
    label = number % len(names)
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    image = render_image(names[label], settings.size, settings.width, rng)
    class_folder = f"n{label + 1:08d}"
    path = folder / split / class_folder / f"{class_folder}_{number}.JPEG"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jpeg(path, image)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt; the class folders are the index."""
    (folder / "categories.txt").write_text("".join(f"{name}\t{label}\n" for label, name in enumerate(SHAPES)))
