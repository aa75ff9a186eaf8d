"""Predictions of files, and of windows of long videos (`slowfast predict --window`): tables on the screen and files.

The files are predictions.json and predictions.csv, or those of :mod:`slowfast.inference.segments`; failed.csv; and
annotated videos.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.samples import FoundSamples, SampleKind, find_samples
from slowfast.datasets.types import Failure, FailureLedger
from slowfast.engine.evaluate import EvaluationTime
from slowfast.engine.state import tested_weights
from slowfast.errors import DataError, UserError
from slowfast.inference.annotate import annotate_files, annotate_segments
from slowfast.inference.predictor import Prediction, Predictor
from slowfast.inference.segments import SegmentLog, VideoSegments, segments_table, write_segments
from slowfast.inference.sliding import SegmentCollector, SlidingPredictor
from slowfast.inference.windows import WindowLayout, WindowOptions
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import Progress, phase, show, show_table
from slowfast.utils.signals import Stopped, StopSignal
from slowfast.utils.text_files import write_json
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

TABLE, LIST, FAILED = "predictions.json", PREDICTIONS, "failed.csv"
SHOWN = 20  # files in the table on the screen
_SIGNALLED = 128  # the signal number is added, as in shells
_RARELY = 10**9  # windows between log lines, so many that only time triggers them


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


def segments_to_files(
    cfg: ConfigNode, paths: Sequence[Path], output: Path, options: WindowOptions, *, annotate: bool = False
) -> int:
    """Classify the windows of videos, print the segments and write the results.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run; the results then cover the windows processed so far.

    Args:
        cfg: Config for evaluating the model.
        paths: Videos, folders of frames, and folders of them.
        output: Output folder.
        options: Windows.
        annotate: Also write each video as .mp4 with the classes of each moment drawn on it.

    Returns:
        The exit status: 0, or 128 + n after signal n.

    Raises:
        UserError: If weights are missing or the network does not take clips.
        DataError: If no window can be read.
    """
    with phase("building the model and loading its weights"):
        sliding = SlidingPredictor.from_config(cfg, options)
        found = find_samples(paths, sliding.kind)
    names, folder = sliding.predictor.names, results_folder(output)
    ledger, log = FailureLedger(found.count), SegmentLog(folder, names)
    ledger.add(found.refused, log=found.count > 1)  # a single failure is reported as the error
    collector = SegmentCollector(options.merge, log.write)
    progress = Progress("predict", 0, "windows", shown=True, every=_RARELY)
    with StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
        try:
            sliding.scores(found.records, collector.add, collector.begin, ledger, progress, lambda: stop.seen)
            collector.finish()
        finally:
            progress.close()
            log.close()
    videos = [video for video in collector.videos.values() if video.segments]
    if not videos:
        if stop.seen:
            raise KeyboardInterrupt if stop.name == signal.SIGINT.name else Stopped(stop.name)
        raise DataError(_nothing_read(found, ledger))
    files = write_segments(videos, names, run_facts(cfg) | _window_facts(sliding.layout, options), ledger.all, folder)
    write_failed(ledger.all, folder / FAILED)
    files |= {"failed files": folder / FAILED} if ledger.all else {}
    show_table(segments_table(videos, names))
    if annotate and not stop.seen:
        with phase("annotating videos"):
            files["annotated videos"] = annotate_segments(cfg, videos, names, folder / "annotated")
    show(_segments_summary(videos, ledger, found, sliding))
    show_table(files_table(files))
    if stop.seen:
        without = " and no videos are annotated" if annotate else ""
        get_logger().warning(f"Received {stop.name}. The results cover the windows processed so far{without}")
        return _SIGNALLED + signal.Signals[stop.name]
    return 0


def _window_facts(layout: WindowLayout, options: WindowOptions) -> dict[str, object]:
    return {"window": round(layout.window, 4), "step": round(layout.step, 4), "merged": options.merge}


def _segments_summary(
    videos: Sequence[VideoSegments], ledger: FailureLedger, found: FoundSamples, sliding: SlidingPredictor
) -> str:
    windows = sum(segment.windows for video in videos for segment in video.segments)
    parts = [f"{len(videos)} files read", f"{windows} windows"]
    if ledger.lost:
        parts.append(f"{len(ledger.lost)} failed (reasons in {FAILED})")
    if found.others:
        parts.append(f"{found.others} files of other types skipped")
    time, seconds = sliding.predictor.time, sum(video.seconds for video in videos)
    speed = f", {seconds / time.seconds:.1f} times real time" if time.seconds > 0 else ""
    return f"{', '.join(parts)}: {throughput(time)}{speed}"


def _nothing_read(found: FoundSamples, ledger: FailureLedger) -> str:
    first = ledger.all[0]
    line = f"{first.name}: {first.reason}"
    return line if found.count == 1 else f"none of {found.count} files and folders can be read. The first one: {line}"
