"""`slowfast draw-dvs`: draw an event recording as a video or a plot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast.cli.command import CommandParser, add_source_and_out, exit_status, integer, number
from slowfast.errors import DataError, UserError
from slowfast.utils.files import check_output_file
from slowfast.utils.screen import show

EXAMPLE = "slowfast draw-dvs recording.npz --out events.mp4 --slower 4"
USAGE = "%(prog)s RECORDING --out FILE [--height H] [--width W] [--fps N] [--slower FACTOR] [--time-unit SECONDS]"
DESCRIPTION = f"""\
Draw an event recording, of any format that `slowfast convert-dvs` reads, as a video of accumulated events, or as points
in x, y and time.

  {EXAMPLE}
  slowfast draw-dvs recording.npz --out points.png

ON events are red, OFF events are blue.
"""
MAX_SIDE = 10_000  # largest sensor side in pixels


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast draw-dvs", DESCRIPTION, USAGE, EXAMPLE)
    add_source_and_out(parser, "event recording", ".gif, .mp4 or .png file (needs the plots extra)", name="recording")
    for name in ("height", "width"):
        text = f"sensor {name} in pixels (default: from the file, or the largest coordinate)"
        parser.add_argument(f"--{name}", type=integer(1, MAX_SIDE), metavar=name[0].upper(), help=text)
    parser.add_argument(
        "--fps", type=integer(1, 1000), default=20, metavar="N", help="frame rate of a video (default %(default)s)"
    )
    parser.add_argument(
        "--slower", type=number(1e-6, 1e9), default=1.0, metavar="FACTOR", help="slow-down factor (default %(default)s)"
    )
    unit = "unit of t in seconds, for formats that do not state it (default %(default)s)"
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=1e-6, metavar="SECONDS", help=unit)
    stream = "stream of a recording with several, by its name (slowfast events info lists them)"
    parser.add_argument("--stream", default="", metavar="NAME", help=stream)
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Draw and return the exit status: 0 done, 2 after a user error."""
    return exit_status(lambda: _draw(parse(arguments)))


def _draw(chosen: argparse.Namespace) -> None:
    check_output_file(chosen.out, "--out", (".gif", ".mp4", ".png"))
    from slowfast.datasets.decode import DecodeError
    from slowfast.datasets.dvs.recording import Recording, clean_events
    from slowfast.visualization.event_plots import draw_events

    try:
        recording = Recording(chosen.recording, chosen.stream)
        raw = recording.take(slice(None))
        stated = recording.sensor or (0, 0)
        height = chosen.height or stated[0] or _extent(float(raw["y"].max(initial=0)), "height")
        width = chosen.width or stated[1] or _extent(float(raw["x"].max(initial=0)), "width")
        events, repairs = clean_events(raw, (height, width), recording.time_unit(chosen.time_unit))
    except DecodeError as error:
        raise DataError(f"{chosen.recording}: {error}") from error
    if remarks := [*recording.notes, *recording.damage, *repairs]:
        show(f"{chosen.recording}: {', '.join(remarks)}")
    draw_events(events, (height, width), chosen.out, chosen.fps, chosen.slower)
    show(f"{len(events)} events of {1e-6 * (events.t[-1] - events.t[0]):.3f} s drawn to {chosen.out}")


def _extent(largest: float, option: str) -> int:
    """Return the sensor side that holds the largest coordinate; UserError if no sensor has it."""
    if not largest < MAX_SIDE:  # nor NaN
        raise UserError(f"RECORDING: the coordinate {largest:g} is outside any known sensor. Give --{option}")
    return int(largest) + 1
