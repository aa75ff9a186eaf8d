"""`slowfast events live`: classification of live event streams."""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.cli.command import CommandParser, exit_status, integer, number, number_or
from slowfast.cli.setup import parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.utils.files import check_output_folder
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.text import quoted

if TYPE_CHECKING:
    from slowfast.inference.live_events import EventWindowOptions
    from slowfast.inference.live_page import LivePage

EXAMPLE = "slowfast events live dv://localhost:7777 --cfg DVS/DVSGESTURE_EVENT2VEC --weights weights.pyth"
USAGE = "%(prog)s SOURCE [SOURCE ...] --cfg FILE [--weights PATH] [options] [KEY VALUE ...]"
DESCRIPTION = f"""\
Classify event streams while they arrive: the latest window of each source, with its latency (the time from the end of
the window to its prediction). If the network is busy, the newest window is classified next and the others are counted
as dropped. A window ends when its time has passed, also without events.

  {EXAMPLE}
  slowfast events live recording.raw --speed 1 --window 500ms --step 100ms --cfg ... --page

Sources:
  dv://HOST:PORT       server of iniVation's dv-processing (NetworkWriter) or DV; dv:///PATH for a Unix socket
  tcp://HOST:PORT      server of records of 16 bytes (int64 microseconds, uint16 x, uint16 y, uint8 polarity, 3 bytes 0;
                       little-endian); unix:///PATH for a Unix socket. Headers of dv-processing and of .raw files are
                       recognized; ?format=evt2, evt21 or evt3 for words of Prophesee without a header
  FILE                 recording of any format, played at its own speed (--speed)

Writes segments.csv (while the windows are classified), segments.json and subtitles. Ctrl-C and SIGTERM end the run
normally.
"""
PAGE_PORT = 7861
_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(s|sec|seconds?|ms|events?)?")
_SHORTEST, _LONGEST, _MAX_EVENTS = 1e-3, 3600.0, 2**24  # seconds, seconds, events


@dataclass(frozen=True)
class ParsedWindow:
    """Length of a window on the command line, in seconds or events."""

    value: float
    events: bool


def length(text: str) -> ParsedWindow:
    """Convert the length of a window, such as 0.5, 200ms or 20000events."""
    match = _LENGTH.fullmatch(text.strip().lower())
    unit = (match[2] or "s") if match else ""
    events = unit.startswith("event")
    value = float(match[1]) / (1000 if unit == "ms" else 1) if match else 0.0
    low, high = (1, _MAX_EVENTS) if events else (_SHORTEST, _LONGEST)
    if not low <= value <= high or (events and value != int(value)):
        raise ArgumentTypeError(
            f"{quoted(text)} is no length of a window. Give seconds, such as 0.5 or 200ms (from 1ms to 1 hour), or "
            f"events, such as 20000events (up to {_MAX_EVENTS})"
        )
    return ParsedWindow(value, events)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast events live", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="addresses of servers, and recordings")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for the results (default: OUTPUT_DIR)")
    _add_windows(parser)
    sources = parser.add_argument_group("sources")
    sources.add_argument(
        "--speed",
        type=number_or("max", 1e-3, 1e3),
        default=1.0,
        metavar="FACTOR",
        help="speed of recordings: 1 for their own, 2 for twice that, max for as fast as possible, which drops no "
        "window (default: 1)",
    )
    sources.add_argument(
        "--reconnect",
        type=number(0, 1e6),
        default=1.0,
        metavar="SECONDS",
        help="delay before a lost connection is opened again, doubled after each attempt; 0 ends the source (default: "
        "%(default)g)",
    )
    page = parser.add_argument_group("page")
    page.add_argument(
        "--page",
        type=integer(0, 65535),
        nargs="?",
        const=PAGE_PORT,
        metavar="PORT",
        help=f"also serve a page with the predictions; port 0 for any free one (default: {PAGE_PORT})",
    )
    page.add_argument(
        "--host", default="127.0.0.1", help="address of the page; 0.0.0.0 for all networks (default: %(default)s)"
    )
    parser.set_defaults(num_workers=0)
    return parse_with_config(parser, arguments)


def _add_windows(parser: CommandParser) -> None:
    windows = parser.add_argument_group("windows")
    windows.add_argument(
        "--window",
        type=length,
        default=ParsedWindow(1.0, False),
        metavar="LENGTH",
        help="length of a window in seconds (0.5, 200ms) or events (20000events) (default: 1 s)",
    )
    windows.add_argument(
        "--step", type=length, metavar="LENGTH", help="distance of the starts of two windows (default: --window)"
    )
    windows.add_argument(
        "--patience",
        type=number(0, 60),
        default=0.1,
        metavar="SECONDS",
        help="how long a window waits for late events after its time has passed, if none arrive (default: %(default)g)",
    )
    windows.add_argument(
        "--min-events",
        type=integer(1, 2**24),
        default=1,
        metavar="N",
        help="windows with fewer events are not classified (default: %(default)s)",
    )
    windows.add_argument(
        "--merge", action="store_true", help="merge neighboring windows of one class to a segment in the files"
    )


def main(arguments: Sequence[str]) -> int:
    """Classify and return the exit status: 0 if a window was classified, 2 after a user error or if none was."""
    with messages_on_screen():
        return exit_status(lambda: _live(*parse(arguments)))


def _live(chosen: argparse.Namespace, cfg: ConfigNode) -> int:
    output = chosen.out or Path(cfg.OUTPUT_DIR)
    check_output_folder(output, "OUTPUT_DIR" if chosen.out is None else "--out")
    step = chosen.step or chosen.window
    if step.events != chosen.window.events:
        raise UserError("--step and --window must have the same unit, seconds or events")
    from slowfast.inference.event_sources import find_event_sources
    from slowfast.inference.live_events import EventWindowOptions
    from slowfast.inference.live_events_output import events_to_files

    by_count, patience = chosen.window.events, chosen.patience
    options = EventWindowOptions(
        chosen.window.value, step.value, by_count, patience, chosen.min_events, chosen.reconnect
    )
    sources = find_event_sources(chosen.sources, cfg.DVS.TIME_UNIT, chosen.speed, cfg.DVS.STREAM)
    with ExitStack() as stack:
        page = None if chosen.page is None else _page(chosen, cfg, stack)
        return events_to_files(cfg, sources, output, options, merge=chosen.merge, page=page)


def _page(
    chosen: argparse.Namespace, cfg: ConfigNode, stack: ExitStack
) -> Callable[[str, EventWindowOptions], LivePage]:
    """Listen at the address of the page, and return the function that creates the page."""
    from slowfast.inference.demo_server import bind
    from slowfast.inference.live_page import LivePage

    listening = stack.enter_context(bind(chosen.host, chosen.page, option="--page"))
    sensor = (cfg.DVS.SENSOR_SIZE[0], cfg.DVS.SENSOR_SIZE[1])
    return lambda model, options: LivePage(listening, model, options, sensor)
