"""Demo data of event recordings: folders of class folders of .npz files, as an event camera would have seen an object.

train/left/00000.npz, ...     x, y, t (microseconds), p (0, 1), stored without compression; val/ and test/ alike
categories.txt                `left<tab>0` a line

The object stays in view. A recording of left (up, ...) run backwards looks like one of its opposite when its events are
added up: the times of the events tell them apart.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as FilePath

import numpy as np

from demo_data.motion import MOTIONS, Motion, Path
from demo_data.scene import animate, two_colours
from demo_data.settings import SPLITS, DemoSettings
from slowfast.datasets.dvs.simulate import EventSimulator, join_events

FPS = 30
STEPS = 4  # rendered frames for each of the settings' frames
THRESHOLD = (0.4, 0.4)
NOISE = 0.1  # events a pixel and second
NEGATIVES = 0.5  # share with light and dark (log intensity) exchanged: no polarity tells which side of an object leads
# Ranges of what is drawn for each recording; lengths are shares of the frame's height.
OFF_CENTRE = 0.08  # of the middle of the path, at most
DISTANCE = (0.35, 0.50)  # from start to end of left, right, up, down
ORBIT, TURN = 0.22, (1.8, 2.8)  # radius and angle (radians) of the turning classes' way about the middle
RADIUS = (0.14, 0.34)  # of the object
SIZE_SHARE = (0.2, 0.5)  # of that range (log scale), of a class that does not grow


def write_sample(folder: FilePath, settings: DemoSettings, split: str, number: int) -> None:
    """Render, simulate and write one recording; it depends on nothing but the settings, the split and the number."""
    name, motion = list(MOTIONS.items())[number % len(MOTIONS)]
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    path = draw_path_in_view(motion, settings.frames * STEPS, settings.size, settings.width, rng)
    clip = animate(path, settings.size, settings.width, two_colours, rng, 1 / STEPS)
    simulator = EventSimulator(rng, THRESHOLD, noise=NOISE)
    events = join_events([simulator.feed(frame, 1e6 * at / (FPS * STEPS)) for at, frame in enumerate(clip)])
    if rng.random() < NEGATIVES:
        events = replace(events, p=1 - events.p)
    file = folder / split / name / f"{number:05d}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    x, y, p = (column.astype(np.uint8) for column in (events.x, events.y, events.p))
    np.savez(file, x=x, y=y, t=np.rint(events.t).astype(np.int32), p=p)


def write_index(folder: FilePath, settings: DemoSettings) -> None:
    """Write categories.txt; the class folders are the index."""
    (folder / "categories.txt").write_text("".join(f"{name}\t{label}\n" for label, name in enumerate(MOTIONS)))


def draw_path_in_view(motion: Motion, frames: int, height: int, width: int, rng: np.random.Generator) -> Path:
    """A random path of a motion that does not leave the frame; every class draws the same numbers."""
    share = np.linspace(0.0, 1.0, frames)  # (T,) of the way
    middle = np.array([height, width]) / 2 + rng.uniform(-OFF_CENTRE, OFF_CENTRE, 2) * height
    distance, turn = rng.uniform(*DISTANCE) * height, rng.uniform(*TURN)
    angle, size = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*SIZE_SHARE)
    centre = middle + (share - 0.5)[:, None] * distance * np.array(motion.shift)  # (T, 2)
    turned = angle + motion.turn * turn * share
    if motion.turn:
        centre = centre + ORBIT * height * np.stack([np.sin(turned), np.cos(turned)], 1)
    grown = 0.5 + motion.growth * (share - 0.5) if motion.growth else np.full(frames, size)
    smallest, largest = RADIUS
    return Path(centre, height * smallest * (largest / smallest) ** grown, turned)
