"""Formats of the demo datasets: what their samples show, and the layout of the files.

kinetics, kinetics_colors, kinetics_shapes: H.264 videos
    videos/<class>/<split>_<number>.mp4
    train.csv, val.csv, test.csv     one line `videos/left/train_00000.mp4 0` per video, paths relative to the folder
something: folders of JPEG frames, at 30 fps
    frames/<split>_<number>/00001.jpg, ...
    somesomev1_rgb_{train,validation,test}_split.txt   one line `train_00000 24 0` per video: folder, frames, label
imagenet: JPEG images; the class folders are the index
    <split>/n00000001/n00000001_0.JPEG, ...
events: event recordings with x, y, t (microseconds), p (0 or 1), uncompressed; the class folders are the index
    <split>/<class>/00000.npz, ...

All have categories.txt, with one line `left<tab>0` per class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from demo_data.events import render_events
from demo_data.scene import MOTIONS, animate, color, draw_path, render_clip
from demo_data.settings import SPLITS, DemoSettings
from demo_data.shapes import SHAPES, render_image, render_shape_clip
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.index.something import SPLIT_NAMES
from slowfast.visualization.video_writer import NO_LOOKAHEAD

FPS = 30
ENCODING = {
    # High quality, so that coding artifacts, which are stronger where the object uncovers the background, do not reveal
    # the motion.
    "crf": "18",
    "preset": "veryfast",
    # About two keyframes per second, for fast seeking.
    "g": "16",
    "x264-params": NO_LOOKAHEAD,
}
JPEG_QUALITY = 85
COLORS = ("red", "orange", "lime", "green", "cyan", "blue", "violet", "magenta")  # evenly spaced hues
SPREAD = 0.3  # maximum deviation from the hue of the class, relative to the spacing


@dataclass(frozen=True)
class Sample:
    """Sample of a demo dataset."""

    split: str
    number: int  # within the split
    label: int
    class_name: str

    @property
    def name(self) -> str:
        """Name without a suffix, unique in its class."""
        return f"{self.split}_{self.number:05d}"


# ------------------------------------------------------------------ contents
def render_motion(label: int, settings: DemoSettings, rng: np.random.Generator) -> np.ndarray:
    """Render a clip whose class is a motion: RGB, uint8 (T, H, W, 3)."""
    return render_clip(list(MOTIONS.values())[label], settings.frames, settings.size, settings.width, rng)


def render_color(label: int, settings: DemoSettings, rng: np.random.Generator) -> np.ndarray:
    """Render a clip whose class is the color of a moving object, visible in every frame: RGB, uint8 (T, H, W, 3).

    Models without temporal order can learn it. Position, size, rotation, motion and background are independent of the
    class.
    """
    motion = list(MOTIONS.values())[rng.integers(len(MOTIONS))]
    hue = (label + rng.uniform(-SPREAD, SPREAD)) / len(COLORS)
    path = draw_path(motion, settings.frames, settings.size, settings.width, rng)
    return animate(path, settings.size, settings.width, partial(_shades, hue), rng)


def _shades(hue: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a light and a darker color of one hue."""
    return color(hue, rng.uniform(0.6, 1.0), rng.uniform(0.9, 1.0)), color(hue, rng.uniform(0.8, 1.0), 0.5)


def render_shape(label: int, settings: DemoSettings, rng: np.random.Generator) -> np.ndarray:
    """Render a clip of a fixed camera whose class is the shape of a moving object: RGB, uint8 (T, H, W, 3).

    The shapes are those of the demo images, on which a model can be trained.
    """
    return render_shape_clip(list(SHAPES)[label], settings.frames, settings.size, settings.width, rng)


def render_shape_image(label: int, settings: DemoSettings, rng: np.random.Generator) -> np.ndarray:
    """Render an image of a shape: RGB, uint8 (H, W, 3)."""
    return render_image(list(SHAPES)[label], settings.size, settings.width, rng)


def render_recording(label: int, settings: DemoSettings, rng: np.random.Generator) -> EventColumns:
    """Simulate an event recording of a motion."""
    return render_events(list(MOTIONS.values())[label], settings, rng)


# ------------------------------------------------------------------ files
def write_video(path: Path, clip: np.ndarray) -> None:
    """Write an H.264 video, with one encoder thread so that the same frames give the same file.

    Args:
        path: File to write.
        clip: RGB frames, uint8 of shape (T, H, W, 3) with even H and W.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODING)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in clip:
            planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def write_frames(folder: Path, clip: np.ndarray) -> None:
    """Write RGB frames, uint8 (T, H, W, 3), as 00001.jpg and so on."""
    folder.mkdir()
    for number, frame in enumerate(clip, start=1):
        write_jpeg(folder / f"{number:05d}.jpg", frame)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an RGB image, uint8 (H, W, 3)."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise RuntimeError(f"{path}: this build of OpenCV cannot write JPEG files")
    path.write_bytes(data.tobytes())


def write_events(path: Path, events: EventColumns) -> None:
    """Write an event recording."""
    x, y, p = (column.astype(np.uint8) for column in (events.x, events.y, events.p))
    np.savez(path, x=x, y=y, t=np.rint(events.t).astype(np.int32), p=p)


@dataclass(frozen=True)
class Layout:
    """Layout of the files of a public dataset.

    Args:
        path: Returns the path of a sample, relative to the folder of the dataset.
        write: Writes the content of a sample to a path.
        list_name: Returns the name of the list of a split; None if the class folders are the index.
        list_line: Returns the line of a sample in it.
    """

    path: Callable[[Sample], str]
    write: Callable[[Path, Any], None]
    list_name: Callable[[str], str] | None = None
    list_line: Callable[[Sample, DemoSettings], str] = lambda sample, settings: ""


def _video_path(sample: Sample) -> str:
    return f"videos/{sample.class_name}/{sample.name}.mp4"


KINETICS = Layout(
    _video_path,
    write_video,
    lambda split: f"{split}.csv",
    lambda sample, settings: f"{_video_path(sample)} {sample.label}\n",
)
SOMETHING = Layout(
    lambda sample: f"frames/{sample.name}",
    write_frames,
    lambda split: f"somesomev1_rgb_{SPLIT_NAMES[split]}_split.txt",
    lambda sample, settings: f"{sample.name} {settings.frames} {sample.label}\n",
)
IMAGENET = Layout(
    lambda sample: "{0}/n{1:08d}/n{1:08d}_{2}.JPEG".format(sample.split, sample.label + 1, sample.number), write_jpeg
)
EVENTS = Layout(lambda sample: f"{sample.split}/{sample.class_name}/{sample.number:05d}.npz", write_events)


# ------------------------------------------------------------------ formats
@dataclass(frozen=True)
class DemoFormat:
    """Format of a demo dataset.

    Args:
        layout: Layout of the files.
        classes: Names of the classes, which take turns.
        render: Renders a sample from its label, the settings and a random generator.
        default: Default settings.
    """

    layout: Layout
    classes: Sequence[str]
    render: Callable[[int, DemoSettings, np.random.Generator], Any]
    default: DemoSettings = DemoSettings()

    def samples(self, settings: DemoSettings) -> list[Sample]:
        """Return all samples."""
        return [
            Sample(split, number, number % len(self.classes), self.classes[number % len(self.classes)])
            for split in SPLITS
            for number in range(settings.count(split))
        ]

    def write_sample(self, folder: Path, settings: DemoSettings, sample: Sample) -> None:
        """Render and write a sample, which depends only on settings, split and number."""
        rng = np.random.default_rng([settings.seed, SPLITS.index(sample.split), sample.number])
        path = folder / self.layout.path(sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.layout.write(path, self.render(sample.label, settings, rng))

    def write_index(self, folder: Path, settings: DemoSettings) -> None:
        """Write categories.txt and the list of each split."""
        names = "".join(f"{name}\t{label}\n" for label, name in enumerate(self.classes))
        (folder / "categories.txt").write_text(names)
        if self.layout.list_name is None:
            return
        for split in SPLITS:
            samples = [sample for sample in self.samples(settings) if sample.split == split]
            lines = [self.layout.list_line(sample, settings) for sample in samples]
            (folder / self.layout.list_name(split)).write_text("".join(lines))


# To add a format, add an entry.
FORMATS = {
    "kinetics": DemoFormat(KINETICS, tuple(MOTIONS), render_motion),
    "kinetics_colors": DemoFormat(
        KINETICS, COLORS, render_color, DemoSettings(format="kinetics_colors", train=1600, test=240, size=64, frames=24)
    ),
    "kinetics_shapes": DemoFormat(
        KINETICS,
        tuple(SHAPES),
        render_shape,
        DemoSettings(format="kinetics_shapes", train=8, val=8, test=64, size=64),
    ),
    "something": DemoFormat(
        SOMETHING,
        tuple(MOTIONS),
        render_motion,
        DemoSettings(format="something", train=1600, test=160, size=64, frames=16),
    ),
    "events": DemoFormat(
        EVENTS,
        tuple(MOTIONS),
        render_recording,
        DemoSettings(format="events", train=1280, test=160, size=48, frames=24),
    ),
    "imagenet": DemoFormat(
        IMAGENET,
        tuple(SHAPES),
        render_shape_image,
        DemoSettings(format="imagenet", train=4000, val=400, test=400, size=64),
    ),
}
