"""Content of the report, read from the files of a run, as plain values for the page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.utils.text import sanitize
from slowfast.visualization import mistakes
from slowfast.visualization.confusion import count_confusions
from slowfast.visualization.html_report import event_runs
from slowfast.visualization.html_report.curves import training_charts
from slowfast.visualization.html_report.run_files import CONFIG, RunFiles
from slowfast.visualization.html_report.status import RunStatus, describe_run
from slowfast.visualization.html_report.summary import test_facts, test_tiles, training_facts, training_tiles
from slowfast.visualization.html_report.tables import config_table, failures_table, per_class_table
from slowfast.visualization.per_class import PER_CLASS_JSON
from slowfast.visualization.results import PREDICTIONS, TEST_RESULTS, Metric


def run_content(files: RunFiles, metrics: Sequence[Metric], state: RunStatus | None) -> dict[str, Any]:
    """Read the files of a run and return everything that the page shows; a section without files is None.

    Args:
        files: Files of the run.
        metrics: Metrics of the task, for curves and the results of validations.
        state: State of the run; None to infer it from its files.
    """
    cfg, rows = files.config(CONFIG), files.metrics()
    results, events = files.json(TEST_RESULTS, dict), event_runs.read_results(files)
    per_class = files.json(PER_CLASS_JSON, list)

    def part(name: str, build: Callable[[], Any]) -> Any:
        """Return a part of the page; None, and a problem, if the files have another structure."""
        try:
            return build()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            files.problems.append(f"{name} cannot be shown: {type(error).__name__}: {error}")
            return None

    tables = {
        "per_class": part("results per class", lambda: per_class_table(per_class)),
        "failures": part("unreadable files", lambda: failures_table(files)),
        "config": part("config", lambda: config_table(files)),
        "videos": part("results per video", lambda: event_runs.videos_table(events)),
    }
    return {
        # With the parent folder: `slowfast index` names all runs "run".
        "name": sanitize("/".join(files.folder.resolve().parts[-2:]).lstrip("/")),
        "subject": _subject(cfg),
        "written": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "run": describe_run(files, cfg, rows, events, state),
        "summary": [
            part("results of all videos", lambda: event_runs.summary(events)),
            part("results", lambda: _group("Test", test_tiles(results, metrics), test_facts(results))),
            part("training", lambda: _group("Training", training_tiles(rows, metrics), training_facts(rows, cfg))),
        ],
        "charts": part("curves", lambda: [chart.as_dict() for chart in training_charts(rows, metrics)]) or [],
        "confusion": part("confusion matrix", lambda: _confusion_matrix(files.csv(PREDICTIONS), per_class)),
        "mistakes": part("mistakes", lambda: _mistakes(files)) or [],
        "activity": part("activity", lambda: event_runs.activity(files)),
        **{name: None if table is None else table.as_dict() for name, table in tables.items()},
        "problems": files.problems,
    }


def _subject(cfg: ConfigNode | None) -> str:
    """Return the network and the datasets of a run."""
    if cfg is None:
        return ""
    datasets = [cfg.TRAIN.DATASET] if cfg.TRAIN.ENABLE else []
    datasets += [cfg.TEST.DATASET] if cfg.TEST.ENABLE and not cfg.EVENT.ENABLE else []
    mode = ["event-driven inference"] if cfg.EVENT.ENABLE else []
    return ", ".join([cfg.MODEL.MODEL_NAME, *mode, *dict.fromkeys(datasets)])


def _group(
    title: str, tiles: Sequence[Sequence[str]], facts: Sequence[Sequence[str]], warning: str = ""
) -> dict[str, Any] | None:
    return {"title": title, "tiles": tiles, "facts": facts, "warning": warning} if tiles or facts else None


def _confusion_matrix(rows: Sequence[Mapping[str, str]], per_class: Sequence[Any]) -> dict[str, Any] | None:
    """Count the predictions of a test with exclusive classes.

    Args:
        rows: Rows of predictions.csv.
        per_class: Content of per_class.json. The confusions in it tell a test with exclusive classes from others.

    Returns:
        Class names, and label, prediction and number of videos of all pairs that occur; None for another task.
    """
    names = [one.get("class_name") for one in per_class if isinstance(one, Mapping) and "confused_with" in one]
    pairs = [(row.get("label", ""), row.get("prediction", "")) for row in rows]
    read = [(int(label), int(best)) for label, best in pairs if label.isdecimal() and best.isdecimal()]
    if not read or max(map(max, read)) >= len(names):
        return None
    found = count_confusions([label for label, _ in read], [best for _, best in read], len(names))
    return {
        "names": [str(name) for name in names],
        "labels": found.labels.tolist(),
        "predictions": found.predictions.tolist(),
        "videos": found.videos.tolist(),
        "unread": len(rows) - len(read),
    }


def _mistakes(files: RunFiles) -> list[dict[str, Any]]:
    rows = files.json(f"{mistakes.FOLDER}/{mistakes.LIST}", list)
    return [{**row, "frames": _image(files, str(row.get("frames")))} for row in rows if isinstance(row, dict)]


def _image(files: RunFiles, name: str) -> str:
    """Return a JPEG of the folder of mistakes as a data URI; "" if it cannot be read."""
    path = files.folder / mistakes.FOLDER / Path(name).name
    try:
        return _data_uri(path.read_bytes())
    except OSError as error:
        files.problems.append(f"{mistakes.FOLDER}/{path.name} cannot be read: {error.strerror}")
        return ""


def _data_uri(jpeg: bytes) -> str:
    """Return a JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
