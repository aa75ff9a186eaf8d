"""`slowfast report`: build report.html of a run from the files in its OUTPUT_DIR."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.errors import UserError
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show
from slowfast.utils.text import plain

EXAMPLE = "slowfast report output/demo"
DESCRIPTION = f"""\
Build report.html in the OUTPUT_DIR of a run from the files that are there: results, curves, confusion matrix, results
per class, the most confident mistakes, unreadable files, the config, and the activity of event-driven inference. Runs
write it themselves; this command builds it again, also for a run that was killed or is in progress.

  {EXAMPLE}

The page is one file and loads nothing from elsewhere.
"""
# A run has at least one of these files.
_OF_RUNS = ("config.yaml", "metrics.jsonl", "test_results.json", "event_results.json")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line and import the modules of --import; UserError if either fails."""
    parser = CommandParser("slowfast report", DESCRIPTION, "%(prog)s OUTPUT_DIR [--import MODULE]", EXAMPLE)
    parser.add_argument("folder", type=Path, metavar="OUTPUT_DIR", help="output folder of a run")
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Build the report and return the exit status: 0 done, 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _build(parse(arguments)))


def _build(chosen: argparse.Namespace) -> None:
    folder: Path = chosen.folder
    if not folder.is_dir():
        raise UserError(f"{plain(folder)} is not a folder. Give the OUTPUT_DIR of a run")
    if not any((folder / name).is_file() for name in _OF_RUNS):
        raise UserError(f"{plain(folder)} contains none of {', '.join(_OF_RUNS)}. Give the OUTPUT_DIR of a run")
    from slowfast.engine.tasks import task_class
    from slowfast.visualization.html_report.page import write_report
    from slowfast.visualization.html_report.run_files import CONFIG, RunFiles

    cfg = RunFiles(folder).config(CONFIG)
    metrics = () if cfg is None else task_class(cfg).reported_metrics()
    show(f"report  {write_report(folder, metrics)}")
