"""Demo clips: random motions of a textured object over a moving textured background.

The motions are the classes. Positions wrap around the frame and sizes wrap around their range. At every time and for
every class, the center is therefore uniform over the frame, the angle uniform over the circle and the size log-uniform
over its range, all independent: no single frame reveals the class. A reversed path has the distribution of the opposite
class, so a model that ignores the order of the frames reaches a top-1 accuracy of 50 % at best.

Notation: T frames, H height, W width.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

# Ranges of the random parameters of a clip; lengths are relative to the frame height, times are in frames. At the
# default height of 96 pixels, the edge of the object moves by 0.5 to 2.5 pixels per frame: a small model learns to see
# such small steps within minutes.
RADIUS = (0.18, 0.42)  # radius of the object
SPEED = (0.008, 0.012)  # speed of left, right, up and down, per frame
TURN_RATE = (0.05, 0.08)  # speed of the rotating classes, radians per frame
GROWTH_RATE = (0.020, 0.028)  # speed of nearer and farther: fraction of the size range (log scale) per frame
PATCH = 64  # side of the object image in pixels
EXTENT = 1.25  # half that side in radii of the object, with room for its bumps
BACKGROUND_SPEED = (0.001, 0.004)  # background speed relative to the frame height, per frame

Colors = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]  # draws the two colors of an object


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


def render_clip(
    motion: Motion, frames: int, height: int, width: int, rng: np.random.Generator, step: float = 1.0
) -> np.ndarray:
    """Render a clip of one motion with random colors, textures and background: RGB, uint8 (T, H, W, 3).

    Args:
        motion: Motion of the object.
        frames: Number of frames.
        height: Frame height in pixels.
        width: Frame width in pixels.
        rng: Random generator.
        step: Time between frames, relative to the frame period.
    """
    return animate(draw_path(motion, frames, height, width, rng, step), height, width, two_colors, rng, step)


def animate(
    path: Path,
    height: int,
    width: int,
    colors: Colors,
    rng: np.random.Generator,
    step: float = 1.0,
    background_speed: tuple[float, float] = BACKGROUND_SPEED,
) -> np.ndarray:
    """Render a clip of a textured object on a path with a random background: RGB, uint8 (T, H, W, 3).

    Args:
        path: Path of the object.
        height: Frame height in pixels.
        width: Frame width in pixels.
        colors: Draws the two colors of the object.
        rng: Random generator.
        step: Time between frames, relative to the frame period.
        background_speed: Range of the background's speed, relative to the frame height, per frame.
    """
    background = draw_background(height, width, rng)
    patch = _draw_object(colors, rng)
    direction = rng.uniform(0.0, 2.0 * np.pi)
    drift = rng.uniform(*background_speed) * height * np.array([np.sin(direction), np.cos(direction)])
    clip = np.empty((len(path.radius), height, width, 3), np.uint8)
    for t in range(len(clip)):
        canvas = scroll(background, drift * (step * t))
        paint(canvas, patch, path, t)
        clip[t] = np.rint(canvas)
    return clip


def draw_background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw periodic soft clouds of two dull colors: float32 (H, W, 3) in [0, 255]."""
    clouds = noise(height, width, wavelength=height / 4, rng=rng)
    hue = rng.uniform()
    dark = color(hue, rng.uniform(0.15, 0.45), rng.uniform(0.25, 0.35))
    light = color(hue + rng.uniform(-0.15, 0.15), rng.uniform(0.15, 0.45), rng.uniform(0.40, 0.50))
    return dark + (light - dark) * clouds[:, :, None]


def two_colors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bright and a dark color of random hues: RGB in [0, 255], float32 (3,) each."""
    hue = rng.uniform()
    one = color(hue, rng.uniform(0.3, 0.9), rng.uniform(0.9, 1.0))
    return one, color(hue + rng.uniform(0.3, 0.7), rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.4))


def _draw_object(draw_colors: Colors, rng: np.random.Generator) -> np.ndarray:
    """Draw a bumpy, spotted disc: float32 (PATCH, PATCH, 4), RGB times coverage, and coverage in [0, 1]."""
    axis = ((np.arange(PATCH) + 0.5) / PATCH * 2.0 - 1.0) * EXTENT
    y, x = np.meshgrid(axis, axis, indexing="ij")
    bumps, start = rng.integers(2, 6), rng.uniform(0.0, 2.0 * np.pi)
    edge = 1.0 + 0.15 * np.cos(bumps * np.arctan2(y, x) + start)  # radius of the outline in this direction
    inside = edge - np.hypot(y, x)
    pixel = 2.0 * EXTENT / PATCH
    coverage = np.clip(inside / pixel + 0.5, 0.0, 1.0)
    rim = np.clip((0.12 - inside) / pixel, 0.0, 1.0)

    blots = np.clip((noise(PATCH, PATCH, wavelength=PATCH / 3, rng=rng) - 0.5) * 5.0 + 0.5, 0.0, 1.0)
    one, other = draw_colors(rng)
    colors = one + (other - one) * blots[:, :, None]
    colors *= 1.0 - 0.85 * rim[:, :, None]
    return np.concatenate([colors * coverage[:, :, None], coverage[:, :, None]], axis=2).astype(np.float32)


def noise(height: int, width: int, wavelength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw periodic smooth noise in [0, 1] of a typical wavelength in pixels: float32 (height, width)."""
    rows = np.fft.fftfreq(height)[:, None]
    columns = np.fft.rfftfreq(width)[None, :]
    band = np.exp(-0.5 * (np.hypot(rows, columns) * wavelength - 1.0) ** 2 / 0.35**2)
    band[0, 0] = 0.0  # no constant part
    values = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * band, s=(height, width))
    return np.clip(0.5 + values / (4.0 * values.std()), 0.0, 1.0).astype(np.float32)


def color(hue: float, saturation: float, value: float) -> np.ndarray:
    """Convert a color to RGB in [0, 255]: float32 (3,)."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32) * 255.0


def scroll(texture: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Shift a periodic texture by (y, x) pixels, with linear interpolation."""
    height, width = texture.shape[:2]
    y, x = np.mod(offset, (height, width))
    inverse = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y]])
    return cv2.warpAffine(
        texture,
        inverse,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )


def paint(canvas: np.ndarray, patch: np.ndarray, path: Path, t: int) -> None:
    """Draw the object at time t on the canvas in place, repeated where it crosses an edge."""
    height, width = canvas.shape[:2]
    reach = path.radius[t] * EXTENT * np.sqrt(2.0)
    scale = 2.0 * path.radius[t] * EXTENT / PATCH  # frame pixels per patch pixel
    turn = scale * np.array(
        [[np.cos(path.angle[t]), -np.sin(path.angle[t])], [np.sin(path.angle[t]), np.cos(path.angle[t])]]
    )
    for y, x in _copies(path.center[t], reach, height, width):
        middle = np.full(2, (PATCH - 1) / 2.0)
        shift = np.array([x, y]) - turn @ middle
        layer = cv2.warpAffine(patch, np.column_stack([turn, shift]), (width, height), flags=cv2.INTER_LINEAR)
        canvas *= 1.0 - layer[:, :, 3:]
        canvas += layer[:, :, :3]


def _copies(center: np.ndarray, reach: float, height: int, width: int) -> Iterator[tuple[float, float]]:
    """Yield the centers of the periodic copies of an object that are visible in the frame."""
    for y in (center[0] - height, center[0], center[0] + height):
        for x in (center[1] - width, center[1], center[1] + width):
            if -reach < y < height + reach and -reach < x < width + reach:
                yield y, x
