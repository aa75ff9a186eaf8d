"""The command line of `tools/convert_events.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import RESUMABLE, CommandParser, exit_status, number, whole_number, workers
from slowfast.prepare.convert_events import CutSettings, convert_recordings
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.machine import usable_cores
from slowfast.utils.screen import show

EXAMPLE = "python tools/convert_events.py asldvs_mat/ asldvs/"
USAGE = "%(prog)s SOURCE TARGET [--window-time US | --window-events N] [--workers N]"
DESCRIPTION = f"""\
Convert all recordings of a folder, and of the folders in it, to .npz files with x, y, t (microseconds) and p:
AEDAT 3.1 and 4.0 (.aedat, .aedat4), Prophesee .dat and .raw (EVT 2.0, 2.1, 3.0), ASL-DVS .mat, turned upright.
.mat and compressed .aedat4 files need the events extra.

  {EXAMPLE}
  python tools/convert_events.py DvsGesture/ dvsgesture/
  python tools/convert_events.py my_recordings/ my_events/ --window-time 500000

A .aedat file of DVS Gesture with its _labels.csv is cut into train/ and test/ of class folders by it and by
trials_to_train.txt and trials_to_test.txt. Windows of events are whole: what is left over at the end is left out. Of a
torn file what comes before the tear is taken, and the file is listed. The source is not touched. Stopped in the middle,
run it again: recordings that were converted are kept. For other settings take another target.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    parser = CommandParser("convert_events.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("source", type=Path, help="folder of recordings")
    parser.add_argument("target", type=Path, help="folder to write to, outside of the source")
    window = parser.add_mutually_exclusive_group()
    time, events = "cut into windows of this many microseconds", "cut into windows of N events"
    window.add_argument("--window-time", type=number(1, 1e15), default=0.0, metavar="US", help=time)
    window.add_argument("--window-events", type=whole_number(1, 10**12), default=0, metavar="N", help=events)
    parser.add_argument("--workers", type=workers, default=usable_cores(), help="processes (default: one per core)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Convert and return the exit status: 0 done, failures listed, 2 user error."""
    with messages_on_screen():
        return exit_status(lambda: _convert(parse(arguments)), interrupted=RESUMABLE)


def _convert(chosen: argparse.Namespace) -> None:
    settings = CutSettings(chosen.window_time, chosen.window_events)
    result = convert_recordings(chosen.source, chosen.target, settings, chosen.workers)
    for what, recordings in (("damaged, whole as far as readable", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(recordings.items()):
            show(f"{what}: {name}: {reason}")
    for note, count in sorted(result.notes.items()):
        show(f"{note}: as {count} of {result.done} recordings say")
    before = f"{result.already_there} were there already, {len(result.failed)} failed"
    show(f"{result.done} recordings converted to {chosen.target} in {result.seconds:.0f} s, {before}")
