"""`slowfast run-exported`: classify files with an exported model, without its config and checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import add_loader_workers, split_overrides
from slowfast.utils.files import check_output_folder
from slowfast.utils.logging import messages_on_screen

EXAMPLE = "slowfast run-exported model.onnx clip.mp4"
DESCRIPTION = f"""\
Classify videos, images, folders of extracted frames or event recordings with a file of slowfast export: .onnx by ONNX
Runtime, .pt2 by PyTorch, on the CPU. No config and no checkpoint is needed: preprocessing, views and class names are in
the file, so the scores are those of slowfast predict.

  {EXAMPLE}
  slowfast run-exported model.onnx clips/ --out results TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1

Writes predictions.json and predictions.csv, as slowfast predict does; failed.csv lists files that cannot be read. The
exit status is 0 if at least one was read. Views and ensemble can be overridden by KEY VALUE pairs after the files. A
.pt2 file is a program: run only files that you trust.
"""
USAGE = "%(prog)s FILE.onnx|FILE.pt2 FILE_OR_FOLDER [...] [--out FOLDER] [options] [KEY VALUE ...]"
DEFAULT_OUT = Path("output")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line.

    Returns:
        The options, and the config overrides.

    Raises:
        UserError: If it cannot be parsed.
    """
    parser = CommandParser("slowfast run-exported", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("file", type=Path, metavar="FILE", help="exported .onnx or .pt2 file")
    parser.add_argument("paths", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="videos, images or folders")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FOLDER", help="folder for the results (default: %(default)s)"
    )
    parser.add_argument("--annotate", action="store_true", help="also write each video with its classes drawn on it")
    add_loader_workers(parser)
    words, overrides = split_overrides(arguments, parser.flags())
    chosen = parser.parse_and_import(words)
    if chosen.num_workers is not None:
        overrides = ["DATA_LOADER.NUM_WORKERS", str(chosen.num_workers), *overrides]
    return chosen, overrides


def main(arguments: Sequence[str]) -> int:
    """Classify and return the exit status: 0 if a file was read, 2 after a user error or if none was."""
    with messages_on_screen():
        return exit_status(lambda: _run(*parse(arguments)))


def _run(chosen: argparse.Namespace, overrides: Sequence[str]) -> None:
    check_output_folder(chosen.out, "--out")
    from slowfast.inference.exported import run_exported

    run_exported(chosen.file, chosen.paths, chosen.out, overrides, annotate=chosen.annotate)
