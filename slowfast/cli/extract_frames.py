"""The command line of `tools/extract_frames.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import RESUMABLE, CommandParser, exit_status, number_or, whole_number, workers
from slowfast.prepare.frames import TEMPLATE, FrameSettings, extract
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.machine import usable_cores
from slowfast.utils.screen import show

EXAMPLE = "python tools/extract_frames.py my_videos/ my_frames/"
USAGE = "%(prog)s SOURCE TARGET [--short-side PIXELS] [--fps N] [--quality Q] [--workers N]"
DESCRIPTION = f"""\
Write the frames of all videos of a folder, and of the folders in it, as JPEG files: a/b.mp4 becomes a/b/00001.jpg and
so on (DATA.IMAGE_TEMPLATE {TEMPLATE}). The source is not touched.

  {EXAMPLE}
  python tools/index_folder.py my_frames/ --out my_index/

Stopped in the middle, run it again: folders that are there are kept. For other settings take another target.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    usual = FrameSettings()
    parser = CommandParser("extract_frames.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("target", type=Path, help="folder to write to, outside of the source")
    short_side = "never enlarged (default %(default)s)"
    parser.add_argument(
        "--short-side", type=whole_number(16, 4320), default=usual.short_side, metavar="PIXELS", help=short_side
    )
    parser.add_argument(
        "--fps", type=number_or("all", 0.1, 1000), default=usual.fps, help="most frames/s, or all (default %(default)g)"
    )
    parser.add_argument(
        "--quality", type=whole_number(1, 100), default=usual.quality, help="of the JPEG files (default %(default)s)"
    )
    parser.add_argument("--workers", type=workers, default=usable_cores(), help="processes (default: one per core)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Extract and return the exit status: 0 done, failures listed, 2 user error."""
    with messages_on_screen():
        return exit_status(lambda: _extract(parse(arguments)), interrupted=RESUMABLE)


def _extract(chosen: argparse.Namespace) -> None:
    settings = FrameSettings(chosen.short_side, chosen.fps, chosen.quality)
    result = extract(chosen.source, chosen.target, settings, chosen.workers)
    for what, videos in (("damaged, whole as far as readable", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(videos.items()):
            show(f"{what}: {name}: {reason}")
    before = f"{result.already_there} were there already, {len(result.failed)} failed"
    show(f"{result.done} videos extracted to {chosen.target} in {result.seconds:.0f} s, {before}")
