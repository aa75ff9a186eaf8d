"""Heat maps over the frames of a clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from slowfast.visualization.plots import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    even_indices,
    label_text,
    new_figure,
    save_png,
    style_axes,
)

MAX_FRAMES = 8  # shown of a clip
FRAME_WIDTH, IMAGE_WIDTH = 1.6, 3.2  # inches, of a frame of a clip and of a single image
HEAT_ALPHA = 0.5  # opacity of the heat map
TITLE_LETTERS = 10.0  # per inch


def overlay(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend frames with a heat map.

    Args:
        frames: uint8 (T, H, W, 3) RGB.
        heat: Values in [0, 1] (T, H, W), from blue to red.

    Returns:
        uint8 (T, H, W, 3) RGB.
    """
    levels = np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    colors = np.stack([cv2.applyColorMap(one, cv2.COLORMAP_JET)[:, :, ::-1] for one in levels])
    return np.rint((1 - HEAT_ALPHA) * frames + HEAT_ALPHA * colors).astype(np.uint8)


def draw_heat_map(frames: np.ndarray, heat: np.ndarray, title: str, note: str, path: Path) -> None:
    """Draw frames and below them the same frames with their heat map, as a PNG.

    At most MAX_FRAMES evenly spaced frames are drawn; a single image is drawn beside its heat map.

    Args:
        frames: uint8 (T, H, W, 3) RGB.
        heat: Values in [0, 1] (T, H, W).
        title: Text above.
        note: Text below.
        path: File to write.

    Raises:
        PlotsUnavailable: Without matplotlib.
    """
    shown = even_indices(len(frames), MAX_FRAMES)
    images = np.stack([frames[shown], overlay(frames, heat)[shown]])  # (2, F, H, W, 3)
    if len(shown) == 1:
        images = images.swapaxes(0, 1)
    rows, columns = images.shape[:2]
    across = IMAGE_WIDTH if rows == 1 else FRAME_WIDTH
    figure = new_figure(columns * across, rows * across * frames.shape[1] / frames.shape[2] + 0.6)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    for place, image in enumerate(images.reshape(-1, *frames.shape[1:]), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_axis_off()
        axes.imshow(image, interpolation="antialiased")
    letters = round(TITLE_LETTERS * columns * across)
    figure.suptitle(label_text(title, letters), fontsize=10, color=INK)
    figure.supxlabel(label_text(note, round(1.5 * letters)), fontsize=7, color=GRAY)
    save_png(figure, path)


def draw_activity(
    image: np.ndarray,
    heat: np.ndarray,
    frames: np.ndarray,
    shares: np.ndarray,
    title: str,
    note: str,
    path: Path,
) -> None:
    """Draw the activity of event-driven inference as a PNG: how often each patch was computed, and the share over time.

    Args:
        image: Frame to draw the heat map on, uint8 (P, P, 3) RGB.
        heat: Share of the frames in which each patch was computed, (n, n) in [0, 1].
        frames: Frame numbers (B,).
        shares: Patches computed per stage in percent, (B, stages), of these frames or averaged up to the next one. The
            first and the last stage are drawn.
        title: Text above.
        note: Text below.
        path: File to write.

    Raises:
        PlotsUnavailable: Without matplotlib.
    """
    figure = new_figure(9.5, 3.2)
    place, time = figure.subplots(1, 2, width_ratios=(1, 2.4))
    larger = cv2.resize(heat.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    place.imshow(overlay(image[None], larger[None])[0], interpolation="nearest")
    place.set_axis_off()
    place.set_title(f"computed (blue: never, red: always), mean {100 * heat.mean():.0f} %", fontsize=8, color=INK)
    for stage, color in ((len(shares[0]) - 1, ORANGE), (0, BLUE)):
        time.plot(frames, shares[:, stage], color=color, linewidth=1.2, label=f"stage {stage + 1}")
    time.set_ylim(0, 105)
    time.set_xlabel("frame", fontsize=8, color=INK)
    time.set_ylabel("patches computed (%)", fontsize=8, color=INK)
    time.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    style_axes(time)
    figure.suptitle(label_text(title, 80), fontsize=10, color=INK)
    figure.supxlabel(note, fontsize=7, color=GRAY)
    save_png(figure, path)
