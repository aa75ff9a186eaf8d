"""The command line of `tools/extract_features.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import parse_tool_line
from slowfast.config.node import ConfigNode
from slowfast.inference.features import MEAN, VIEWS, check_target, extract_features, names_of_splits, write_features
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show, show_table
from slowfast.visualization.results import write_failed
from slowfast.visualization.tables import files_table

EXAMPLE = "python tools/extract_features.py --cfg configs/K400/K400_MLP_S16x4.yaml --split train --out features.npz"
DESCRIPTION = f"""\
Write what the head of a trained network sees of every clip of an index: one row a video, the mean over the views of
TEST.NUM_ENSEMBLE_VIEWS x NUM_SPATIAL_CROPS, or one row a view. Weights as for a test; one process.

  {EXAMPLE}

Arrays of the .npz (columns of the .parquet): path, label, feature; with --views all also view and crop. What cannot
be read has no row and is listed in a .csv beside the file. What follows the options are KEY VALUE pairs.
"""
USAGE = "%(prog)s --cfg FILE [--split test|val|train] [--out FILE] [--views mean|all] [KEY VALUE ...]"


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """The command line's values and the config. Raises UserError."""
    parser = CommandParser("extract_features.py", DESCRIPTION, USAGE, EXAMPLE)
    splits = names_of_splits()
    parser.add_argument("--split", choices=splits, default=splits[0], help="index to go over (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".npz or .parquet (default OUTPUT_DIR/features_SPLIT.npz)"
    )
    parser.add_argument("--views", choices=VIEWS, default=MEAN, help="one row a video or a view (default %(default)s)")
    return parse_tool_line(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Extract; the exit status: 0 done, failures listed, 2 nothing could be read, or the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _extract(*parse(arguments)))


def _extract(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    out = chosen.out or Path(cfg.OUTPUT_DIR) / f"features_{chosen.split}.npz"
    check_target(out)
    features = extract_features(cfg, chosen.split, chosen.views)
    write_features(features, cfg.TEST.NUM_SPATIAL_CROPS, out)
    failed, lost = out.with_name(f"{out.stem}_failed.csv"), sum(failure.lost for failure in features.failures)
    write_failed(features.failures, failed)
    shape = " x ".join(map(str, features.rows.shape))
    show(f"features {shape} of {len(features.records)} files, {lost} could not be read")
    show_table(files_table({"features": out} | ({"what could not be read": failed} if features.failures else {})))
