"""What all pictures share: the optional drawing library, colours, labels, saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slowfast.runtime.unfinished import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#2f6db3", "#e08214", "#2e8b57", "#c43c39"
INK, GREY, FAINT = "#222222", "#777777", "#dddddd"


class PlotsUnavailable(ImportError):
    """The drawing library is not installed: everything but the pictures works without it."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of width x height inches, without touching the program's own plotting state.

    Raises PlotsUnavailable when matplotlib cannot be imported.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailable(
            f'pictures need matplotlib, which cannot be imported ({error}): pip install "slowfast[plots]"'
        ) from error
    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


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
    """A name as it can be drawn: one line, at most `room` characters, no formula signs."""
    line = " ".join(name.encode(errors="replace").decode().split())  # names of files need not be valid text
    if len(line) > room:
        line = line[: room - 3].rstrip() + "..."
    return line.replace("$", r"\$")


def save_png(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write the picture whole or not at all."""
    with written_whole(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi)
