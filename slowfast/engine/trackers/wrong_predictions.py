"""Images of a test for trackers: the confusion matrix and the wrong predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.index.labels import classes_of
from slowfast.engine.tasks import Evaluator
from slowfast.engine.trackers.base import NamedImage
from slowfast.engine.trackers.session import Trackers
from slowfast.utils.logging import get_logger
from slowfast.visualization.first_batch import draw_sheet
from slowfast.visualization.plots import even_indices
from slowfast.visualization.results import VideoPrediction

CONFUSION = "confusion matrix"  # description of the file, see `draw_confusion_matrix`
FRAMES = 6  # shown of each clip
FRAME_SIDE = 112  # pixels of the longer side of a frame


def record_test(
    trackers: Trackers,
    cfg: ConfigNode,
    dataset: EvalDataset,
    evaluator: Evaluator,
    class_names: Sequence[str],
    files: Mapping[str, Path],
) -> None:
    """Record the confusion matrix and the most confident wrong predictions of a test.

    Args:
        trackers: Trackers of the run.
        cfg: Config of the run.
        dataset: Test set, from which the clips are read again.
        evaluator: Evaluator with the predictions.
        class_names: Names of all classes.
        files: Plots by description.
    """
    if not trackers.active:
        return
    if CONFUSION in files and (plot := cv2.imread(str(files[CONFUSION]))) is not None:
        trackers.image("test/confusion_matrix", plot[:, :, ::-1])
    wrong = choose_wrong(evaluator.predictions, cfg.TRACKING.WRONG_PREDICTIONS)
    images = [image for one in wrong if (image := _image(dataset, one, class_names)) is not None]
    trackers.images("test/wrong_predictions", images)


def choose_wrong(predictions: Sequence[object], count: int) -> list[VideoPrediction]:
    """Return up to `count` wrong predictions of readable videos, highest score first; none of tasks without classes."""
    wrong = [one for one in predictions if isinstance(one, VideoPrediction) and one.best and not one.hit(1)]
    return sorted(wrong, key=lambda one: (-one.best[0][1], one.index))[:count]


def _image(dataset: EvalDataset, prediction: VideoPrediction, names: Sequence[str]) -> NamedImage | None:
    """Return frames of a video with label, prediction and score; None, with a warning, if it cannot be read again."""
    best, score = prediction.best[0]
    label = ", ".join(names[number] for number in classes_of(prediction.label)) or "no class"
    caption = f"label {label}, prediction {names[best]} ({100 * score:.0f} %)"
    try:
        frames = dataset[prediction.index].preview()
    except Exception as error:  # of any reader
        get_logger().warning(f"Cannot draw {prediction.name}: {error}")
        return None
    shown = [_fit(frame) for frame in frames[even_indices(len(frames), FRAMES)]]
    sheet = draw_sheet([np.concatenate(shown, 1)], [caption], prediction.name)
    return NamedImage(sheet, prediction.name, f"{prediction.name}: {caption}")


def _fit(frame: np.ndarray) -> np.ndarray:
    """Resize a frame (H, W, 3) to a longer side of FRAME_SIDE."""
    factor = FRAME_SIDE / max(frame.shape[:2])
    size = (max(round(frame.shape[1] * factor), 1), max(round(frame.shape[0] * factor), 1))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST))
