"""Writing of report.html."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.utils.files import atomic_write_text
from slowfast.utils.json_files import to_json
from slowfast.visualization.heat_map import HEAT_COLORS
from slowfast.visualization.html_report.content import run_content
from slowfast.visualization.html_report.run_files import RunFiles
from slowfast.visualization.html_report.status import RunStatus
from slowfast.visualization.results import Metric

REPORT = "report.html"
STYLE = "report.css"
# In the order in which they use each other.
SCRIPTS = ("elements.js", "table.js", "chart.js", "confusion.js", "activity.js", "report.js")
# The page can load nothing, whatever is in it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


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
    """Return the page. The content is data of a script that creates text nodes only, so that no text becomes markup."""
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
