"""Predictions of files: tables on the screen and files.

The files are predictions.json, predictions.csv, failed.csv, and annotated videos: videos, and event recordings rendered
as videos, with the predicted classes drawn on every frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.container import choose_timing
from slowfast.datasets.decode.image import FrameFolderReader
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.dvs.recording import Recording, clean_events
from slowfast.datasets.index.samples import FoundSamples, SampleKind, find_samples, target_files
from slowfast.datasets.types import Failure, Record, failure_reason
from slowfast.engine.evaluate import EvaluationTime
from slowfast.engine.state import tested_weights
from slowfast.errors import UserError
from slowfast.inference.predictor import Prediction, Predictor
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import Progress, phase, show, show_table
from slowfast.utils.text_files import write_json
from slowfast.visualization.event_plots import event_frames
from slowfast.visualization.results import (
    PREDICTIONS,
    SCORE_DIGITS,
    TEST_RESULTS,
    class_row,
    files_table,
    tail,
    write_failed,
    write_predictions,
)
from slowfast.visualization.video_writer import class_lines, write_annotated

# Frame rate and minimum number of frames of a rendered event recording.
EVENTS_FPS, MIN_FRAMES = 20, 40
TABLE, LIST, FAILED = "predictions.json", PREDICTIONS, "failed.csv"
SHOWN = 20  # files in the table on the screen
Lines = Sequence[str] | Callable[[float], Sequence[str]]


def predict_to_files(cfg: ConfigNode, paths: Sequence[Path], output: Path, *, annotate: bool = False) -> None:
    """Classify files and folders, print the best classes and write the results.

    Args:
        cfg: Config for evaluating the model.
        paths: Videos, images, event recordings, and folders of them.
        output: Output folder.
        annotate: Also write each video or event recording as .mp4 with its classes drawn on it.

    Raises:
        UserError: If weights are missing, or images are to be annotated.
        DataError: If no file can be read.
    """
    wanted = SampleKind.from_config(cfg)
    refuse_annotated_images(cfg, wanted, annotate)
    with phase("building the model and loading its weights"):
        found, predictor = find_samples(paths, wanted), Predictor.from_config(cfg)
    classify_to_files(cfg, predictor, found, output, run_facts(cfg), annotate=annotate)


def refuse_annotated_images(cfg: ConfigNode, wanted: SampleKind, annotate: bool) -> None:
    """Raise UserError if images are to be annotated."""
    if annotate and wanted.images:
        raise UserError(f"--annotate needs videos or event recordings, but {cfg.MODEL.MODEL_NAME} takes images here")


def classify_to_files(
    cfg: ConfigNode,
    predictor: Predictor,
    found: FoundSamples,
    output: Path,
    about: dict[str, object],
    *,
    annotate: bool = False,
) -> None:
    """Classify files that `find_samples` has found, print the best classes and write the results.

    Args:
        cfg: Config of the evaluation.
        predictor: Predictor of the files.
        found: The files.
        output: Output folder.
        about: Description of the predictions, for predictions.json.
        annotate: Also write each video or event recording as .mp4 with its classes drawn on it.

    Raises:
        DataError: If no file can be read.
    """
    progress = Progress("predict", len(found.records), "files", shown=True, every=cfg.LOG_PERIOD)
    try:
        predictions = predictor.predict_found(found, progress)
    finally:
        progress.close()
    files = write_files(predictions, about, output)  # write files before the screen, which may fail
    for failure in found.refused:
        get_logger().warning(f"{failure.name} cannot be read: {failure.reason}")
    show_table(predictions_table(predictions))
    if annotate:
        with phase("annotating videos"):
            files["annotated videos"] = annotate_files(cfg, predictions, output / "annotated")
    show(_summary(predictions, found.others, predictor.time))
    show_table(files_table(files))


def run_facts(cfg: ConfigNode) -> dict[str, object]:
    """Return a description of how predictions are made, for JSON files."""
    test = cfg.TEST
    views, crops = test.NUM_ENSEMBLE_VIEWS, test.NUM_SPATIAL_CROPS
    return {"model": cfg.MODEL.MODEL_NAME, "weights": tested_weights(cfg) or "random", "views": views, "crops": crops}


def _summary(predictions: Sequence[Prediction], others: int, time: EvaluationTime) -> str:
    failed = sum(prediction.scores is None for prediction in predictions)
    parts = [f"{len(predictions) - failed} files read"]
    if failed:
        parts.append(f"{failed} failed (reasons in {FAILED})")
    if others:
        parts.append(f"{others} files of other types skipped")
    return f"{', '.join(parts)}: {throughput(time)}"


def throughput(time: EvaluationTime) -> str:
    """Return the number of clips, the seconds and the clips/s of an evaluation."""
    clips = "1 clip" if time.clips == 1 else f"{time.clips} clips"
    return f"{clips} in {time.seconds:.1f} s ({time.clips_per_second:.1f} clips/s)"


def predictions_table(predictions: Sequence[Prediction]) -> str:
    """Return a table of the best classes of the first files that were read."""
    read = [prediction for prediction in predictions if prediction.scores is not None]
    rows = []
    for prediction in read[:SHOWN]:
        for place, (name, score) in enumerate(prediction.best()):
            rows.append((tail(prediction.path, 48) if place == 0 else "", tail(name, 38), f"{score:.{SCORE_DIGITS}f}"))
    text = tabulate(rows, headers=("file", "class", "score"), tablefmt="simple", disable_numparse=True)
    more = len(read) - SHOWN
    return text if more <= 0 else f"{text}\n... and {more} more in the files listed below"


def write_files(predictions: Sequence[Prediction], about: dict[str, Any], output: Path) -> dict[str, Path]:
    """Write predictions.json, predictions.csv and failed.csv.

    Args:
        predictions: Predictions of files.
        about: Description of the predictions, for predictions.json.
        output: Output folder, see `results_folder`.

    Returns:
        The files by description.
    """
    folder = results_folder(output)
    write_json(folder / TABLE, about | _as_json(predictions))
    rows = (class_row(one.path, None, one.best_classes(), one.names) for one in predictions)
    write_predictions(rows, folder / LIST)
    failures = [
        Failure(one.record.index, one.path, one.failure, lost=one.scores is None) for one in predictions if one.failure
    ]
    write_failed(failures, folder / FAILED)
    files = {"predictions": folder / TABLE, "predictions as CSV": folder / LIST}
    return files | ({"failed files": folder / FAILED} if failures else {})


def results_folder(output: Path) -> Path:
    """Return the folder of the results: `output`, or its subfolder predict if it contains the results of a test."""
    is_own = (output / TABLE).is_file() and not (output / TEST_RESULTS).is_file()
    return output / "predict" if (output / LIST).is_file() and not is_own else output


def _as_json(predictions: Sequence[Prediction]) -> dict[str, Any]:
    read, failed = [], []
    for prediction in predictions:
        best = [{"class": name, "score": round(score, SCORE_DIGITS)} for name, score in prediction.best()]
        entry: dict[str, Any] = {"path": prediction.path}
        if prediction.scores is None:
            failed.append(entry | {"reason": prediction.failure})
        else:
            read.append(entry | {"best": best} | ({"damaged": prediction.failure} if prediction.failure else {}))
    return {"predictions": read, "failed": failed}


def annotate_files(cfg: ConfigNode, predictions: Sequence[Prediction], folder: Path) -> Path:
    """Write each video or event recording that was read as .mp4, with its predicted classes drawn on it.

    Videos keep their size and frame rate and lose their sound; folders of frames play at DATA.TARGET_FPS. Event
    recordings show ON events in red and OFF events in blue, in real time or, if that is less than `MIN_FRAMES` frames,
    slowed down. Files that cannot be annotated are reported and skipped.

    Args:
        cfg: Config of the predictions.
        predictions: Predictions of files.
        folder: Output folder.

    Returns:
        The output folder.
    """
    recordings = find_dataset(cfg, TEST).reads_recordings
    read = [prediction for prediction in predictions if prediction.scores is not None]
    targets = target_files([prediction.record for prediction in read], folder, ".mp4")
    for prediction, target in zip(read, targets, strict=True):
        lines = class_lines(prediction.best())
        with warn_on_failure(prediction.path):
            if recordings:
                sensor = tuple(cfg.DVS.SENSOR_SIZE)
                annotate_events(prediction.record, sensor, cfg.DVS.TIME_UNIT, lines, target, cfg.DVS.STREAM)
            else:
                annotate_video(prediction.record, cfg.DATA.IMAGE_TEMPLATE, cfg.DATA.TARGET_FPS, lines, target)
    return folder


@contextmanager
def warn_on_failure(path: str) -> Iterator[None]:
    """Report a file that cannot be annotated, and continue with the others."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        get_logger().warning(f"{path} cannot be annotated: {failure_reason(error)}")


def annotate_video(record: Record, template: str, fps: float, lines: Lines, target: Path) -> int:
    """Write the frames of a video or folder of frames with lines of text drawn on them.

    Args:
        record: The video or folder of frames.
        template: File name template of a folder of frames.
        fps: Frame rate of a folder of frames.
        lines: Text to draw, or a function from the time in seconds after the first frame to the text.
        target: Video file to write.

    Returns:
        The number of frames written.

    Raises:
        DecodeError: If no frame can be read.
    """
    if record.frames is not None:
        with FrameFolderReader(record.path, template, record.frames, fps) as folder:
            times = np.arange(record.frames) / fps
            return write_annotated(_images(folder), choose_timing(times, fps, None), _by_frame(lines, times), target)
    with PyAVReader(record.path) as video:
        times = video.times()
        return write_annotated(_frames(video), choose_timing(times, video.fps, None), _by_frame(lines, times), target)


def _by_frame(lines: Lines, times: np.ndarray) -> Sequence[str] | Callable[[int], Sequence[str]]:
    """Return the lines as a function of the frame number; `times` are the display times of the frames."""
    return (lambda number: lines(float(times[number]))) if callable(lines) else lines


def annotate_events(
    record: Record, sensor: tuple[int, int], time_unit: float, lines: Sequence[str], target: Path, stream: str = ""
) -> int:
    """Render all events of a recording as a video with lines of text drawn on it.

    Args:
        record: The recording.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of one timestamp tick in seconds.
        lines: Text to draw.
        target: Video file to write.
        stream: Name of the stream of a file with several.

    Returns:
        The number of frames written.

    Raises:
        DecodeError: If the recording cannot be read.
    """
    recording = Recording(record.path, stream)
    events, _ = clean_events(recording.take(slice(None)), sensor, recording.time_unit(time_unit))
    seconds = 1e-6 * float(events.t[-1] - events.t[0])
    frames = max(round(seconds * EVENTS_FPS), MIN_FRAMES)
    timing = choose_timing(np.arange(frames) / EVENTS_FPS, EVENTS_FPS, None)
    return write_annotated(enumerate(event_frames(events, sensor, frames)), timing, lines, target)


def _images(folder: FrameFolderReader) -> Iterator[tuple[int, np.ndarray]]:
    for number in range(folder.num_frames):
        try:
            yield number, folder.read([number]).frames[0]
        except DecodeError:
            continue  # the previous frame stays visible; the prediction names the missing one


def _frames(video: PyAVReader) -> Iterator[tuple[int, np.ndarray]]:
    convert = RgbConverter()
    for number, frame in video.every_frame():
        yield number, convert(frame)
