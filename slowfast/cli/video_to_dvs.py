"""`slowfast video-to-dvs`: simulate the events of an event camera from videos."""

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
    number,
    show_conversion,
)
from slowfast.utils.logging import messages_on_screen

EXAMPLE = "slowfast video-to-dvs my_videos --out my_events --height 128 --width 128"
USAGE = "%(prog)s SOURCE --out FOLDER [--height H] [--width W] [options]"
DESCRIPTION = f"""\
Simulate an event camera on all videos of a folder and its subfolders: a/b.mp4 becomes a/b.npz with x, y, t
(microseconds) and p. A pixel fires an event when its log intensity has changed by a threshold. The source is not
changed.

  {EXAMPLE}
  slowfast train --cfg Demo/EVENTS_EVENT2VEC DATA.PATH_TO_DATA_DIR my_events DVS.SENSOR_SIZE [128,128] ...

where my_videos holds one folder per class, or train/ and test/ with one folder per class. Run an interrupted command
again to continue: complete files are kept. Write other settings to another folder.
"""
# Option: default, help.
OPTIONS: dict[str, tuple[int | float, str]] = {
    "height": (128, "sensor height in pixels"),
    "width": (128, "sensor width in pixels"),
    "threshold_on": (0.2, "increase of log intensity that fires an ON event"),
    "threshold_off": (0.2, "decrease of log intensity that fires an OFF event"),
    "refractory": (0.0, "refractory period of a pixel in microseconds, for noise, too"),
    "noise": (0.0, "noise events per pixel and second, whatever the intensity"),
    "threshold_sigma": (0.0, "standard deviation of the thresholds over the pixels; 0.05 in v2e's noisy setting"),
    "leak": (0.0, "ON events per pixel and second by leakage; 0.1 in v2e's noisy setting"),
    "shot": (0.0, "shot noise per pixel and second in the dark, falling to a quarter at full intensity; 5 in v2e"),
    "hot_pixels": (0.0, "fraction of hot pixels, from 0 to 1"),
    "hot_rate": (100.0, "ON events of a hot pixel per second"),
    "cutoff": (0.0, "cutoff frequency of the pixels in Hz, lower in the dark; 30 in v2e's noisy setting, 0 for none"),
    "leak_jitter": (0.0, "relative standard deviation of the leakage from frame to frame; 0.1 in v2e"),
    "interpolate": (4, "steps between two frames, interpolated by optical flow; 1 for none"),
    "seed": (0, "seed of the noise and of the pixels"),
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast video-to-dvs", DESCRIPTION, USAGE, EXAMPLE)
    add_source_and_out(parser, "folder of videos", "output folder, outside of SOURCE")
    for name, (default, text) in OPTIONS.items():
        # EventSettings checks the ranges.
        kind = integer(0, 2**63 - 1) if isinstance(default, int) else number(0, 1e9)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=default, metavar="N", help=f"{text} (default %(default)s)")
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Convert and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _convert(parse(arguments)), interrupted=RESUMABLE)


def _convert(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.video_to_dvs import EventSettings, videos_to_events
    from slowfast.utils.cpu import usable_cores

    settings = EventSettings(**{name: getattr(chosen, name) for name in OPTIONS})
    result = videos_to_events(chosen.source, chosen.out, settings, chosen.workers or usable_cores(), chosen.engine)
    show_conversion(result, "videos converted", chosen.out)
