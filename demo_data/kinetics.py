"""Demo dataset in the Kinetics layout: H.264 videos whose class is a motion.

train.csv, val.csv, test.csv     one line `videos/left/train_00000.mp4 0` per video, paths relative to the folder
categories.txt                   one line `left<tab>0` per class
videos/<class>/<split>_<number>.mp4
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from demo_data.motion import MOTIONS
from demo_data.scene import render_clip
from demo_data.settings import SPLITS, DemoSettings

FPS = 30
ENCODING = {
    # High quality, so that coding artifacts, which are stronger where the object uncovers the background, do not reveal
    # the motion.
    "crf": "18",
    "preset": "veryfast",
    # About two keyframes per second, for fast seeking.
    "g": "16",
    # No lookahead: with it, the same frames give different files in about 2 % of cases, even with one thread.
    "x264-params": "b-adapt=0:mbtree=0:weightp=0:scenecut=0:rc-lookahead=0",
}


def list_samples(settings: DemoSettings) -> list[tuple[str, int]]:
    """Return split and number of each sample."""
    return [(split, number) for split in SPLITS for number in range(settings.count(split))]


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write one video, which depends only on settings, split and number."""
    motions = list(MOTIONS.items())
    name, motion = motions[number % len(motions)]
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    clip = render_clip(motion, settings.frames, settings.size, settings.width, rng)
    write_video(folder / video_path(split, number, name), clip)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt and the CSV file of each split."""
    write_lists(folder, settings, list(MOTIONS))


def write_lists(folder: Path, settings: DemoSettings, names: Sequence[str]) -> None:
    """Write them for samples whose classes take turns in the order of the names."""
    (folder / "categories.txt").write_text("".join(f"{name}\t{label}\n" for label, name in enumerate(names)))
    for split in SPLITS:
        labels = [number % len(names) for number in range(settings.count(split))]
        lines = [f"{video_path(split, number, names[label])} {label}\n" for number, label in enumerate(labels)]
        (folder / f"{split}.csv").write_text("".join(lines))


def video_path(split: str, number: int, name: str) -> str:
    """Return the path of a sample relative to the folder."""
    return f"videos/{name}/{split}_{number:05d}.mp4"


def write_video(path: Path, clip: np.ndarray) -> None:
    """Write an H.264 video, with one encoder thread so that the same frames give the same file.

    Args:
        path: File to write; missing folders are created.
        clip: RGB frames, uint8 of shape (T, H, W, 3) with even H and W.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODING)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in clip:
            planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
