"""`slowfast events`: inspection of recordings of event cameras; statistics of `slowfast events info`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slowfast.cli.command import DONE, USER_MISTAKE, CommandParser, exit_status, number
from slowfast.cli.events_live import main as live
from slowfast.errors import UserError
from slowfast.utils.screen import show
from slowfast.utils.text import did_you_mean, nearest_name, plain

COMMANDS = {
    "info": "Show duration, rate, polarity, sensor size, hot pixels and gaps",
    "live": "Classify live event streams from servers and recordings",
}
DESCRIPTION = "Tools for recordings of event cameras.\n\ncommands:\n" + "\n".join(
    f"  {name:<16}{summary}" for name, summary in COMMANDS.items()
)


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    rest: list[str] = []
    status = exit_status(lambda: rest.extend(_parse(arguments)))
    if status or not rest:
        return status
    return {"info": info, "live": live}[rest[0]](rest[1:])


def _parse(words: Sequence[str]) -> list[str]:
    """Return the command and its words; UserError without a known command."""
    parser = CommandParser("slowfast events", DESCRIPTION, "%(prog)s COMMAND [options]")
    parser.epilog = "slowfast events COMMAND --help explains a command."
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_and_import(words)
    rest: list[str] = chosen.rest
    if not rest:
        raise UserError("no command given. slowfast events --help lists the commands")
    if rest[0] not in COMMANDS:
        near = did_you_mean(nearest_name(rest[0], COMMANDS))
        raise UserError(f"unknown command {plain(rest[0])}.{near} slowfast events --help lists the commands")
    return rest


# ------------------------------------------------------------------ slowfast events info
INFO_EXAMPLE = "slowfast events info recording.raw"
INFO_USAGE = "%(prog)s FILE [FILE ...] [--json] [--time-unit SECONDS]"
INFO_DESCRIPTION = f"""\
Show the statistics of event recordings of any format that `slowfast convert-dvs` reads: duration, rate, fraction of ON
events, size of the sensor, hot pixels, gaps, and steps back in time. Files of any size are read in constant memory.

  {INFO_EXAMPLE}
  slowfast events info recordings/*.aedat4 --json

A pixel is hot if it has more than 10 times the events of the median active pixel, and lies more than 5 standard
deviations above their mean. A gap is a time of more than 0.1 s without events. The peak rate is measured over 10 ms.
A file that cannot be read is reported on standard error, and the exit status is then 2.
"""


def parse_info(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast events info", INFO_DESCRIPTION, INFO_USAGE, INFO_EXAMPLE)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="event recordings")
    parser.add_argument("--json", action="store_true", help="print a JSON array with an object per stream")
    unit = "unit of the times in seconds, for formats that do not state it (default %(default)s)"
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=1e-6, metavar="SECONDS", help=unit)
    return parser.parse_and_import(arguments)


def info(arguments: Sequence[str]) -> int:
    """Show the statistics and return the exit status: 0 done, 2 if a file cannot be read or after a user error."""
    return exit_status(lambda: _info(parse_info(arguments)))


def _info(chosen: argparse.Namespace) -> int:
    from slowfast.datasets.decode import DecodeError

    rows: list[dict[str, Any]] = []
    failed = False
    for file in chosen.files:
        try:
            for row in _streams(file, chosen.time_unit):
                rows.append(row)
                if not chosen.json:
                    _show(row)
        except (DecodeError, UserError) as error:
            failed = True
            show(f"error: {file}: {error}", error=True)
    if chosen.json:
        from slowfast.utils.text_files import to_json

        show(to_json(rows))
    return USER_MISTAKE if failed else DONE


def _streams(file: Path, time_unit: float) -> Iterator[dict[str, Any]]:
    """Yield the statistics of each stream of a file.

    Raises:
        DecodeError: If it cannot be read or contains no events.
    """
    from slowfast.datasets.decode import DecodeError
    from slowfast.datasets.dvs.formats import open_events, read_blocks
    from slowfast.datasets.dvs.formats.base import MICROSECOND, seconds_per_tick
    from slowfast.datasets.dvs.statistics import StatisticsCollector

    reader = open_events(file)
    unit = seconds_per_tick(reader, time_unit)
    found = False
    for place, stream in enumerate(reader.streams):
        collector = StatisticsCollector(stream.sensor, unit / MICROSECOND)
        for block in read_blocks(reader, place):
            collector.add(block)
        if not collector.events:
            continue
        found = True
        yield {
            "file": str(file),
            "stream": stream.name,
            "format": reader.label,
            "sensor": stream.sensor,
            **asdict(collector.result()),
            "damage": list(reader.damage),
            "notes": list(reader.notes),
        }
    if not found:
        raise DecodeError("; ".join(reader.damage) or "the recording contains no events")


def _show(row: dict[str, Any]) -> None:
    """Print the statistics of a stream as a table of two columns."""
    show(f"{row['file']}{': ' + row['stream'] if row['stream'] else ''}")
    for name, value in _lines(row):
        show(f"  {name:<16}{value}")


def _lines(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "format", row["format"].partition(" ")[2]
    yield "events", f"{row['events']:,}"
    yield "duration", f"{row['duration'] * 1e-6:.6f} s ({row['start']:.0f} to {row['end']:.0f} us)"
    yield "rate", f"{row['rate']:,.0f} events/s, peak {row['peak_rate']:,.0f} events/s"
    yield "ON events", f"{100 * row['on_share']:.1f} %"
    height, width = row["extent"]
    stated = f"{row['sensor'][0]} x {row['sensor'][1]} pixels" if row["sensor"] else "not stated"
    outside = f", {row['outside']:,} events outside" if row["outside"] else ""
    yield "sensor", f"{stated}; events within {height} x {width}{outside} (height x width)"
    share = 100 * row["hot_events"] / row["events"]
    listed = "".join(f"; ({p['x']}, {p['y']}): {p['events']:,}" for p in row["hottest"][:3])
    hot = f"{row['hot_pixels']:,} of {row['active_pixels']:,} active ones, {share:.1f} % of the events{listed}"
    yield "hot pixels", hot if row["hot_pixels"] else f"none of {row['active_pixels']:,} active ones"
    gaps = "; ".join(f"{g['duration'] * 1e-6:.3f} s at {g['start']:.0f} us" for g in row["longest_gaps"][:3])
    yield "gaps", f"{row['gaps']:,} of more than 0.1 s: {gaps}" if row["gaps"] else "none of more than 0.1 s"
    back = f"{row['backward_steps']:,}, the largest {row['largest_backward_step']:.0f} us"
    yield "steps back", back if row["backward_steps"] else "none"
    for note in row["notes"]:
        yield "note", note
    for damage in row["damage"]:
        yield "damage", damage
