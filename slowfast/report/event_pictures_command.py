"""The command line of `tools/draw_events.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import whole
from slowfast.errors import DataError, UserError
from slowfast.report.event_pictures import draw_events
from slowfast.runtime.command import CommandParser, exit_status
from slowfast.runtime.screen import show

LARGEST_SIDE = 10_000  # pixels of a sensor that is as far as there are events

DESCRIPTION = """\
Draw an event recording (.npz or .npy with x, y, t, p): as a film of accumulated events, or as points in x, y and time.

  python tools/draw_events.py recording.npz events.mp4 --slower 4
  python tools/draw_events.py recording.npz points.png

Red pixels grew brighter, blue ones darker.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's values."""
    parser = CommandParser("draw_events.py", DESCRIPTION)
    parser.add_argument("recording", type=Path, help=".npz or .npy file")
    parser.add_argument("target", type=Path, help=".gif, .mp4 or .png (needs the plots extra)")
    parser.add_argument("--height", type=int, help="of the sensor (default: as far as there are events)")
    parser.add_argument("--width", type=int, help="of the sensor (default: as far as there are events)")
    parser.add_argument("--fps", type=int, default=20, help="frames a second of a film (default %(default)s)")
    parser.add_argument("--slower", type=float, default=1.0, help="than the events came (default %(default)s)")
    parser.add_argument("--time-unit", type=float, default=1e-6, help="seconds of one unit of t (default %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Draw; the exit status: 0 done, 2 the user's mistake."""
    return exit_status(lambda: _draw(parse(arguments)))


def _side(places: np.ndarray, option: str) -> int:
    """As far as there are events."""
    last = float(np.max(places, initial=0))
    if not last < LARGEST_SIDE:  # nor NaN
        raise UserError(f"an event is at {last:g}, which is no pixel: give --{option}")
    return int(last) + 1


def _draw(chosen: argparse.Namespace) -> None:
    for name in ("fps", "slower", "time_unit"):
        if getattr(chosen, name) <= 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(chosen, name)}: must be above 0")
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
