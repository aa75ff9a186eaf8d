"""The command line of `tools/video_to_events.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from slowfast.cli.command import RESUMABLE, CommandParser, exit_status, number, whole_number, workers
from slowfast.prepare.events import EventSettings, videos_to_events
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.machine import usable_cores
from slowfast.utils.screen import show

EXAMPLE = "python tools/video_to_events.py my_videos/ my_events/ --height 128 --width 128"
USAGE = "%(prog)s SOURCE TARGET [--height H] [--width W] [options]"
DESCRIPTION = f"""\
Write what an event camera would have seen of all videos of a folder, and of the folders in it: a/b.mp4 becomes a/b.npz
with x, y, t (microseconds) and p, by the change of each pixel's log intensity. The source is not touched.

  {EXAMPLE}
  python tools/run_net.py --cfg configs/Demo/EVENTS_EVENT2VEC.yaml DATA.PATH_TO_DATA_DIR my_events \
    DVS.SENSOR_SIZE [128,128] ...

where my_videos/ holds a folder a class, or train/ and test/ of them. Stopped in the middle, run it again: files that
are there are kept. For other settings take another target.
"""
HELP = {
    "height": "pixels of the sensor",
    "width": "pixels of the sensor",
    "threshold_on": "change of log intensity that fires a brighter event",
    "threshold_off": "the same for a darker one",
    "refractory": "microseconds in which a pixel that has fired stays silent",
    "noise": "events a pixel and second that nothing causes",
    "interpolate": "steps from a frame to the next, moved by optical flow; 1: none",
    "seed": "of the noise",
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    usual = EventSettings()
    parser = CommandParser("video_to_events.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("target", type=Path, help="folder to write to, outside of the source")
    for name, text in HELP.items():
        value = getattr(usual, name)
        option = f"--{name.replace('_', '-')}"
        kind = whole_number(0, 2**63 - 1) if isinstance(value, int) else number(0, 1e9)  # EventSettings has the ranges
        parser.add_argument(option, type=kind, default=value, help=f"{text} (default %(default)s)")
    parser.add_argument("--workers", type=workers, default=usable_cores(), help="processes (default: one per core)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Convert and return the exit status: 0 done, failures listed, 2 user error."""
    with messages_on_screen():
        return exit_status(lambda: _convert(parse(arguments)), interrupted=RESUMABLE)


def _convert(chosen: argparse.Namespace) -> None:
    settings = EventSettings(**{field.name: getattr(chosen, field.name) for field in fields(EventSettings)})
    result = videos_to_events(chosen.source, chosen.target, settings, chosen.workers)
    for what, videos in (("damaged, whole as far as readable", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(videos.items()):
            show(f"{what}: {name}: {reason}")
    before = f"{result.already_there} were there already, {len(result.failed)} failed"
    show(f"{result.done} videos converted to {chosen.target} in {result.seconds:.0f} s, {before}")
