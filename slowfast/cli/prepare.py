"""The command line of `tools/prepare_videos.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import RESUMABLE, CommandParser, exit_status, number_or, whole_number, workers
from slowfast.prepare.encode import PRESETS, PrepareSettings
from slowfast.prepare.videos import FAILED_FILE, prepare
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.machine import usable_cores
from slowfast.utils.screen import show, show_table

EXAMPLE = "python tools/prepare_videos.py kinetics/ kinetics_256/ --index kinetics/train.csv kinetics/val.csv"
USAGE = "%(prog)s SOURCE TARGET [--short-side PIXELS] [--fps N] [--index CSV ...] [options]"
DESCRIPTION = f"""\
Re-encode a folder of videos, and the folders in it, so that training clips are read from it fast: H.264 in .mp4,
small, with frequent key frames and frames that need no decoding when they are not wanted. The source is not touched.

  {EXAMPLE}

Stopped in the middle, run it again: what is done is kept. Videos that cannot be read are left out and listed, with the
reason, in {FAILED_FILE}. Then train with DATA.PATH_PREFIX and DATA.PATH_TO_DATA_DIR set to the new folder.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    usual = PrepareSettings()
    parser = CommandParser("prepare_videos.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("target", type=Path, help="folder to write to, outside of the source")
    parser.add_argument(
        "--short-side",
        type=whole_number(16, 4320),
        default=usual.short_side,
        metavar="PIXELS",
        help="never enlarged (default %(default)s)",
    )
    parser.add_argument(
        "--keyframe-interval",
        type=whole_number(1, 1000),
        default=usual.keyframe_interval,
        metavar="FRAMES",
        help="smaller is faster to read and larger on disk (default %(default)s)",
    )
    parser.add_argument(
        "--crf", type=whole_number(0, 51), default=usual.crf, help="quality, lower is finer (default %(default)s)"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, default=usual.preset, help="of x264: faster ones make larger files (%(default)s)"
    )
    parser.add_argument("--fps", type=number_or("keep", 0.1, 1000), help="most frames/s, or keep (default keep)")
    parser.add_argument(
        "--workers", type=workers, default=usable_cores(), help="processes (default: one per core, %(default)s)"
    )
    parser.add_argument(
        "--index", type=Path, nargs="+", default=[], metavar="CSV", help="index files to rewrite for the new folder"
    )
    parser.add_argument("--separator", default=" ", help="between path and label in them (default a space)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Prepare and return the exit status: 0 done, failures listed, 2 user error."""
    with messages_on_screen():
        return exit_status(lambda: _prepare(parse(arguments)), interrupted=RESUMABLE)


def _prepare(chosen: argparse.Namespace) -> None:
    settings = PrepareSettings(chosen.short_side, chosen.keyframe_interval, chosen.crf, chosen.fps, chosen.preset)
    summary = prepare(chosen.source, chosen.target, settings, chosen.workers, chosen.index, chosen.separator)
    show_table(summary.table())
    for name, reason in list(summary.failed.items())[:10]:
        show(f"failed: {name}: {reason}")
    if summary.failed:
        show(f"all {len(summary.failed)} failures: {chosen.target / FAILED_FILE}")
