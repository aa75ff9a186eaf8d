"""Draws clips of a test set with their predictions, a row of frames each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slowfast.report.plotting import GREEN, GREY, INK, RED, label_text, new_figure, save_png

FRAMES = 6  # shown of each clip
FRAME_WIDTH = 1.25  # inches


@dataclass(frozen=True)
class ClipRow:
    """A clip and what was made of it; frames uint8 (T, H, W, 3), R G B, in time order."""

    name: str
    frames: np.ndarray
    label: str
    prediction: str
    score: float  # of the prediction, in [0, 1]

    @property
    def right(self) -> bool:
        """Whether the prediction is the label."""
        return self.label == self.prediction


def draw_contact_sheet(rows: Sequence[ClipRow], picture: Path) -> None:
    """Draw the clips as a PNG: green where the prediction is right, red where it is wrong.

    Each row shows FRAMES frames evenly from the clip's first to its last. Raises PlotsUnavailable without matplotlib
    and ValueError for no rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one clip")
    tallest = max(row.frames.shape[1] / row.frames.shape[2] for row in rows)
    height = FRAME_WIDTH * tallest + 0.12
    figure = new_figure(2.6 + FRAMES * FRAME_WIDTH, height * len(rows) + 0.35)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.02, wspace=0.0, hspace=0.0)
    grid = figure.subplots(len(rows), 1 + FRAMES, squeeze=False, width_ratios=[2.4, *[FRAME_WIDTH] * FRAMES])
    for row, axes in zip(rows, grid, strict=True):
        for one in axes:
            one.set_axis_off()
        colour = GREEN if row.right else RED
        verdict = f"{label_text(row.prediction, 24)}  {100.0 * row.score:.0f} %"
        axes[0].set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))
        axes[0].plot([0.02, 0.02], [0.08, 0.92], color=colour, linewidth=4, solid_capstyle="butt")
        axes[0].text(0.09, 0.72, label_text(row.label, 24), fontsize=10, fontweight="bold", color=INK, va="center")
        axes[0].text(0.09, 0.47, verdict, fontsize=9, color=colour, va="center")
        axes[0].text(0.09, 0.24, label_text(Path(row.name).name, 30), fontsize=6.5, color=GREY, va="center")
        for one, frame in zip(axes[1:], row.frames[_shown(len(row.frames))], strict=True):
            one.imshow(frame, interpolation="antialiased")
    right = sum(row.right for row in rows)
    figure.suptitle(
        f"Label, prediction and score; time runs to the right; {right} right and {len(rows) - right} wrong shown",
        fontsize=8,
        color=GREY,
        x=0.01,
        ha="left",
    )
    save_png(figure, picture)


def _shown(frames: int) -> np.ndarray:
    """Which of a clip's frames are shown: int64 (FRAMES,), ascending; a shorter clip repeats some."""
    return np.rint(np.linspace(0, frames - 1, FRAMES)).astype(np.int64)
