"""The command line of `tools/extract_frames.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.prepare.frames import TEMPLATE, FrameSettings, extract
from slowfast.runtime.command import RESUMABLE, CommandParser, check_workers, exit_status
from slowfast.runtime.cores import usable_cores
from slowfast.runtime.logging import messages_on_screen
from slowfast.runtime.screen import show

DESCRIPTION = f"""\
Write the frames of all videos of a folder, and of the folders in it, as JPEG files: a/b.mp4 becomes a/b/00001.jpg and
so on (DATA.IMAGE_TEMPLATE {TEMPLATE}). The source is not touched.

  python tools/extract_frames.py my_videos/ my_frames/
  python tools/index_folder.py my_frames/ --out my_index/

Stopped in the middle, run it again: folders that are there are kept. For other settings take another target.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's values."""
    usual = FrameSettings()
    parser = CommandParser("extract_frames.py", DESCRIPTION)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("target", type=Path, help="folder to write to, outside of the source")
    short_side = "never enlarged (default %(default)s)"
    parser.add_argument("--short-side", type=int, default=usual.short_side, metavar="PIXELS", help=short_side)
    parser.add_argument(
        "--fps", type=_rate, default=usual.fps, help="most frames a second, or all (default %(default)g)"
    )
    parser.add_argument("--quality", type=int, default=usual.quality, help="of the JPEG files (default %(default)s)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: one a core)")
    return parser.parse_args(arguments)


def _rate(text: str) -> float | None:
    return None if text == "all" else float(text)


def main(arguments: Sequence[str]) -> int:
    """Extract; the exit status: 0 done, failures listed, 2 the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _extract(parse(arguments)), interrupted=RESUMABLE)


def _extract(chosen: argparse.Namespace) -> None:
    check_workers(chosen.workers)
    settings = FrameSettings(chosen.short_side, chosen.fps, chosen.quality)
    result = extract(chosen.source, chosen.target, settings, chosen.workers)
    for what, videos in (("damaged, whole as far as readable", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(videos.items()):
            show(f"{what}: {name}: {reason}")
    before = f"{result.already_there} were there already, {len(result.failed)} failed"
    show(f"{result.done} videos extracted to {chosen.target} in {result.seconds:.0f} s, {before}")
