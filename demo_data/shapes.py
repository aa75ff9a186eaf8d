"""Rendering of demo images and clips whose class is the shape of an object over a soft background.

Colors, textures, position, size and rotation are independent of the class. Notation: T frames, H height, W width.
"""

from __future__ import annotations

import cv2
import numpy as np

from demo_data.scene import RADIUS, color, draw_background, noise, scroll

SUPERSAMPLING = 4  # for smooth edges
MAX_TURN = np.pi / 2  # rotation of a shape during a clip


def _polygon(corners: int, inner: float = 1.0) -> np.ndarray:
    """Return the corners of a regular polygon of radius 1, or of a star with the inner radius `inner`: (n, 2)."""
    count = corners if inner == 1.0 else 2 * corners
    angles = np.arange(count) / count * 2.0 * np.pi
    radii = np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _cross() -> np.ndarray:
    """Return the corners of a plus sign: (12, 2)."""
    arm = np.array([[1.0, -0.33], [1.0, 0.33], [0.33, 0.33]])
    turns = [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in np.arange(4) * np.pi / 2]
    return np.concatenate([arm @ turn for turn in turns])


# Outline and hole of each class: points (n, 2) in radii of the object.
_NONE = np.empty((0, 2))
SHAPES: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "disc": (_polygon(40), _NONE),
    "ring": (_polygon(40), 0.55 * _polygon(40)),
    "triangle": (_polygon(3), _NONE),
    "square": (_polygon(4), _NONE),
    "frame": (_polygon(4), 0.55 * _polygon(4)),
    "star": (_polygon(5, 0.4), _NONE),
    "cross": (_cross(), _NONE),
    "crescent": (_polygon(40), 0.75 * _polygon(40) + (0.45, 0.0)),
}


def render_image(shape: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Render an image of a shape with random colors, textures and background: RGB, uint8 (H, W, 3)."""
    image = draw_background(height, width, rng)
    radius = height * rng.uniform(*RADIUS)
    margin = np.minimum(radius, np.array([width, height]) / 2)
    center = rng.uniform(margin, np.array([width, height]) - margin)
    cover = _coverage(shape, height, width, center, radius, rng.uniform(0.0, 2.0 * np.pi))
    return np.rint(image + (_texture(height, width, radius, rng) - image) * cover).astype(np.uint8)


def render_shape_clip(shape: str, frames: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Render a clip of a fixed camera with a moving and rotating shape: RGB, uint8 (T, H, W, 3)."""
    background = draw_background(height, width, rng)
    radius = height * rng.uniform(*RADIUS)
    margin = np.minimum(radius, np.array([width, height]) / 2)
    start, end = rng.uniform(margin, np.array([width, height]) - margin, (2, 2))
    angle, turn = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-MAX_TURN, MAX_TURN)
    texture = _texture(height, width, radius, rng)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for t, moved in enumerate(np.linspace(0.0, 1.0, frames)):
        shift = (end - start) * moved  # x, y
        cover = _coverage(shape, height, width, start + shift, radius, angle + turn * moved)
        clip[t] = np.rint(background + (scroll(texture, shift[::-1]) - background) * cover)
    return clip


def _texture(height: int, width: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Draw spots of two similar colors: float32 (H, W, 3)."""
    hue, blots = rng.uniform(), noise(height, width, wavelength=radius / 2, rng=rng)[:, :, None]
    one = color(hue, rng.uniform(0.3, 0.9), rng.uniform(0.8, 1.0))
    other = color(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.3, 0.9), rng.uniform(0.65, 0.8))
    return one + (other - one) * blots


def _coverage(shape: str, height: int, width: int, center: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Return the share of each pixel that is covered by the shape: float32 (H, W, 1)."""
    canvas = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for points, value in zip(SHAPES[shape], (255, 0), strict=True):
        if len(points):
            placed = ((points @ turn) * radius + center) * SUPERSAMPLING
            cv2.fillPoly(canvas, [np.rint(placed).astype(np.int32)], value)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)[:, :, None].astype(np.float32) / 255
