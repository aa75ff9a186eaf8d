"""The command line of `tools/draw_events.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slowfast.cli.command import CommandParser, exit_status, number, whole_number
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import whole
from slowfast.errors import DataError, UserError
from slowfast.utils.output_folders import check_output_file
from slowfast.utils.screen import show
from slowfast.visualization.event_pictures import draw_events

LARGEST_SIDE = 10_000  # pixels of a sensor that is as far as there are events

EXAMPLE = "python tools/draw_events.py recording.npz events.mp4 --slower 4"
USAGE = "%(prog)s RECORDING TARGET [--height H] [--width W] [--fps N] [--slower FACTOR] [--time-unit SECONDS]"
DESCRIPTION = f"""\
Draw an event recording (.npz or .npy with x, y, t, p) as a video of accumulated events, or as points in x, y and time.

  {EXAMPLE}
  python tools/draw_events.py recording.npz points.png

Red pixels grew brighter, blue ones darker.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    parser = CommandParser("draw_events.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("recording", type=Path, help=".npz or .npy file")
    parser.add_argument("target", type=Path, help=".gif, .mp4 or .png (needs the plots extra)")
    parser.add_argument(
        "--height", type=whole_number(1, LARGEST_SIDE), help="of the sensor (default: as far as there are events)"
    )
    parser.add_argument(
        "--width", type=whole_number(1, LARGEST_SIDE), help="of the sensor (default: as far as there are events)"
    )
    parser.add_argument(
        "--fps", type=whole_number(1, 1000), default=20, help="frames/s of a video (default %(default)s)"
    )
    parser.add_argument("--slower", type=number(1e-6, 1e9), default=1.0, help="slow-down factor (default %(default)s)")
    unit = "seconds per unit of t (default %(default)s)"
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=1e-6, help=unit)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Draw and return the exit status: 0 done, 2 user error."""
    return exit_status(lambda: _draw(parse(arguments)))


def _side(places: np.ndarray, option: str) -> int:
    """As far as there are events."""
    last = float(np.max(places, initial=0))
    if not last < LARGEST_SIDE:  # nor NaN
        raise UserError(f"an event is at {last:g}, outside of any sensor. Give --{option}")
    return int(last) + 1


def _draw(chosen: argparse.Namespace) -> None:
    check_output_file(chosen.target, "TARGET", (".gif", ".mp4", ".png"))
    try:
        raw = Recording(chosen.recording).take(slice(None))
        sensor = (chosen.height or _side(raw["y"], "height"), chosen.width or _side(raw["x"], "width"))
        events, done = whole(raw, sensor, chosen.time_unit)
        if done:
            show(f"{chosen.recording}: {', '.join(done)}")
    except DecodeError as error:
        raise DataError(f"{chosen.recording}: {error}") from error
    draw_events(events, sensor, chosen.target, chosen.fps, chosen.slower)
    show(f"{len(events)} events of {1e-6 * (events.t[-1] - events.t[0]):.3f} s drawn: {chosen.target}")
