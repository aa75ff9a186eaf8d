"""Draws a clip with a heat map over its frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from slowfast.visualization.plots import BLUE, GREY, INK, ORANGE, evenly, label_text, new_figure, save_png, tidy

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
