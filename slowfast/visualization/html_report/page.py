"""Content of report.html, read from the files of a run, and the page that shows it."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.utils.files import atomic_write_text
from slowfast.utils.text import sanitize
from slowfast.utils.text_files import to_json
from slowfast.visualization.heat_map import HEAT_COLORS
from slowfast.visualization.html_report.curves import training_charts
from slowfast.visualization.html_report.run_files import CONFIG, RunFiles, RunStatus, describe_run
from slowfast.visualization.html_report.sections import (
    config_table,
    event_activity,
    event_summary,
    event_videos_table,
    failures_table,
    per_class_table,
    read_event_results,
    test_facts,
    test_tiles,
    training_facts,
    training_tiles,
)
from slowfast.visualization.per_class import PER_CLASS_JSON, count_confusions
from slowfast.visualization.results import PREDICTIONS, TEST_RESULTS, Metric
from slowfast.visualization.sheets import MISTAKES, MISTAKES_LIST

REPORT = "report.html"
STYLE = "report.css"
# In the order of their dependencies.
SCRIPTS = ("elements.js", "table.js", "chart.js", "confusion.js", "activity.js", "report.js")
# Forbids loading anything, whatever the page contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def run_content(files: RunFiles, metrics: Sequence[Metric], state: RunStatus | None) -> dict[str, Any]:
    """Read the files of a run and return everything that the page shows; a section without files is None.

    Args:
        files: Files of the run.
        metrics: Metrics of the task, for curves and the results of validations.
        state: State of the run; None to infer it from its files.
    """
    cfg, rows = files.config(CONFIG), files.metrics()
    results, events = files.json(TEST_RESULTS, dict), read_event_results(files)
    per_class = files.json(PER_CLASS_JSON, list)

    def part(name: str, build: Callable[[], Any]) -> Any:
        """Return a part of the page; None, with a problem recorded, if the files have an unexpected structure."""
        try:
            return build()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            files.problems.append(f"{name} cannot be shown: {type(error).__name__}: {error}")
            return None

    tables = {
        "per_class": part("results per class", lambda: per_class_table(per_class)),
        "failures": part("unreadable files", lambda: failures_table(files)),
        "config": part("config", lambda: config_table(files)),
        "videos": part("results per video", lambda: event_videos_table(events)),
    }
    return {
        # With the parent folder: `slowfast index` names all runs "run".
        "name": sanitize("/".join(files.folder.resolve().parts[-2:]).lstrip("/")),
        "subject": _subject(cfg),
        "written": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "run": describe_run(files, cfg, rows, events, state),
        "summary": [
            part("results of all videos", lambda: event_summary(events)),
            part("results", lambda: _group("Test", test_tiles(results, metrics), test_facts(results))),
            part("training", lambda: _group("Training", training_tiles(rows, metrics), training_facts(rows, cfg))),
        ],
        "charts": part("curves", lambda: [chart.as_dict() for chart in training_charts(rows, metrics)]) or [],
        "confusion": part("confusion matrix", lambda: _confusion_matrix(files.csv(PREDICTIONS), per_class)),
        "mistakes": part("mistakes", lambda: _mistakes(files)) or [],
        "activity": part("activity", lambda: event_activity(files)),
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
        per_class: Content of per_class.json. Confusions in it indicate a test with exclusive classes.

    Returns:
        Class names, and label, prediction and number of videos of all pairs that occur; None for other tasks.
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
    rows = files.json(f"{MISTAKES}/{MISTAKES_LIST}", list)
    return [{**row, "frames": _image(files, str(row.get("frames")))} for row in rows if isinstance(row, dict)]


def _image(files: RunFiles, name: str) -> str:
    """Return a JPEG of the folder of mistakes as a data URI; "" if it cannot be read."""
    path = files.folder / MISTAKES / Path(name).name
    try:
        return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        files.problems.append(f"{MISTAKES}/{path.name} cannot be read: {error.strerror}")
        return ""


def write_report(
    folder: Path, metrics: Sequence[Metric] = (), state: RunStatus | None = None, own: ConfigNode | None = None
) -> Path:
    """Build report.html from the files of a run.

    Args:
        folder: OUTPUT_DIR.
        metrics: Metrics of the task, for training steps and validations.
        state: State of the run; None to infer it from its files.
        own: Config of this run; None to read it from its file.

    Returns:
        The path of the report, which is written completely or not at all.
    """
    path = folder / REPORT
    atomic_write_text(path, render(run_content(RunFiles(folder, own), metrics, state)), "OUTPUT_DIR")
    return path


def render(content: dict[str, Any]) -> str:
    """Return the page. The content is data for a script that only creates text nodes, so text never becomes markup."""
    data = to_json(content | {"colors": _heat_colors()})
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    scripts = "\n".join(_asset(name) for name in SCRIPTS)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(content["name"])} - slowfast report</title>
<link rel="icon" href="data:,">
<style>
{_asset(STYLE)}</style>
</head>
<body>
<noscript><p>This report needs JavaScript. Everything it uses is in this file; it loads nothing.</p></noscript>
<script type="application/json" id="content">{data}</script>
<script>
"use strict";
(() => {{
{scripts}}})();
</script>
</body>
</html>
"""


@cache
def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


@cache
def _heat_colors() -> str:
    """Return the 256 colors of heat maps as hexadecimal RGB."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return str(cv2.applyColorMap(levels, HEAT_COLORS)[:, 0, ::-1].tobytes().hex())
