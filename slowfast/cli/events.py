"""`slowfast events COMMAND`: tools for recordings of event cameras."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module

from slowfast.cli.command import CommandParser, exit_status
from slowfast.errors import UserError
from slowfast.utils.text import did_you_mean, nearest_name, plain

# Command: summary and module in slowfast.cli, which is imported when the command is chosen.
COMMANDS = {
    "info": ("Show duration, rate, polarity, sensor size, hot pixels and gaps", "events_info"),
    "live": ("Classify live event streams from servers and recordings", "events_live"),
}
DESCRIPTION = "Tools for recordings of event cameras.\n\ncommands:\n" + "\n".join(
    f"  {name:<16}{summary}" for name, (summary, _) in COMMANDS.items()
)


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    rest: list[str] = []
    status = exit_status(lambda: rest.extend(_parse(arguments)))
    if status or not rest:
        return status
    run: Callable[[Sequence[str]], int] = import_module(f"slowfast.cli.{COMMANDS[rest[0]][1]}").main
    return run(rest[1:])


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
