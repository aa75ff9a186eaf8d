"""`slowfast grad-cam`: draw heat maps of what a prediction is based on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import add_loader_workers, parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.utils.logging import messages_on_screen

EXAMPLE = "slowfast grad-cam --cfg K400/K400_MLP_S16x4 clip.mp4 TEST.CHECKPOINT_FILE_PATH weights.pyth"
DESCRIPTION = f"""\
Draw Grad-CAM heat maps (arXiv 1610.02391), one PNG per video, image or folder of frames: the frames of its center clip
with the heat map of the predicted class over them. Weights as in testing.

  {EXAMPLE}
  slowfast grad-cam --cfg ImageNet/EAT_TI --list-layers

Config overrides, KEY VALUE pairs, follow the files.
"""
USAGE = "%(prog)s --cfg FILE [--layer NAME] [--class NAME] [--list-layers] FILE_OR_FOLDER [...] [KEY VALUE ...]"


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast grad-cam", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("paths", type=Path, nargs="*", metavar="FILE_OR_FOLDER", help="videos, images or folders")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for the PNGs (default: OUTPUT_DIR/grad_cam)")
    parser.add_argument(
        "--layer", default="", metavar="NAME", help="layer (default: the last one with a sufficient resolution)"
    )
    parser.add_argument(
        "--class", dest="class_name", default="", metavar="NAME", help="class name or number (default: the prediction)"
    )
    parser.add_argument("--list-layers", action="store_true", help="print the names of all layers and exit")
    add_loader_workers(parser)
    chosen, cfg = parse_with_config(parser, arguments)
    if not chosen.paths and not chosen.list_layers:
        parser.error("the following arguments are required: FILE_OR_FOLDER")
    return chosen, cfg


def main(arguments: Sequence[str]) -> int:
    """Draw and return the exit status: 0 done; 2 after a user error or if nothing could be read."""
    with messages_on_screen():
        return exit_status(lambda: _draw(*parse(arguments)))


def _draw(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    from slowfast.inference.heat_maps import HeatMaps

    maps = HeatMaps.from_config(cfg, chosen.layer)
    if chosen.list_layers:
        maps.show_layers()
    else:
        maps.draw_files(chosen.paths, chosen.class_name, chosen.out or Path(cfg.OUTPUT_DIR) / "grad_cam")
