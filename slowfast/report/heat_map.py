"""Draws a clip with a heat map over its frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from slowfast.report.plotting import GREY, INK, evenly, label_text, new_figure, save_png

FRAMES = 8  # shown of a clip, at most
FRAME_WIDTH, IMAGE_WIDTH = 1.6, 3.2  # inches, of a clip's frame and of a single image
HEAT_SHARE = 0.5  # of the heat's colours in a picture
LETTERS = 10.0  # of a title, to an inch


def overlay(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 (T, H, W, 3) of frames, R G B, under the colours of a heat map (T, H, W) in [0, 1]: blue 0, red 1."""
    levels = np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    colours = np.stack([cv2.applyColorMap(one, cv2.COLORMAP_JET)[:, :, ::-1] for one in levels])
    return np.rint((1 - HEAT_SHARE) * frames + HEAT_SHARE * colours).astype(np.uint8)


def draw_heat_map(frames: np.ndarray, heat: np.ndarray, title: str, note: str, picture: Path) -> None:
    """Draw frames (T, H, W, 3), and under them the same with their heat (T, H, W), as a PNG; time runs to the right.

    At most FRAMES frames, evenly from the first to the last; a single image stands beside its heat.
    Raises PlotsUnavailable without matplotlib.
    """
    shown = evenly(len(frames), FRAMES)
    pictures = np.stack([frames[shown], overlay(frames, heat)[shown]])  # 2 F H W 3
    if len(shown) == 1:
        pictures = pictures.swapaxes(0, 1)
    rows, columns = pictures.shape[:2]
    across = IMAGE_WIDTH if rows == 1 else FRAME_WIDTH
    figure = new_figure(columns * across, rows * across * frames.shape[1] / frames.shape[2] + 0.6)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    for place, image in enumerate(pictures.reshape(-1, *frames.shape[1:]), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_axis_off()
        axes.imshow(image, interpolation="antialiased")
    letters = round(LETTERS * columns * across)
    figure.suptitle(label_text(title, letters), fontsize=10, color=INK)
    figure.supxlabel(label_text(note, round(1.5 * letters)), fontsize=7, color=GREY)
    save_png(figure, picture)
