"""The command line of `tools/video_to_events.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from slowfast.prepare.events import EventSettings, videos_to_events
from slowfast.runtime.command import RESUMABLE, CommandParser, check_workers, exit_status
from slowfast.runtime.cores import usable_cores
from slowfast.runtime.logging import messages_on_screen
from slowfast.runtime.screen import show

DESCRIPTION = """\
Write what an event camera would have seen of all videos of a folder, and of the folders in it: a/b.mp4 becomes a/b.npz
with x, y, t (microseconds) and p, by the change of each pixel's log intensity. The source is not touched.

  python tools/video_to_events.py my_videos/ my_events/ --height 128 --width 128
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
    """The command line's values."""
    usual = EventSettings()
    parser = CommandParser("video_to_events.py", DESCRIPTION)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("target", type=Path, help="folder to write to, outside of the source")
    for name, text in HELP.items():
        value = getattr(usual, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help=f"{text} (default %(default)s)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: one a core)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Convert; the exit status: 0 done, failures listed, 2 the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _convert(parse(arguments)), interrupted=RESUMABLE)


def _convert(chosen: argparse.Namespace) -> None:
    check_workers(chosen.workers)
    settings = EventSettings(**{field.name: getattr(chosen, field.name) for field in fields(EventSettings)})
    result = videos_to_events(chosen.source, chosen.target, settings, chosen.workers)
    for what, videos in (("damaged, whole as far as readable", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(videos.items()):
            show(f"{what}: {name}: {reason}")
    before = f"{result.already_there} were there already, {len(result.failed)} failed"
    show(f"{result.done} videos converted to {chosen.target} in {result.seconds:.0f} s, {before}")
