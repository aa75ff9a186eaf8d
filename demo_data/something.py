"""Demo dataset in the Something-Something layout: folders of JPEG frames.

somesomev1_rgb_{train,validation,test}_split.txt   one line `train_00000 24 0` per video: folder, frames, label
categories.txt                                     one line `left<tab>0` per class
frames/<split>_<number>/00001.jpg, ...             at 30 fps
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo_data.motion import MOTIONS
from demo_data.scene import render_clip
from demo_data.settings import SPLITS, DemoSettings
from slowfast.datasets.index.something import SPLIT_NAMES

JPEG_QUALITY = 85


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write the frames of one video, which depend only on settings, split and number."""
    motions = list(MOTIONS.values())
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    clip = render_clip(motions[number % len(motions)], settings.frames, settings.size, settings.width, rng)
    write_frames(folder / "frames" / _name(split, number), clip)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt and the list of each split."""
    (folder / "categories.txt").write_text("".join(f"{name}\t{label}\n" for label, name in enumerate(MOTIONS)))
    for split in SPLITS:
        numbers = range(settings.count(split))
        lines = [f"{_name(split, number)} {settings.frames} {number % len(MOTIONS)}\n" for number in numbers]
        (folder / f"somesomev1_rgb_{SPLIT_NAMES[split]}_split.txt").write_text("".join(lines))


def _name(split: str, number: int) -> str:
    return f"{split}_{number:05d}"


def write_frames(folder: Path, clip: np.ndarray) -> None:
    """Write RGB frames, uint8 (T, H, W, 3), as 00001.jpg and so on; missing folders are created."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(clip, start=1):
        write_jpeg(folder / f"{number:05d}.jpg", frame)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an RGB image, uint8 (H, W, 3)."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise RuntimeError(f"{path}: this build of OpenCV cannot write JPEG files")
    path.write_bytes(data.tobytes())
