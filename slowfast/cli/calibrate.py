"""`slowfast calibrate`: find the threshold of event-driven inference."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from slowfast.cli.command import CommandParser, exit_status, number
from slowfast.cli.setup import parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.config.parse import base_reference, find_config
from slowfast.errors import UserError
from slowfast.utils.files import atomic_write_text, check_output_file
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import plain

if TYPE_CHECKING:
    from slowfast.event_driven.calibrate import Candidate, Goal


EXAMPLE = "slowfast calibrate --cfg ImageNet/EVMLP videos --top1 0.99"
DESCRIPTION = f"""\
Find the largest EVENT.THRESHOLD at which event-driven inference agrees with dense inference as closely as requested,
on the frames of some videos, and write a config with it.

  {EXAMPLE}

Weights are those of TEST.CHECKPOINT_FILE_PATH, else the last checkpoint in OUTPUT_DIR; the other EVENT keys are taken
from the config. All frames are kept in memory: EVENT.MAX_FRAMES limits the frames per video. Config overrides, KEY
VALUE pairs, follow the files.
"""
USAGE = "%(prog)s --cfg FILE FILE_OR_FOLDER [...] [--top1 FRACTION | --logit-error E] [--out FILE] [KEY VALUE ...]"
DEFAULT_TOP1 = 0.99
_UNTRAINED = "The weights are untrained (random): calibrate again with trained ones"
KEYS = ("THRESHOLD", "REFERENCE", "GATE", "KEYFRAME_EVERY", "PRECISION")  # keys that the agreement depends on


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast calibrate", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("videos", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="videos to calibrate on")
    goal = parser.add_mutually_exclusive_group()
    top1 = f"minimum fraction of frames with the same top-1 class (default {DEFAULT_TOP1})"
    goal.add_argument("--top1", type=number(0, 1), metavar="FRACTION", help=top1)
    error = "maximum of the mean |difference| / largest |logit|"
    goal.add_argument("--logit-error", type=number(0, 1e6), metavar="E", help=error)
    out = "config to write (default: OUTPUT_DIR/calibrated.yaml)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=out)
    return parse_with_config(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Calibrate and return the exit status: 0 done, 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _calibrate(*parse(arguments)))


def _calibrate(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    from slowfast.event_driven.calibrate import Calibration, Goal, find_threshold
    from slowfast.event_driven.network import check_network
    from slowfast.event_driven.sources import find_files
    from slowfast.utils.distributed import init_distributed

    base, out = find_config(chosen.cfg), chosen.out or Path(cfg.OUTPUT_DIR) / "calibrated.yaml"
    check_network(cfg)
    if cfg.MODEL.FRAMEWISE:
        raise UserError('MODEL.FRAMEWISE is set, but calibration takes videos frame by frame. Set MODEL.FRAMEWISE ""')
    check_output_file(out, "--out")
    if os.path.realpath(out) == os.path.realpath(base):
        raise UserError(f"--out {plain(out)} is the file of --cfg, which the new config builds on. Choose another file")
    if chosen.logit_error is not None:
        goal = Goal(logit_error=chosen.logit_error)
    else:
        goal = Goal(top1=DEFAULT_TOP1 if chosen.top1 is None else chosen.top1)
    sources = find_files(chosen.videos, cfg.DATA.DECODING_THREADS)
    calibration = Calibration(cfg, init_distributed(cfg.NUM_GPUS).device, sources)
    show(f"{len(calibration.videos)} videos, {sum(map(len, calibration.videos))} frames; goal: {goal}")
    best, tried = find_threshold(calibration.measure, goal)
    show_table(candidates_table(tried, best))
    atomic_write_text(out, calibrated_yaml(cfg, base, out, best, goal, calibration.untrained))
    show(f"EVENT.THRESHOLD {best.threshold:g}, written to {out}")
    if calibration.untrained:
        show(_UNTRAINED)


def candidates_table(tried: Sequence[Candidate], best: Candidate) -> str:
    """Return a table with one line per threshold; the chosen one is marked."""
    from tabulate import tabulate

    heading = ("threshold", "same top-1, %", "mean error", "max error", "MACs saved, %", "")
    rows = [
        (
            f"{one.threshold:g}",
            f"{one.summary.top1_agreement:.2f}",
            f"{one.summary.logit_error_mean:.2g}",
            f"{one.summary.logit_error_max:.2g}",
            f"{one.summary.macs_saved:.1f}",
            "chosen" if one is best else "",
        )
        for one in tried
    ]
    return tabulate(rows, headers=heading, tablefmt="simple", disable_numparse=True)


def calibrated_yaml(
    cfg: ConfigNode, base: str | Path, out: Path, best: Candidate, goal: Goal, untrained: bool = False
) -> str:
    """Return a config that builds on another one and sets the threshold and all keys that the agreement depends on.

    Args:
        cfg: The config of the calibration.
        base: Path or address of the file to build on.
        out: The file to write.
        best: The chosen threshold.
        goal: The requested agreement.
        untrained: Whether the weights were random.
    """
    event = {name: cfg.EVENT[name] for name in KEYS} | {"THRESHOLD": best.threshold}
    found = best.summary
    header = (
        f"# Calibrated by slowfast calibrate for {goal}, on {found.frames} frames:\n"
        f"# same top-1 as dense inference on {found.top1_agreement:.2f} %, logit error {found.logit_error_mean:.2g}, "
        f"{found.macs_saved:.1f} % of the MACs saved.\n"
    )
    header += f"# {_UNTRAINED}\n" if untrained else ""
    return header + yaml.safe_dump({"_BASE_": base_reference(base, out.parent), "EVENT": event}, sort_keys=False)
