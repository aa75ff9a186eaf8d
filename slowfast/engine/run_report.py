"""Log of a training, updates of report.html, and images for trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, VAL, class_names
from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.index.entries import classes_of
from slowfast.engine.meters import StepProfiler
from slowfast.engine.state import Position
from slowfast.engine.tasks import Evaluator, Task, task_class
from slowfast.engine.trackers.base import NamedImage
from slowfast.engine.trackers.session import Trackers
from slowfast.utils.distributed import World
from slowfast.utils.logging import get_logger
from slowfast.utils.machine import peak_memory_gib
from slowfast.utils.screen import Progress, phase
from slowfast.visualization.first_batch import draw_sheet
from slowfast.visualization.html_report.page import REPORT, write_report
from slowfast.visualization.html_report.run_files import RunStatus
from slowfast.visualization.metrics_log import METRICS, MetricsLog, Row
from slowfast.visualization.results import LOSS, VideoPrediction
from slowfast.visualization.sheets import film_strip, most_confident, read_again

_MAX_SHARE = 0.05  # largest share of the training time for report.html, and for confusion matrices of validations


def report_run(cfg: ConfigNode, state: RunStatus, task: Task | None = None) -> dict[str, Path]:
    """Write the report of a run and return its description and path; any failure is only logged as a warning.

    Args:
        cfg: Config of the run.
        state: State of the run.
        task: Task of the run, whose metrics are shown; that of MODEL.TASK by default.
    """
    folder = Path(cfg.OUTPUT_DIR)
    try:
        with phase("writing the report"):
            metrics = (task or task_class(cfg)).reported_metrics()
            return {"report": write_report(folder, metrics, state, cfg)}
    except Exception as error:
        get_logger().warning(f"Cannot write {folder / REPORT}: {error}")
        return {}


class TimeShare:
    """Limits repeated work to _MAX_SHARE of the time: after s seconds of work, it is due again s / _MAX_SHARE later."""

    def __init__(self) -> None:
        self._due = 0.0  # time.monotonic() from which on it is due

    @property
    def is_due(self) -> bool:
        """True if enough time has passed since the last work."""
        return time.monotonic() >= self._due

    @contextmanager
    def work(self) -> Iterator[None]:
        """Return a context that measures the work done inside."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self._due = end + (end - start) / _MAX_SHARE


CONFUSION = "confusion matrix"  # description of the file, see `draw_confusion_matrix`


class ValidationMatrices:
    """Records the confusion matrix of validations, of fewer if drawing it took more than _MAX_SHARE of the time.

    Args:
        trackers: Trackers of the run.
        class_names: Returns the names of all classes.
    """

    def __init__(self, trackers: Trackers, class_names: Callable[[], Sequence[str]]) -> None:
        self._trackers, self._class_names = trackers, class_names
        self._time = TimeShare()

    def record(self, evaluator: Evaluator, last: bool) -> None:
        """Record the confusion matrix of a validation, always that of the last one.

        Any failure, such as a missing matplotlib, is logged once.
        """
        if not self._trackers.active or not (last or self._time.is_due):
            return
        try:
            with self._time.work():
                image = evaluator.confusion_image(self._class_names())
        except Exception as error:
            get_logger().warning(f"Cannot draw the confusion matrices of the validations: {error}")
            self._trackers = Trackers()
            return
        if image is not None:
            self._trackers.image("val/confusion_matrix", image)


class TrainingLog:
    """Everything that a training shows: progress, metrics.jsonl, trackers, a profile and report.html.

    Args:
        cfg: Config of the run.
        world: Processes of the run; the main one writes.
        task: Task of the training.
        trackers: Record the metrics; the caller closes them.
        epoch_steps: Steps per epoch.
    """

    def __init__(self, cfg: ConfigNode, world: World, task: Task, trackers: Trackers, epoch_steps: int) -> None:
        self.cfg, self.world, self.task, self.trackers = cfg, world, task, trackers
        self._epoch_steps, self._note = epoch_steps, ""
        self._matrices = ValidationMatrices(trackers, partial(class_names, cfg, VAL))
        self._report_time = TimeShare()

    def open(self, done: int) -> None:
        """Start after `done` steps of an earlier run."""
        cfg, main, total = self.cfg, self.world.is_main, self.cfg.SOLVER.MAX_EPOCH * self._epoch_steps
        self._progress = Progress("train", total, "steps", main, cfg.LOG_PERIOD, done)
        self._file = MetricsLog(Path(cfg.OUTPUT_DIR) / METRICS, done) if main else None
        self._profiler = StepProfiler.from_config(cfg, self.world, TRAIN)
        self.trackers.open((*self.task.step_metrics, *self.task.metrics), done)

    def advance(self) -> None:
        """Count a finished step."""
        self._progress.advance(self._note)
        if self._profiler is not None:
            self._profiler.step()

    def steps(self, at: Position, values: dict[str, float]) -> None:
        """Record the averages of the steps since the last call."""
        values |= {"memory_gib": peak_memory_gib(self.world.device), "left_s": self._progress.left()}
        epoch = at.epoch + at.step / self._epoch_steps
        self._write({"split": "train", "epoch": round(epoch, 4), "step": at.total(self._epoch_steps), **values})
        metrics = "".join(f"{one.title} {one.text(values[one.key], digits=1)}  " for one in self.task.step_metrics)
        self._note = (
            f"epoch {epoch:.2f}  loss {values['loss']:.4f}  {metrics}lr {values['lr']:.2e}  "
            f"data {values['data_s']:.3f} s  compute {values['compute_s']:.3f} s  {values['memory_gib']:.2f} GiB"
        )

    def validation(
        self, at: Position, values: dict[str, float], evaluator: Evaluator, seconds: float, is_best: bool
    ) -> None:
        """Record the loss and the metrics of a validation at the end of an epoch."""
        epoch, videos = at.epoch + 1, len(evaluator.predictions)
        row = {"split": "val", "epoch": epoch, "step": at.total(self._epoch_steps), **values}
        self._write(row | {"videos": videos, "failed": evaluator.failed, "seconds": round(seconds, 3)})
        reported = [one for one in (*self.task.metrics, LOSS) if one.key in values]
        text = ", ".join(f"{one.title} {one.text(values[one.key])}" for one in reported)
        failed = f", {evaluator.failed} of them unreadable" if evaluator.failed else ""
        best = "; best so far" if is_best else ""
        get_logger().info(f"epoch {epoch}: validation {text} of {videos} videos{failed}{best}")
        self._matrices.record(evaluator, last=epoch == self.cfg.SOLVER.MAX_EPOCH)

    def update_report(self) -> None:
        """Write report.html, unless the last update was so recent that updates would slow down the training."""
        if self.world.is_main and self._report_time.is_due:
            with self._report_time.work():
                report_run(self.cfg, RunStatus.RUNNING, self.task)

    def close(self) -> None:
        """Close everything but the trackers."""
        for one in (self._progress, self._file, self._profiler):
            if one is not None:
                one.close()

    def _write(self, row: Row) -> None:
        if self._file is not None:
            self._file.write(row)
        self.trackers.write(row)


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
    wrong = most_confident(evaluator.predictions, cfg.TRACKING.WRONG_PREDICTIONS)
    images = [image for one in wrong if (image := _image(dataset, one, class_names)) is not None]
    trackers.images("test/wrong_predictions", images)


def _image(dataset: EvalDataset, prediction: VideoPrediction, names: Sequence[str]) -> NamedImage | None:
    """Return frames of a video with label, prediction and score; None, with a warning, if it cannot be read again."""
    best, score = prediction.best[0]
    label = ", ".join(names[number] for number in classes_of(prediction.label)) or "no class"
    caption = f"label {label}, prediction {names[best]} ({100 * score:.0f} %)"
    try:
        frames = read_again(dataset, prediction).preview()
    except Exception as error:  # any reader may raise anything
        get_logger().warning(f"Cannot draw {prediction.name}: {error}")
        return None
    sheet = draw_sheet([film_strip(frames)], [caption], prediction.name)
    return NamedImage(sheet, prediction.name, f"{prediction.name}: {caption}")
