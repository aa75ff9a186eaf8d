"""Demo data in the Kinetics layout: H.264 .mp4 files, one csv a split and categories.txt.

train.csv, val.csv, test.csv     `videos/left/train_00000.mp4 0` a line, paths relative to the folder
categories.txt                   `left<tab>0` a line
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
    # Constant rate factor: fine enough that traces of the coding (worse where the object uncovers the background) do
    # not give the motion away.
    "crf": "18",
    "preset": "veryfast",
    # A key frame about twice a second: reading from the middle of so short a clip then costs little.
    "g": "16",
    # The encoder decides nothing by looking ahead: with that on, the same frames gave another file in some 2 of 100
    # cases, one thread or not.
    "x264-params": "b-adapt=0:mbtree=0:weightp=0:scenecut=0:rc-lookahead=0",
}


def list_samples(settings: DemoSettings) -> list[tuple[str, int]]:
    """All samples to make, as (split, number in the split)."""
    return [(split, number) for split in SPLITS for number in range(settings.count(split))]


def write_sample(folder: Path, settings: DemoSettings, split: str, number: int) -> None:
    """Render and write one video; its content depends on nothing but the settings, the split and the number."""
    motions = list(MOTIONS.items())
    name, motion = motions[number % len(motions)]
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    clip = render_clip(motion, settings.frames, settings.size, settings.width, rng)
    write_video(folder / video_path(split, number, name), clip)


def write_index(folder: Path, settings: DemoSettings) -> None:
    """Write categories.txt and the csv file of each split."""
    write_lists(folder, settings, list(MOTIONS))


def write_lists(folder: Path, settings: DemoSettings, names: Sequence[str]) -> None:
    """The same for samples that are of the named classes in turn."""
    (folder / "categories.txt").write_text("".join(f"{name}\t{label}\n" for label, name in enumerate(names)))
    for split in SPLITS:
        labels = [number % len(names) for number in range(settings.count(split))]
        lines = [f"{video_path(split, number, names[label])} {label}\n" for number, label in enumerate(labels)]
        (folder / f"{split}.csv").write_text("".join(lines))


def video_path(split: str, number: int, name: str) -> str:
    """Where a sample of the named class goes, from the folder."""
    return f"videos/{name}/{split}_{number:05d}.mp4"


def write_video(path: Path, clip: np.ndarray) -> None:
    """Write frames uint8 (T, H, W, 3), R G B, H and W even, as H.264; the folder is made if need be.

    One encoder thread, so that the same frames give the same file.
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
