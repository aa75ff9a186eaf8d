"""The command line of `tools/calibrate_events.py`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from tabulate import tabulate

from slowfast.cli.command import CommandParser, exit_status, number
from slowfast.cli.setup import parse_tool_line
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.event_driven.calibrate import Calibration, Candidate, Goal, find_threshold
from slowfast.event_driven.checks import check_network
from slowfast.event_driven.sources import find_files
from slowfast.utils.distributed import join
from slowfast.utils.files import write_whole
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.output_folders import check_output_file
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import plain

EXAMPLE = "python tools/calibrate_events.py --cfg configs/ImageNet/EVMLP.yaml videos --top1 0.99"
DESCRIPTION = f"""\
Find the largest EVENT.THRESHOLD with which event-driven inference agrees with the whole network as well as is wanted,
on the frames of some videos; and write a config with it, which run_net.py takes.

  {EXAMPLE}

Weights are those of TEST.CHECKPOINT_FILE_PATH, else the last checkpoint in OUTPUT_DIR; the other EVENT keys are taken
from the config. All frames are kept in memory: EVENT.MAX_FRAMES limits those of a video. What follows the files are
KEY VALUE pairs.
"""
USAGE = "%(prog)s --cfg FILE FILE_OR_FOLDER [...] [--top1 SHARE | --logit-error E] [--out FILE] [KEY VALUE ...]"
WRITTEN = ("THRESHOLD", "REFERENCE", "GATE", "KEYFRAME_EVERY", "PRECISION")  # what an agreement depends on


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """The command line's values and the config. Raises UserError."""
    parser = CommandParser("calibrate_events.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("videos", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="what to calibrate on")
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument(
        "--top1", type=number(0, 1), metavar="SHARE", help="frames with the same best class (default 0.99)"
    )
    goal.add_argument("--logit-error", type=number(0, 1e6), metavar="E", help="mean |difference| / largest |logit|")
    parser.add_argument("--out", type=Path, metavar="FILE", help="config to write (OUTPUT_DIR/calibrated.yaml)")
    return parse_tool_line(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Calibrate; the exit status: 0 done, 2 the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _calibrate(*parse(arguments)))


def _calibrate(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    goal, out = _goal(chosen), chosen.out or Path(cfg.OUTPUT_DIR) / "calibrated.yaml"
    check_network(cfg)
    if cfg.MODEL.FRAMEWISE:
        raise UserError("calibration goes over videos frame by frame: leave MODEL.FRAMEWISE empty")
    check_output_file(out, "--out")
    if os.path.realpath(out) == os.path.realpath(chosen.cfg):
        raise UserError(f"--out {plain(out)} is the file of --cfg, which the new config builds on. Choose another file")
    sources = find_files(chosen.videos, cfg.DATA.DECODING_THREADS)
    calibration = Calibration(cfg, join(cfg.NUM_GPUS).device, sources)
    frames = sum(map(len, calibration.videos))
    show(f"{len(calibration.videos)} videos, {frames} frames; wanted: {goal}")
    best, tried = find_threshold(calibration.measure, goal)
    show_table(candidates_table(tried, best))
    write_whole(out, calibrated_yaml(cfg, Path(chosen.cfg), out, best, goal))
    show(f"EVENT.THRESHOLD {best.threshold:g}, written to {out}")


def _goal(chosen: argparse.Namespace) -> Goal:
    if chosen.logit_error is not None:
        return Goal(logit_error=chosen.logit_error)
    return Goal(top1=0.99 if chosen.top1 is None else chosen.top1)


def candidates_table(tried: Sequence[Candidate], best: Candidate) -> str:
    """A line a threshold; the chosen one is marked."""
    heading = ("threshold", "same top-1, %", "mean error", "max error", "multiply-adds saved, %", "")
    rows = [
        (
            f"{one.threshold:g}",
            f"{one.figures.top1_agreement:.2f}",
            f"{one.figures.logit_error_mean:.2g}",
            f"{one.figures.logit_error_max:.2g}",
            f"{one.figures.macs_saved:.1f}",
            "chosen" if one is best else "",
        )
        for one in tried
    ]
    return tabulate(rows, headers=heading, tablefmt="simple", disable_numparse=True)


def calibrated_yaml(cfg: ConfigNode, base: Path, out: Path, best: Candidate, goal: Goal) -> str:
    """A config that builds on `base`, with the threshold that was found and all that the figures depend on."""
    event = {name: cfg.EVENT[name] for name in WRITTEN} | {"THRESHOLD": best.threshold}
    of = best.figures
    header = (
        f"# Calibrated with tools/calibrate_events.py for {goal}, on {of.frames} frames:\n"
        f"# top-1 as the whole network's on {of.top1_agreement:.2f} %, logit error {of.logit_error_mean:.2g}, "
        f"{of.macs_saved:.1f} % of the multiply-adds saved.\n"
    )
    where = os.path.relpath(base.resolve(), out.parent.resolve())
    return header + yaml.safe_dump({"_BASE_": where, "EVENT": event}, sort_keys=False)
