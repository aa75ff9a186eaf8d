"""`slowfast prepare`: re-encode videos for fast training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import (
    RESUMABLE,
    CommandParser,
    add_engine,
    add_source_and_out,
    add_workers,
    exit_status,
    integer,
    number_or,
    show_failures,
)
from slowfast.cli.shards import pack
from slowfast.errors import UserError
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show_table

EXAMPLE = "slowfast prepare kinetics --out kinetics_256 --index kinetics/train.csv kinetics/val.csv"
USAGE = "%(prog)s SOURCE --out FOLDER [--short-side PIXELS] [--fps N] [--index CSV ...] [--shards MIB] [options]"
DESCRIPTION = f"""\
Re-encode all videos of a folder and its subfolders so that training clips are decoded fast: H.264 in .mp4, resized,
with frequent keyframes and frames that can be skipped without being decoded. The source is not changed.

  {EXAMPLE}

Run an interrupted command again to continue: complete videos are kept. Videos that cannot be read are skipped and
listed, with the reason, in failed.csv. Then train with DATA.PATH_PREFIX and DATA.PATH_TO_DATA_DIR set to the new
folder.
"""
SHARDS_FOLDER = "shards"
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast prepare", DESCRIPTION, USAGE, EXAMPLE)
    add_source_and_out(parser, "folder of videos", "output folder, outside of SOURCE")
    side = "resize larger videos to this short side (default %(default)s)"
    parser.add_argument("--short-side", type=integer(16, 4320), default=256, metavar="PIXELS", help=side)
    interval = "frames between keyframes; fewer are faster to read and larger on disk (default %(default)s)"
    parser.add_argument("--keyframe-interval", type=integer(1, 1000), default=32, metavar="FRAMES", help=interval)
    crf = "constant rate factor of x264; lower is better and larger (default %(default)s)"
    parser.add_argument("--crf", type=integer(0, 51), default=20, help=crf)
    preset = "preset of x264; a faster one makes larger files (default %(default)s)"
    parser.add_argument("--preset", choices=PRESETS, default="medium", metavar="NAME", help=preset)
    fps = "maximum frame rate, or keep (default keep)"
    parser.add_argument("--fps", type=number_or("keep", 0.1, 1000), metavar="N", help=fps)
    parser.add_argument(
        "--index", type=Path, nargs="+", default=[], metavar="CSV", help="index files to rewrite for the new folder"
    )
    parser.add_argument("--separator", default=" ", help="separator of path and label in them (default: a space)")
    shards = "also pack the new videos into shards of this size, in the folder shards of FOLDER; see slowfast shards"
    parser.add_argument("--shards", type=integer(1, 2**20), metavar="MIB", help=shards)
    add_workers(parser)
    add_engine(parser)
    chosen = parser.parse_and_import(arguments)
    if chosen.shards is not None and not chosen.index:
        raise UserError("--shards needs --index: shards contain the videos of index files")
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Re-encode and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _prepare(parse(arguments)), interrupted=RESUMABLE)


def _prepare(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.encode import PrepareSettings
    from slowfast.prepare.videos import FAILED_FILE, prepare
    from slowfast.utils.cpu import usable_cores

    settings = PrepareSettings(chosen.short_side, chosen.keyframe_interval, chosen.crf, chosen.fps, chosen.preset)
    processes = chosen.workers or usable_cores()
    summary = prepare(chosen.source, chosen.out, settings, processes, chosen.index, chosen.separator, chosen.engine)
    show_table(summary.table())
    show_failures(summary.failed, chosen.out / FAILED_FILE)
    if chosen.shards is not None:
        index_files = [chosen.out / file.name for file in chosen.index]
        pack(chosen.out, chosen.out / SHARDS_FOLDER, index_files, chosen.separator, chosen.shards)
