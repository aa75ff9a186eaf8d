"""All trackers of a run: opening, recording curves and images, and isolation of the run from their failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from slowfast.config.keys import KEYS
from slowfast.config.node import ConfigNode
from slowfast.config.rules import FilePath
from slowfast.engine.trackers.base import FAILED, TRACKER_REGISTRY, NamedImage, RunInfo, Tracker
from slowfast.utils.distributed import World
from slowfast.utils.logging import get_logger
from slowfast.utils.text import sanitize
from slowfast.utils.text_files import from_json, write_json
from slowfast.visualization.metrics_log import METRICS, Row, read_metrics
from slowfast.visualization.results import LOSS, Metric

Result = TypeVar("Result")
RUN_IDS = "trackers.json"  # in OUTPUT_DIR: run ID of each tracker, for resuming
TENSORBOARD = "tensorboard"
# Always part of the hparams, in addition to keys that differ from their defaults.
COMPARED = (
    *("MODEL.MODEL_NAME", "DATA.NUM_FRAMES", "TRAIN.BATCH_SIZE", "SOLVER.OPTIMIZING_METHOD", "SOLVER.BASE_LR"),
    *("SOLVER.WEIGHT_DECAY", "SOLVER.MAX_EPOCH", "SOLVER.WARMUP_EPOCHS", "RNG_SEED"),
)
# Sections that do not change a result.
_NOT_COMPARED = ("TENSORBOARD.", "TRACKING.", "WANDB.", "MLFLOW.", "PROFILE.")

# Names that differ from those in metrics.jsonl.
_NAMES = {"top1": "top1_acc", "top5": "top5_acc"}
_WITHOUT_SPLIT = ("lr", "lr_min", "lr_max")
_SYSTEM = {"data_s": "system/data_seconds", "compute_s": "system/compute_seconds", "memory_gib": "system/memory_gib"}


def check_trackers(cfg: ConfigNode) -> None:
    """Raise ConfigError for trackers that cannot be used here."""
    for name in backends(cfg):
        TRACKER_REGISTRY.find(name, "TRACKING.BACKENDS").check(cfg)


def backends(cfg: ConfigNode) -> list[str]:
    """Return the names of the trackers of a config, each once."""
    names = [TENSORBOARD] if cfg.TENSORBOARD.ENABLE else []
    return list(dict.fromkeys([*names, *cfg.TRACKING.BACKENDS]))


class Trackers:
    """All trackers of a run; without any, or before `open`, nothing is recorded.

    A tracker that raises an exception is reported once and then disabled; the run continues.

    Args:
        cfg: Config of the run; None to record nothing.
    """

    def __init__(self, cfg: ConfigNode | None = None) -> None:
        self._cfg = cfg
        self._metrics: tuple[Metric, ...] = ()
        self._open: dict[str, Tracker] = {}
        self._was_opened = False
        self.step = 0  # last recorded step, for records without a step

    @classmethod
    def from_config(cls, cfg: ConfigNode, world: World) -> Trackers:
        """Build from TRACKING and TENSORBOARD.ENABLE; only those of the main process record anything."""
        return cls(cfg if world.is_main else None)

    def open(self, metrics: Iterable[Metric], done_steps: int | None = None) -> None:
        """Start recording, or resume the run recorded in OUTPUT_DIR; a second call only adds metrics.

        Args:
            metrics: Metrics to record, besides the loss.
            done_steps: Training steps done so far, 0 for a new training; None if nothing is trained.
        """
        cfg, self._metrics = self._cfg, tuple(dict.fromkeys([*self._metrics, *metrics]))
        if cfg is None or self._was_opened or not backends(cfg):
            return
        self._was_opened = True
        output = Path(cfg.OUTPUT_DIR)
        ids = {} if done_steps == 0 else _read_ids(output / RUN_IDS)
        rows = read_metrics(output / METRICS) if done_steps is None else []
        self.step = done_steps or (rows[-1]["step"] if rows else 0)
        run = _describe(cfg, self._metrics, None if done_steps is None else done_steps + 1)
        for name in backends(cfg):
            build = TRACKER_REGISTRY.get(name).from_config
            tracker = _attempt(name, partial(build, cfg, replace(run, run_id=ids.get(name, ""))))
            if tracker is not None:
                self._open[name] = tracker
        self._each(lambda name, tracker: ids.update({name: tracker.run_id}))
        found = {name: number for name, number in ids.items() if number}
        if found or (output / RUN_IDS).exists():
            write_json(output / RUN_IDS, found, "OUTPUT_DIR")

    def write(self, row: Row) -> None:
        """Record the metrics of a row of metrics.jsonl."""
        self.scalars(curve_values(row, self._metrics), row["step"])

    def results(self, values: Mapping[str, Any]) -> None:
        """Record the metrics of a test."""
        self.write({"split": "test", "step": self.step, **values})

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record points of curves by tag."""
        self.step = step
        if values:
            self._each(lambda _, tracker: tracker.scalars(values, step))

    def image(self, tag: str, image: np.ndarray) -> None:
        """Record an image uint8 (H, W, 3) RGB."""
        self.images(tag, [NamedImage(image, tag)])

    def images(self, tag: str, images: Sequence[NamedImage]) -> None:
        """Record images, with secrets in their names and captions redacted."""
        shown = [NamedImage(one.image, sanitize(one.name), sanitize(one.caption)) for one in images]
        if shown:
            self._each(lambda _, tracker: tracker.images(tag, shown, self.step))

    @property
    def active(self) -> bool:
        """True if anything is recorded."""
        return bool(self._open)

    def close(self, outcome: str = FAILED) -> None:
        """Close all trackers with the outcome of the run; no effect the second time."""
        self._each(lambda _, tracker: tracker.close(outcome))
        self._open = {}

    def _each(self, do: Callable[[str, Tracker], Any]) -> None:
        for name, tracker in list(self._open.items()):
            if not _attempt(name, partial(_done, do, name, tracker)):
                del self._open[name]


def _done(do: Callable[[str, Tracker], Any], name: str, tracker: Tracker) -> bool:
    do(name, tracker)
    return True


def _attempt(name: str, work: Callable[[], Result]) -> Result | None:
    """Call a tracker and return the result; None, with a warning, if it fails."""
    try:
        return work()
    except Exception as error:  # any library may raise anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        get_logger().warning(f"Tracker {name} failed and is disabled for the rest of the run: {reason}")
        return None


def _read_ids(path: Path) -> dict[str, str]:
    """Return the run IDs of the trackers by name; empty if the file is missing or damaged."""
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(number) for name, number in content.items()} if isinstance(content, dict) else {}


def _describe(cfg: ConfigNode, metrics: Sequence[Metric], first_step: int | None) -> RunInfo:
    """Return the description of a run, without secrets."""
    text = cfg.dump()
    config = {key: _plain(value) for key, value in ConfigNode(yaml.safe_load(text)).keys_by_path()}
    hparams = {key: value for key, value in config.items() if key in COMPARED or _is_changed(key, value)}
    folder = Path(cfg.OUTPUT_DIR)
    name = sanitize(cfg.TRACKING.RUN_NAME or folder.resolve().name)
    return RunInfo(name, cfg.TRACKING.PROJECT, folder, config, text, hparams, curve_tags(metrics), first_step)


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _is_changed(key: str, value: Any) -> bool:
    """Return whether a value that can change a result differs from its default."""
    declared = KEYS.get(key)
    if declared is None or key.startswith(_NOT_COMPARED) or isinstance(declared.rule, FilePath):
        return False
    return bool(value != _plain(declared.default))


def curve_values(row: Row, metrics: Sequence[Metric]) -> dict[str, float]:
    """Return the points of curves in a row of metrics.jsonl, by tag.

    Losses and metrics get tags such as ``train/loss`` and ``val/top1_acc``, the learning rate is ``lr``, and time and
    memory of a training get tags such as ``system/data_seconds``. Everything else, such as the epoch, the number of
    videos and the remaining time, is bookkeeping and not a curve.

    Args:
        row: Numbers by name, with the split.
        metrics: Metrics of the task, besides the loss.
    """
    known = {LOSS.key, *(metric.key for metric in metrics)}
    values = {}
    for name, value in row.items():
        if not isinstance(value, (int, float)):
            continue
        if name in known:
            values[tag_of(row["split"], name)] = float(value)
        elif name in _WITHOUT_SPLIT:
            values[name] = float(value)
        elif name in _SYSTEM:
            values[_SYSTEM[name]] = float(value)
    return values


def curve_tags(metrics: Sequence[Metric]) -> list[str]:
    """Return the tags used to compare runs: validation and test metrics."""
    return [tag_of("val", LOSS.key), *(tag_of(split, one.key) for split in ("val", "test") for one in metrics)]


def tag_of(split: str, name: str) -> str:
    """Return the tag of a loss or metric, such as ``val/top1_acc``."""
    return f"{split}/{_NAMES.get(name, name)}"
