"""The command line of `tools/convert_events.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.errors import UserError
from slowfast.prepare.convert_events import convert_recordings
from slowfast.prepare.cut_events import CutSettings
from slowfast.runtime.command import RESUMABLE, CommandParser, check_workers, exit_status
from slowfast.runtime.cores import usable_cores
from slowfast.runtime.logging import messages_on_screen
from slowfast.runtime.screen import show

DESCRIPTION = """\
Convert all recordings of a folder, and of the folders in it, to .npz files with x, y, t (microseconds) and p:
AEDAT 3.1 and 4.0 (.aedat, .aedat4), Prophesee .dat and .raw (EVT 2.0, 2.1, 3.0), ASL-DVS .mat, turned upright.
.mat and compressed .aedat4 files need the events extra.

  python tools/convert_events.py asldvs_mat/ asldvs/
  python tools/convert_events.py DvsGesture/ dvsgesture/
  python tools/convert_events.py my_recordings/ my_events/ --window-time 500000

A .aedat file of DVS Gesture with its _labels.csv is cut into train/ and test/ of class folders by it and by
trials_to_train.txt and trials_to_test.txt. Windows of events are whole: what is left over at the end is left out. Of a
torn file what comes before the tear is taken, and the file is listed. The source is not touched. Stopped in the middle,
run it again: recordings that were converted are kept. For other settings take another target.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's values."""
    parser = CommandParser("convert_events.py", DESCRIPTION)
    parser.add_argument("source", type=Path, help="folder of recordings")
    parser.add_argument("target", type=Path, help="folder to write to, outside of the source")
    parser.add_argument("--window-time", type=float, metavar="US", help="cut into windows, microseconds")
    parser.add_argument("--window-events", type=int, metavar="N", help="cut into windows of N events")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: one a core)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Convert; the exit status: 0 done, failures listed, 2 the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _convert(parse(arguments)), interrupted=RESUMABLE)


def _convert(chosen: argparse.Namespace) -> None:
    check_workers(chosen.workers)
    if 0 in (chosen.window_time, chosen.window_events):
        raise UserError("--window-time and --window-events: above 0; without them recordings stay whole")
    settings = CutSettings(chosen.window_time or 0.0, chosen.window_events or 0)
    result = convert_recordings(chosen.source, chosen.target, settings, chosen.workers)
    for what, recordings in (("damaged, whole as far as readable", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(recordings.items()):
            show(f"{what}: {name}: {reason}")
    for note, count in sorted(result.notes.items()):
        show(f"{note}: as {count} of {result.done} recordings say")
    before = f"{result.already_there} were there already, {len(result.failed)} failed"
    show(f"{result.done} recordings converted to {chosen.target} in {result.seconds:.0f} s, {before}")
