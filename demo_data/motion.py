"""Motions, the classes of the demo videos, as random paths of an object.

Positions wrap around the frame and sizes wrap around their range. At every time and for every class, the center is
therefore uniform over the frame, the angle uniform over the circle and the size log-uniform over its range, all
independent: no single frame reveals the class. A reversed path has the distribution of the opposite class, so a model
that ignores the order of the frames reaches a top-1 accuracy of 50 % at best.

Notation: T frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Ranges of the random parameters of a clip; lengths are relative to the frame height, times are in frames. At the
# default height of 96 pixels, the edge of the object moves by 0.5 to 2.5 pixels per frame: a small model learns to see
# such small steps within minutes.
RADIUS = (0.18, 0.42)  # radius of the object
SPEED = (0.008, 0.012)  # speed of left, right, up and down, per frame
TURN_RATE = (0.05, 0.08)  # speed of the rotating classes, radians per frame
GROWTH_RATE = (0.020, 0.028)  # speed of nearer and farther: fraction of the size range (log scale) per frame


@dataclass(frozen=True)
class Motion:
    """Motion of a class.

    Args:
        shift: Direction, (down, right).
        turn: 1 for clockwise, -1 for counter-clockwise.
        growth: 1 for nearer, -1 for farther.
    """

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
    """Path of the object through a clip.

    Args:
        center: Center in pixels, float64 (T, 2): y in [0, height), x in [0, width).
        radius: Radius in pixels, float64 (T,).
        angle: Angle in radians, clockwise, float64 (T,).
    """

    center: np.ndarray
    radius: np.ndarray
    angle: np.ndarray


def draw_path(
    motion: Motion, frames: int, height: int, width: int, rng: np.random.Generator, step: float = 1.0
) -> Path:
    """Draw a random path of a motion.

    The rotating classes rotate the object about its center. All classes draw the same random numbers, so that clips of
    two classes from the same generator state differ only in their motion.

    Args:
        motion: Motion of the class.
        frames: Number of frames.
        height: Frame height in pixels.
        width: Frame width in pixels.
        rng: Random generator.
        step: Time between frames, relative to the frame period.
    """
    time = step * np.arange(frames)  # (T,)
    start = rng.uniform((0.0, 0.0), (height, width))
    angle = rng.uniform(0.0, 2.0 * np.pi)
    phase = rng.uniform()
    speed = rng.uniform(*SPEED) * height
    turn_rate = rng.uniform(*TURN_RATE)
    growth_rate = rng.uniform(*GROWTH_RATE)

    center = start + speed * time[:, None] * np.array(motion.shift)  # (T, 2)
    phases = np.mod(phase + motion.growth * growth_rate * time, 1.0)
    smallest, largest = RADIUS
    radius = height * smallest * (largest / smallest) ** phases
    return Path(np.mod(center, (height, width)), radius, angle + motion.turn * turn_rate * time)
