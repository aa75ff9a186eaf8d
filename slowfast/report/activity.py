"""Draws where and when event-driven inference computed.

P x P pixels of a frame, n x n patches, B points of a line.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from slowfast.report.heat_map import overlay
from slowfast.report.plotting import BLUE, GREY, INK, ORANGE, label_text, new_figure, save_png, tidy


def draw_activity(
    image: np.ndarray,
    heat: np.ndarray,
    frames: np.ndarray,
    shares: np.ndarray,
    title: str,
    note: str,
    picture: Path,
) -> None:
    """A PNG of a video: how often each patch was computed, over a frame; what share of patches was, over time.

    image: uint8 (P, P, 3), R G B; heat: (n, n), from 0 (never) to 1 (in each frame), in colours from blue to red;
    frames, shares: (B,) and (B, stages), %, of single frames or means from one to the next. The first stage's line and
    the last one's are drawn. Raises PlotsUnavailable.
    """
    figure = new_figure(9.5, 3.2)
    place, time = figure.subplots(1, 2, width_ratios=(1, 2.4))
    larger = cv2.resize(heat.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    place.imshow(overlay(image[None], larger[None])[0], interpolation="nearest")
    place.set_axis_off()
    place.set_title(f"computed: blue never, red always; mean {100 * heat.mean():.0f} %", fontsize=8, color=INK)
    for stage, colour in ((len(shares[0]) - 1, ORANGE), (0, BLUE)):
        time.plot(frames, shares[:, stage], color=colour, linewidth=1.2, label=f"stage {stage + 1}")
    time.set_ylim(0, 105)
    time.set_xlabel("frame", fontsize=8, color=INK)
    time.set_ylabel("patches computed, %", fontsize=8, color=INK)
    time.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    tidy(time)
    figure.suptitle(label_text(title, 80), fontsize=10, color=INK)
    figure.supxlabel(note, fontsize=7, color=GREY)
    save_png(figure, picture)
