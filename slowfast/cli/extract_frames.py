"""`slowfast extract-frames`: extract the frames of videos as JPEG files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast.cli.command import (
    RESUMABLE,
    CommandParser,
    add_engine,
    add_source_and_out,
    add_workers,
    exit_status,
    integer,
    number_or,
    show_conversion,
)
from slowfast.utils.logging import messages_on_screen

EXAMPLE = "slowfast extract-frames my_videos --out my_frames"
USAGE = "%(prog)s SOURCE --out FOLDER [--short-side PIXELS] [--fps N] [--quality Q] [--workers N]"
DESCRIPTION = f"""\
Extract the frames of all videos of a folder and its subfolders as JPEG files: a/b.mp4 becomes a/b/00001.jpg and so on
(DATA.IMAGE_TEMPLATE {{:05d}}.jpg). The source is not changed.

  {EXAMPLE}
  slowfast index my_frames --out my_index

Run an interrupted command again to continue: complete folders are kept. Write other settings to another folder.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast extract-frames", DESCRIPTION, USAGE, EXAMPLE)
    add_source_and_out(parser, "folder of videos", "output folder, outside of SOURCE")
    side = "resize larger videos to this short side (default %(default)s)"
    parser.add_argument("--short-side", type=integer(16, 4320), default=240, metavar="PIXELS", help=side)
    parser.add_argument(
        "--fps", type=number_or("all", 0.1, 1000), default=12, help="maximum frame rate, or all (default %(default)s)"
    )
    parser.add_argument(
        "--quality", type=integer(1, 100), default=95, help="quality of the JPEG files (default %(default)s)"
    )
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Extract and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _extract(parse(arguments)), interrupted=RESUMABLE)


def _extract(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.frames import FrameSettings, extract
    from slowfast.utils.cpu import usable_cores

    settings = FrameSettings(chosen.short_side, chosen.fps, chosen.quality)
    result = extract(chosen.source, chosen.out, settings, chosen.workers or usable_cores(), chosen.engine)
    show_conversion(result, "videos extracted", chosen.out)
