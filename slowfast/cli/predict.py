"""`slowfast predict`: the best classes of files and folders."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import add_loader_workers, parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.utils.logging import messages_on_screen

EXAMPLE = "slowfast predict --cfg K400/K400_MLP_S16x4 clip.mp4 TEST.CHECKPOINT_FILE_PATH weights.pyth"
DESCRIPTION = f"""\
Classify videos, images, folders of extracted frames and event recordings (.npz, .npy), or folders of them. Weights are
those of TEST.CHECKPOINT_FILE_PATH, else the last checkpoint in OUTPUT_DIR. No index file is needed; views, transforms
and ensemble are the same as in testing.

  {EXAMPLE}

Writes predictions.json and predictions.csv, with the five best classes of each file. Files that cannot be read are
listed with the reason; the exit status is 0 if at least one was read. Class names are read from
DATA.PATH_TO_DATA_DIR. Config overrides, KEY VALUE pairs, follow the files.
"""
USAGE = "%(prog)s --cfg FILE [--out FOLDER] [--annotate] FILE_OR_FOLDER [...] [KEY VALUE ...]"


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast predict", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("paths", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="what to classify")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for the results (default: OUTPUT_DIR)")
    parser.add_argument(
        "--annotate",
        action="store_true",
        help="also write each video or recording as .mp4 with its classes drawn on it",
    )
    add_loader_workers(parser)
    return parse_with_config(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Classify and return the exit status: 0 if a file was read, 2 after a user error or if none was."""
    with messages_on_screen():
        return exit_status(lambda: _predict(*parse(arguments)))


def _predict(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    from slowfast.inference.output import predict_to_files

    predict_to_files(cfg, chosen.paths, chosen.out or Path(cfg.OUTPUT_DIR), annotate=chosen.annotate)
