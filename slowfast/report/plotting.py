"""What all pictures share: the optional drawing library, colours, labels, saving."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slowfast.runtime.text import shown
from slowfast.runtime.unfinished import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#2f6db3", "#e08214", "#2e8b57", "#c43c39"
INK, GREY, FAINT = "#222222", "#777777", "#dddddd"


class PlotsUnavailable(ImportError):
    """The drawing library is not installed or cannot be loaded: everything but the figures works without it."""


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure, without touching the program's own plotting state.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        PlotsUnavailable: If matplotlib cannot be imported.
    """
    try:
        figure = _figure_class()
    except Exception as error:  # a broken matplotlibrc raises many kinds
        raise PlotsUnavailable(
            f'figures need matplotlib, which cannot be imported ({error}): pip install "slowfast[plots]"'
        ) from error
    return figure(figsize=(width, height), facecolor="white", layout="constrained")


def _figure_class() -> type[Figure]:
    """Import matplotlib's Figure, also where MPLBACKEND names a backend that is not installed here.

    A Figure by itself is always drawn by Agg, whatever the backend; but matplotlib refuses to be imported with an
    unknown one, such as that of a notebook whose environment a command has inherited. A known one stays in effect.
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
    """Keep matplotlib from remarking on missing letters, folders that it cannot write to, and its fonts."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def tidy(axes: Axes) -> None:
    """The plain look: no frame above and on the right, a faint grid, small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK)


def evenly(length: int, most: int) -> np.ndarray:
    """At most `most` numbers from 0 to length - 1, evenly from the first to the last: int64, ascending."""
    return np.rint(np.linspace(0, length - 1, min(most, length))).astype(np.int64)


def label_text(name: str, room: int = 40) -> str:
    """Prepare a name for a figure: one line, safe to show, at most `room` characters, no formula signs."""
    line = shown(" ".join(name.split()))
    if len(line) > room:
        line = line[: room - 3].rstrip() + "..."
    return line.replace("$", r"\$")


def save_png(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write the figure, complete or not at all."""
    with written_whole(path) as partial, _quiet():
        figure.savefig(partial, format="png", dpi=dpi)
