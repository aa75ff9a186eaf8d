"""The most confident mistakes of a test with their frames: the folder mistakes/ in OUTPUT_DIR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.index.entries import classes_of
from slowfast.datasets.types import EvalRecording, EvalSample
from slowfast.utils.files import atomic_path
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import write_json
from slowfast.visualization.plots import even_indices
from slowfast.visualization.results import SCORE_DIGITS, VideoPrediction

FOLDER, LIST = "mistakes", "mistakes.json"
COUNT = 24  # mistakes kept
FRAMES = 6  # frames shown per clip
FRAME_WIDTH, IMAGE_WIDTH = 144, 320  # pixels: width of a frame of a clip, and of a single image
GAP = 2  # pixels between frames
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 88)
_OF_EVENTS = "events of consecutive parts of the recording; red: brighter, blue: darker"


def draw_mistakes(
    output: Path, dataset: EvalDataset, predictions: Sequence[VideoPrediction], names: Sequence[str]
) -> dict[str, Path]:
    """Write the wrong predictions with the highest scores, highest first; return descriptions and paths.

    Any failure is only logged as a warning, so that the results of the test are kept.

    Args:
        output: OUTPUT_DIR. Its folder mistakes/ is replaced: mistakes.json and a JPEG of frames for each.
        dataset: Test set.
        predictions: Predictions of all samples.
        names: Class names.
    """
    folder = output / FOLDER
    try:
        with atomic_path(folder, replace_folder=True) as part:
            part.mkdir()
            chosen = most_confident(predictions, COUNT)
            rows = [_write(dataset, one, names, part, f"{n:02}.jpg") for n, one in enumerate(chosen, start=1)]
            write_json(part / LIST, rows)
    except Exception as error:
        get_logger().warning(f"Cannot write {folder}: {error}")
        return {}
    return {"most confident mistakes": folder} if rows else {}


def most_confident(predictions: Sequence[object], count: int) -> list[VideoPrediction]:
    """Return up to `count` wrong predictions of readable samples, highest score first; none for other tasks."""
    wrong = [one for one in predictions if isinstance(one, VideoPrediction) and one.best and not one.hit(1)]
    return sorted(wrong, key=lambda one: (-one.best[0][1], one.index))[:count]


def _write(
    dataset: EvalDataset, prediction: VideoPrediction, names: Sequence[str], folder: Path, file: str
) -> dict[str, object]:
    sample, (best, score) = read_again(dataset, prediction), prediction.best[0]
    strip = film_strip(sample.preview())
    (folder / file).write_bytes(jpeg(strip))
    return {
        "path": prediction.name,
        "label": [names[label] for label in classes_of(prediction.label)],
        "prediction": names[best],
        "score": round(score, SCORE_DIGITS),
        "frames": file,
        "note": _OF_EVENTS if isinstance(sample, EvalRecording) else "",
    }


def read_again(dataset: EvalDataset, prediction: VideoPrediction) -> EvalSample:
    """Read a sample that was readable during the test. Raises RuntimeError if it no longer is."""
    sample: EvalSample = dataset[prediction.index]
    if not sample.count:
        raise RuntimeError(f"{prediction.name} was readable during the test but no longer is")
    return sample


def film_strip(frames: np.ndarray) -> np.ndarray:
    """Arrange frames uint8 (T, H, W, 3) in a row, at most FRAMES evenly spaced ones, uint8 (h, w, 3)."""
    shown = frames[even_indices(len(frames), FRAMES)]
    width = FRAME_WIDTH if len(shown) > 1 else IMAGE_WIDTH
    height = max(round(width * shown.shape[1] / shown.shape[2]), 1)
    way = cv2.INTER_AREA if width < shown.shape[2] else cv2.INTER_NEAREST
    images = [cv2.resize(image, (width, height), interpolation=way) for image in shown]
    padded = [np.pad(image, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for image in images]
    return np.concatenate(padded, 1)[:, :-GAP]


def jpeg(image: np.ndarray) -> bytes:
    """Encode an image uint8 (h, w, 3) RGB as a JPEG."""
    return cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), _JPEG)[1].tobytes()
