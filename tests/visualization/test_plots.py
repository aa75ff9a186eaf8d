"""Plots are complete and show their data; their appearance was checked by eye."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from slowfast.visualization.metrics_log import draw_curves, read_curves, smooth
from slowfast.visualization.per_class import (
    MATRIX_CLASSES,
    class_accuracies,
    confused_pairs,
    count_confusions,
    draw_confusion,
)
from slowfast.visualization.plots import PlotsUnavailable, label_text, new_figure
from slowfast.visualization.results import Metric
from slowfast.visualization.sheets import ClipRow, draw_contact_sheet, draw_training_curves

pytestmark = pytest.mark.slow

TOP1 = Metric("top1", "top-1")
_OF_NOTEBOOKS = "module://matplotlib_inline.backend_inline"
ROOT = Path(__file__).parents[2]


def pixels(path: Path) -> np.ndarray:
    """Return an image as RGB; fails if it is blank."""
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 5
    return image[:, :, ::-1]


def has_color(image: np.ndarray, color: tuple[int, int, int], most: int = 12) -> bool:
    return bool((np.abs(image.astype(int) - color).max(axis=2) <= most).any())


def log(path: Path, torn: bool = False) -> Path:
    rows = []
    for step in range(20):
        rows.append({"split": "train", "epoch": (step + 1) / 10, "step": step, "loss": 2.0 / (step + 1), "lr": 1e-3})
    rows[3]["loss"] = None  # as a NaN is written
    rows.append({"split": "val", "epoch": 2.0, "step": 20, "loss": 2.5, "top1": 81.5, "top5": 99.0})
    rows.append({"split": "test", "epoch": 2.0, "step": 20, "top1": 1.0})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text + ('{"split": "val", "epo' if torn else ""))
    return path


@pytest.mark.parametrize("torn", [False, True])
def test_curves_are_read(tmp_path, torn):
    curves = read_curves(log(tmp_path / "metrics.jsonl", torn), TOP1)
    assert len(curves.loss) == 20 and curves.loss[0.1] == 2.0 and np.isnan(curves.loss[0.4])
    assert curves.validation == {2.0: 81.5} and curves.validation_loss == {2.0: 2.5}
    assert set(curves.lr.values()) == {1e-3}


def test_curves_are_drawn(tmp_path):
    draw_curves(log(tmp_path / "metrics.jsonl", torn=True), tmp_path / "curves.png", TOP1)
    image = pixels(tmp_path / "curves.png")
    assert image.shape[1] > 1000
    # The validation loss is orange and in the first of three panels.
    assert has_color(image[:, : image.shape[1] // 3], (224, 130, 20))


@pytest.mark.parametrize("text", ["", '{"split": "train", "epoch": 0.1, "step": 1, "loss": null, "lr": 0.1}\n'])
def test_curves_of_hardly_anything(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", TOP1)
    pixels(tmp_path / "curves.png")


def test_smoothing_against_plain_means():
    values = np.random.default_rng(0).normal(size=30)
    values[[4, 5]] = np.nan
    expected = [np.nanmean(values[max(i - 3, 0) : i + 4]) for i in range(30)]
    np.testing.assert_allclose(smooth(values, 3), expected, atol=1e-12)


def test_confusions_are_counted_without_those_not_read():
    counts = count_confusions([0, 0, 1, 2, 2], [0, 1, 1, None, 0], 4)
    assert counts.dense().tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert confused_pairs(counts, 9) == [(0, 1, 1), (2, 0, 1)]
    np.testing.assert_array_equal(class_accuracies(counts), [0.5, 1.0, 0.0, np.nan])


def test_confused_pairs_are_sorted_and_cut():
    labels, guesses = np.divmod(np.repeat(np.arange(9), [9, 1, 3, 2, 9, 0, 0, 5, 9]), 3)
    counts = count_confusions(labels.tolist(), guesses.tolist(), 3)
    assert counts.dense().tolist() == [[9, 1, 3], [2, 9, 0], [0, 5, 9]]
    assert confused_pairs(counts, 3) == [(2, 1, 5), (0, 2, 3), (1, 0, 2)]


@pytest.mark.parametrize("classes", [1, 8, MATRIX_CLASSES, 400])
def test_confusion_is_drawn(tmp_path, classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 3 * classes)
    guesses = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, classes, len(labels))).tolist()
    names = [f"a name with $ and _ {label} " + "that is long " * 5 for label in range(classes)]
    draw_confusion(labels.tolist(), guesses, names, tmp_path / "confusion.png")
    pixels(tmp_path / "confusion.png")


def test_the_largest_label_sets_need_little_memory(tmp_path):
    """A matrix of 20,000 classes would take 3 GB."""
    rng, classes = np.random.default_rng(0), 20_000
    labels = rng.integers(0, classes, 5000)
    guesses = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, classes, len(labels)))
    tracemalloc.start()
    draw_confusion(labels.tolist(), guesses.tolist(), [str(n) for n in range(classes)], tmp_path / "confusion.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pixels(tmp_path / "confusion.png")
    assert peak < 100e6


def test_confusion_of_nothing_read(tmp_path):
    for classes in (8, 400):
        names = [str(label) for label in range(classes)]
        draw_confusion([0, 1], [None, None], names, tmp_path / "confusion.png")


def row(prediction: str, color: tuple[int, int, int], frames: int = 8) -> ClipRow:
    clip = np.empty((frames, 24, 28, 3), np.uint8)
    clip[:] = color
    return ClipRow("videos/left/a$b.mp4", clip, "left", prediction, 0.871, prediction == "left")


def test_contact_sheet_shows_the_clips_and_marks_right_and_wrong(tmp_path):
    green, red = (0x2E, 0x8B, 0x57), (0xC4, 0x3C, 0x39)
    draw_contact_sheet([row("left", (10, 20, 240))], tmp_path / "right.png")
    draw_contact_sheet([row("up", (240, 20, 240), frames=3)], tmp_path / "wrong.png")
    right, wrong = pixels(tmp_path / "right.png"), pixels(tmp_path / "wrong.png")
    assert has_color(right, (10, 20, 240)) and has_color(wrong, (240, 20, 240))
    assert has_color(right, green) and not has_color(right, red)
    assert has_color(wrong, red) and not has_color(wrong, green)


def test_contact_sheet_keeps_the_order_of_time(tmp_path):
    clip = row("left", (0, 0, 0), frames=12).frames.copy()
    clip[:6], clip[6:] = (250, 0, 0), (0, 0, 250)
    draw_contact_sheet([ClipRow("a.mp4", clip, "left", "left", 1.0, True)], tmp_path / "sheet.png")
    image = pixels(tmp_path / "sheet.png").astype(int)
    red = np.flatnonzero((np.abs(image - (250, 0, 0)).max(axis=2) < 9).any(axis=0))
    blue = np.flatnonzero((np.abs(image - (0, 0, 250)).max(axis=2) < 9).any(axis=0))
    assert len(red) and len(blue) and red.max() < blue.min()


def test_contact_sheet_of_no_clips_says_so(tmp_path):
    with pytest.raises(ValueError, match="at least one clip"):
        draw_contact_sheet([], tmp_path / "sheet.png")


def test_labels_are_one_short_line_without_formulas():
    assert label_text("a $b$\n c") == r"a \$b\$ c"
    assert label_text("long " * 20, length=12) == "long long..."


@pytest.mark.parametrize(
    ("backend", "kept"),
    [(_OF_NOTEBOOKS, find_spec("matplotlib_inline") is not None), ("garbage", False), ("tkagg", True), ("", False)],
)
def test_figures_are_drawn_whatever_backend_was_inherited(tmp_path, backend, kept):
    """As from a notebook; in a process that has not imported matplotlib."""
    code = (
        "import os, sys, pathlib\n"
        "from slowfast.visualization.plots import new_figure, save_png\n"
        "figure = new_figure(1, 1)\n"
        "figure.suptitle('\u4e2d')\n"
        "save_png(figure, pathlib.Path(sys.argv[1]))\n"
        "import matplotlib\n"
        "print(matplotlib.rcParams['backend'], os.environ['MPLBACKEND'])\n"
    )
    home = {"MPLBACKEND": backend}
    if not backend:  # without a cache of fonts, which takes seconds to make
        home |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/nowhere")
    line = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(line, env=os.environ | home | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    name, inherited = done.stdout.rstrip("\n").split(" ")
    assert inherited == backend and (name == backend) == kept and pixels(tmp_path / "a.png").shape == (130, 130, 3)


def test_a_figure_that_cannot_be_drawn_is_a_warning(tmp_path, monkeypatch, caplog):
    def fail(*args: object) -> None:
        raise ZeroDivisionError("no room")

    monkeypatch.setattr("slowfast.visualization.sheets.draw_curves", fail)
    with caplog.at_level("WARNING", "slowfast"):
        assert draw_training_curves(tmp_path, TOP1) == {}
    assert caplog.messages == ["Cannot draw curves.png: no room"] and not list(tmp_path.iterdir())


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name: str, *rest: object, **more: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(PlotsUnavailable, match=r"slowfast\[plots\]"):
        new_figure(1.0, 1.0)
