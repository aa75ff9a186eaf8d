"""Demo event recordings: simulated events of a moving object.

The object stays in view. The accumulated events of a motion and of its opposite look the same; only the timestamps
tell them apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from demo_data.scene import Motion, Path, animate, two_colors
from demo_data.settings import DemoSettings
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.simulate import EventSimulator

FPS = 30
STEPS = 4  # rendered frames per frame of the settings
THRESHOLD = (0.4, 0.4)
NOISE = 0.1  # events per pixel and second
NEGATIVES = 0.5  # probability of swapped polarities, so that polarity does not tell which side of an object leads
# Ranges of the random parameters of a recording; lengths are relative to the frame height.
OFF_CENTER = 0.08  # maximum offset of the midpoint of the path
DISTANCE = (0.35, 0.50)  # length of the path of left, right, up and down
ORBIT, TURN = 0.22, (1.8, 2.8)  # radius and angle (radians) of the orbit of the rotating classes
RADIUS = (0.14, 0.34)  # size range of the object
SIZE_SHARE = (0.2, 0.5)  # position in that range (log scale) for classes of constant size


def render_events(motion: Motion, settings: DemoSettings, rng: np.random.Generator) -> EventColumns:
    """Simulate the events of a moving object."""
    path = draw_path_in_view(motion, settings.frames * STEPS, settings.size, settings.width, rng)
    clip = animate(path, settings.size, settings.width, two_colors, rng, 1 / STEPS)
    simulator = EventSimulator(rng, THRESHOLD, noise=NOISE)
    parts = [simulator.feed(frame, 1e6 * at / (FPS * STEPS)) for at, frame in enumerate(clip)]
    events = EventColumns.join(*parts)
    if rng.random() < NEGATIVES:
        events = replace(events, p=1 - events.p)
    return events


def draw_path_in_view(motion: Motion, frames: int, height: int, width: int, rng: np.random.Generator) -> Path:
    """Draw a random path of a motion inside the frame; all classes draw the same random numbers."""
    share = np.linspace(0.0, 1.0, frames)  # (T,), position along the path
    middle = np.array([height, width]) / 2 + rng.uniform(-OFF_CENTER, OFF_CENTER, 2) * height
    distance, turn = rng.uniform(*DISTANCE) * height, rng.uniform(*TURN)
    angle, size = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*SIZE_SHARE)
    center = middle + (share - 0.5)[:, None] * distance * np.array(motion.shift)  # (T, 2)
    turned = angle + motion.turn * turn * share
    if motion.turn:
        center = center + ORBIT * height * np.stack([np.sin(turned), np.cos(turned)], 1)
    grown = 0.5 + motion.growth * (share - 0.5) if motion.growth else np.full(frames, size)
    smallest, largest = RADIUS
    return Path(center, height * smallest * (largest / smallest) ** grown, turned)
