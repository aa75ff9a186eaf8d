"""The motions that are the classes of the demo data, as paths of an object through a clip.

T frames. The clip's world is a torus: what leaves the frame on one side comes back on the other, and a size that has
reached one end of its range goes on from the other end. So at every instant of every class the object's centre is
uniform over the frame, its angle uniform over the circle and its size log-uniform over one range, all independent:
no single frame tells the class. A path run backwards is distributed as a path of the opposite class, so a network that
does not know the order of the frames cannot tell a class from its opposite and gets half of them right at best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Ranges of what is drawn for each clip. Lengths are shares of the frame's height, times are frames. From one frame to
# the next the object's edge moves by 0.5 to 2.5 pixels of the standard 96: small steps, which a small network learns
# to see within minutes.
RADIUS = (0.18, 0.42)  # of the object
SPEED = (0.008, 0.012)  # of left, right, up and down, a frame
TURN_RATE = (0.05, 0.08)  # of the turning classes, radians a frame
GROWTH_RATE = (0.020, 0.028)  # of nearer and farther: share of the size range (log scale) passed a frame


@dataclass(frozen=True)
class Motion:
    """What a class does: shift as (down, right), turn 1 for clockwise, growth 1 for nearer; -1 for the opposite."""

    shift: tuple[int, int] = (0, 0)
    turn: int = 0
    growth: int = 0


MOTIONS: dict[str, Motion] = {
    "left": Motion(shift=(0, -1)),
    "right": Motion(shift=(0, 1)),
    "up": Motion(shift=(-1, 0)),
    "down": Motion(shift=(1, 0)),
    "clockwise": Motion(turn=1),
    "counter-clockwise": Motion(turn=-1),
    "nearer": Motion(growth=1),
    "farther": Motion(growth=-1),
}


@dataclass(frozen=True)
class Path:
    """Where the object is in each frame of a clip."""

    centre: np.ndarray  # float64 (T, 2): y in [0, height), x in [0, width), pixels
    radius: np.ndarray  # float64 (T,): pixels
    angle: np.ndarray  # float64 (T,): radians, growing clockwise on the screen


def draw_path(
    motion: Motion, frames: int, height: int, width: int, rng: np.random.Generator, step: float = 1.0
) -> Path:
    """A random path of a motion through `frames` frames of height x width pixels, `step` frame times apart.

    The turning classes turn the object about its centre, which stays where it is. Every class draws the same numbers,
    so that clips of two classes made from one generator state differ in their motion alone.
    """
    time = step * np.arange(frames)  # (T,)
    start = rng.uniform((0.0, 0.0), (height, width))
    angle = rng.uniform(0.0, 2.0 * np.pi)
    phase = rng.uniform()
    speed = rng.uniform(*SPEED) * height
    turn_rate = rng.uniform(*TURN_RATE)
    growth_rate = rng.uniform(*GROWTH_RATE)

    centre = start + speed * time[:, None] * np.array(motion.shift)  # (T, 2)
    phases = np.mod(phase + motion.growth * growth_rate * time, 1.0)
    smallest, largest = RADIUS
    radius = height * smallest * (largest / smallest) ** phases
    return Path(np.mod(centre, (height, width)), radius, angle + motion.turn * turn_rate * time)
