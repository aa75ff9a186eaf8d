"""Figures of matplotlib: creation, common style, and writing as images."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from slowfast.utils.files import atomic_path
from slowfast.utils.text import sanitize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLUE, ORANGE, GREEN, RED = "#2f6db3", "#e08214", "#2e8b57", "#c43c39"
INK, GRAY, FAINT = "#222222", "#777777", "#dddddd"


class PlotsUnavailable(ImportError):
    """Raised if matplotlib, which only plots need, cannot be imported."""


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure, without changing the state of pyplot.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        PlotsUnavailable: If matplotlib cannot be imported.
    """
    try:
        figure = _figure_class()
    except Exception as error:  # a broken matplotlibrc raises various exceptions
        raise PlotsUnavailable(
            f'plots need matplotlib, which cannot be imported ({error}). Run pip install "slowfast[plots]"'
        ) from error
    return figure(figsize=(width, height), facecolor="white", layout="constrained")


def _figure_class() -> type[Figure]:
    """Import matplotlib's Figure even if MPLBACKEND names a backend that is not installed.

    A command started from a notebook inherits such a value, and matplotlib then refuses to be imported. The backend
    does not matter here, since a Figure without pyplot is always drawn by Agg. A valid value is kept.
    """
    first = "matplotlib" not in sys.modules
    backend = os.environ.pop("MPLBACKEND", None) if first else None
    try:
        with _quiet():
            from matplotlib import rcParams
            from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            rcParams["backend"] = backend
    return Figure


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress matplotlib's warnings about missing glyphs, read-only folders and fonts."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def style_axes(axes: Axes) -> None:
    """Apply the common style: no top and right spines, a faint grid, small tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK)


def even_indices(length: int, most: int) -> np.ndarray:
    """Return at most `most` evenly spaced indices from 0 to length - 1, int64 and ascending."""
    return np.rint(np.linspace(0, length - 1, min(most, length))).astype(np.int64)


def label_text(name: str, length: int = 40) -> str:
    """Prepare a name for a plot: one printable line of at most `length` characters, without math markup."""
    line = sanitize(" ".join(name.split()))
    if len(line) > length:
        line = line[: length - 3].rstrip() + "..."
    return line.replace("$", r"\$")


def save_png(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure, completely or not at all."""
    with atomic_path(path) as partial, _quiet():
        figure.savefig(partial, format="png", dpi=dpi)


def image_of(figure: Figure, dpi: int = 130) -> np.ndarray:
    """Draw a figure as an image uint8 (H, W, 3) RGB."""
    file = io.BytesIO()
    with _quiet():
        figure.savefig(file, format="png", dpi=dpi)
    image = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1]


_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 88)


def jpeg(image: np.ndarray) -> bytes:
    """Encode an image uint8 (h, w, 3) RGB as a JPEG."""
    return cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), _JPEG)[1].tobytes()
