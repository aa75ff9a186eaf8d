"""`slowfast convert-dvs`: convert event recordings to .npz files."""

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
from slowfast.utils.screen import show

EXAMPLE = "slowfast convert-dvs asldvs_mat --out asldvs"
USAGE = """%(prog)s SOURCE --out FOLDER [--window-time US | --window-events N] [--window-step N]
           [--hot-pixels] [--background US] [--refractory US] [--crop X Y WIDTH HEIGHT] [--downsample N]
           [--time-unit SECONDS] [--workers N]"""
DESCRIPTION = f"""\
Convert all event recordings of a folder and its subfolders to .npz files with x, y, t (microseconds) and p: AEDAT 1 to
4, Prophesee .raw and .dat, HDF5 (Metavision, DSEC, MVSEC, M3ED, SHD), .mat (ASL-DVS, ST-MNIST), N-MNIST .bin, Event
Stream .es, .npy and .npz, .csv and .txt, and ROS bags; docs/EVENT_CAMERAS.md describes them. HDF5, .mat and compressed
.aedat4 files need the events extra, bags the ros extra. --import adds formats of your own.

  {EXAMPLE}
  slowfast convert-dvs DvsGesture --out dvsgesture
  slowfast convert-dvs my_recordings --out my_events --window-time 500000
  slowfast convert-dvs my_recordings --out my_events --hot-pixels --background 5000 --downsample 2

An .aedat file of DVS Gesture is cut by its _labels.csv into class folders of train/ and test/, which follow
trials_to_train.txt and trials_to_test.txt. Filters are applied before recordings are cut, in the order in which they
are listed below, and the events that each one removed are counted. An incomplete window at the end of a recording is
dropped. A truncated file is converted up to its last valid event and listed. The source is not changed. Run an
interrupted command again to continue: complete recordings are kept. Write other settings to another folder. Files that
are not read are named with the reason.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast convert-dvs", DESCRIPTION, USAGE, EXAMPLE)
    add_source_and_out(parser, "folder of recordings", "output folder, outside of SOURCE")
    window = parser.add_mutually_exclusive_group()
    time, events = "cut into windows of this many microseconds", "cut into windows of N events"
    window.add_argument("--window-time", type=number(1, 1e15), default=0.0, metavar="US", help=time)
    window.add_argument("--window-events", type=integer(1, 10**12), default=0, metavar="N", help=events)
    step = "from one window to the next, in microseconds or events (default: the size of a window)"
    parser.add_argument("--window-step", type=number(1, 1e15), default=0.0, metavar="N", help=step)
    _add_filters(parser)
    unit = "unit of the times in seconds, for formats that do not state it (default: by the values)"
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=0.0, metavar="SECONDS", help=unit)
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def _add_filters(parser: CommandParser) -> None:
    """Add the options of FilterSettings, in the order in which the filters are applied."""
    microseconds = integer(1, 10**9)
    hot = "remove the events of hot pixels, as slowfast events info counts them"
    parser.add_argument("--hot-pixels", action="store_true", help=hot)
    background = "remove events without another one in the 8 neighboring pixels in the N microseconds before"
    parser.add_argument("--background", type=microseconds, default=0, metavar="US", help=background)
    refractory = "remove events of a pixel less than N microseconds after its last one that was kept"
    parser.add_argument("--refractory", type=microseconds, default=0, metavar="US", help=refractory)
    pixels, box = integer(0, 2**16), ("X", "Y", "WIDTH", "HEIGHT")
    crop = "keep the pixels of a box, given by its upper left corner and its size"
    parser.add_argument("--crop", type=pixels, nargs=4, default=None, metavar=box, help=crop)
    downsample = "divide coordinates by N, rounding down; all events are kept"
    parser.add_argument("--downsample", type=integer(1, 2**10), default=1, metavar="N", help=downsample)


def main(arguments: Sequence[str]) -> int:
    """Convert and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _convert(parse(arguments)), interrupted=RESUMABLE)


def _convert(chosen: argparse.Namespace) -> None:
    from slowfast.datasets.dvs.filters import Box
    from slowfast.prepare.convert_dvs import EVENTS, CutSettings, convert_recordings
    from slowfast.prepare.filter_events import FILTERS, FilterSettings
    from slowfast.utils.cpu import usable_cores

    box = None if chosen.crop is None else Box(*chosen.crop)
    filters = FilterSettings(chosen.hot_pixels, chosen.background, chosen.refractory, box, chosen.downsample)
    settings = CutSettings(chosen.window_time, chosen.window_events, chosen.time_unit, chosen.window_step, filters)
    result = convert_recordings(chosen.source, chosen.out, settings, chosen.workers or usable_cores(), chosen.engine)
    for note, count in sorted(result.notes.items()):
        show(f"{note}: in {count} of {result.done} recordings")
    events = result.counts.get(EVENTS, 0)
    for name, count in result.counts.items():
        if name in FILTERS or (count and name != EVENTS):
            show(f"removed by {name}: {count} of {events} events ({100 * count / events:.1f} %)")
    show_conversion(result, "recordings converted", chosen.out)
