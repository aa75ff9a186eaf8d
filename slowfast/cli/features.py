"""`slowfast features`: extract the inputs of the head for all samples of a split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import add_loader_workers, parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.utils.logging import messages_on_screen

EXAMPLE = "slowfast features --cfg K400/K400_MLP_S16x4 --split train --out features.npz"
DESCRIPTION = f"""\
Extract the features that a trained model feeds to its head, for all samples of a split: one row per sample, the mean
over its TEST.NUM_ENSEMBLE_VIEWS x TEST.NUM_SPATIAL_CROPS views, or one row per view. Weights as in testing.

  {EXAMPLE}

Arrays of the .npz file (columns of the .parquet file): path, label and feature; with --views all also view and crop.
Samples that cannot be read have no row and are listed in a .csv file beside it. Config overrides, KEY VALUE pairs,
follow the options.
"""
USAGE = "%(prog)s --cfg FILE [--split test|val|train] [--out FILE] [--views mean|all] [KEY VALUE ...]"
SPLITS = ("test", "val", "train")
VIEWS = ("mean", "all")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast features", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="split of the dataset (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".npz or .parquet file (default: OUTPUT_DIR/features_SPLIT.npz)"
    )
    parser.add_argument(
        "--views", choices=VIEWS, default=VIEWS[0], help="one row per sample, or per view (default %(default)s)"
    )
    add_loader_workers(parser)
    return parse_with_config(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Extract and return the exit status: 0 done, failures listed; 2 after a user error or if nothing was read."""
    with messages_on_screen():
        return exit_status(lambda: _extract(*parse(arguments)))


def _extract(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    from slowfast.inference.features import extract_to_file

    out = chosen.out or Path(cfg.OUTPUT_DIR) / f"features_{chosen.split}.npz"
    extract_to_file(cfg, chosen.split, chosen.views, out)
