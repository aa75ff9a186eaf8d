"""Parts of all commands: parser, option types, exit status."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import traceback
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import NoReturn

from slowfast.errors import ToldElsewhere, UserError, system_reason
from slowfast.utils.files import disk_error
from slowfast.utils.heartbeat import Heartbeat
from slowfast.utils.screen import lost_output, safe_streams, show, write_screen
from slowfast.utils.signals import Stopped, StopSignal
from slowfast.utils.text import quoted, shown_lines

DONE, FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130
RESUMABLE = "Interrupted. Run the same command to continue"
SIGNALLED = 128  # plus the signal's number, as shells have it


def exit_status(
    work: Callable[[], int | None],
    *,
    quiet: bool | Callable[[], bool] = False,
    interrupted: str = "interrupted",
    logged: bool = False,
) -> int:
    """Do the work of a command and return its exit status.

    A UserError and a full disk are reported on standard error in one line, any other exception with its traceback.
    SIGTERM and SIGHUP end the work at once: files appear whole or not at all. Work that saves on them handles them
    itself. A closed standard output does not end the work; where anything else is wrong with it, output was lost, which
    is a failure.

    Args:
        work: Does everything; may return an exit status, None is 0.
        quiet: Report no user error, because another process does; a function is asked when there is one.
        interrupted: What to report after Ctrl-C.
        logged: Standard output is in a log file, too, so that nothing is lost with it.

    Returns:
        What the work returned, 2 after a UserError or on a full disk, 130 after Ctrl-C, 128 + n after signal n, else 1.
    """
    with safe_streams(), Heartbeat.unless_running(lambda line: show(line, error=True)):
        try:
            with StopSignal() as stop, stop.at_once():
                status = work() or DONE
        except UserError as error:
            if not ((quiet() if callable(quiet) else quiet) or isinstance(error, ToldElsewhere)):
                show(f"error: {error}", error=True)
            return USER_MISTAKE
        except KeyboardInterrupt:
            show(interrupted, error=True)
            return INTERRUPTED
        except Stopped as stopped:
            show(f"Received {stopped.name}, stopping. Files that were written are complete", error=True)
            return SIGNALLED + signal.Signals[stopped.name]
        except Exception as error:
            if failure := disk_error(error):
                show(f"error: {failure}", error=True)
                return USER_MISTAKE
            write_screen(shown_lines(traceback.format_exc()), sys.stderr)
            return FAILED
        return status or (DONE if logged else _status_of_output())


def _status_of_output() -> int:
    """Report output that was lost for another reason than a reader that had enough."""
    failure = lost_output()
    if failure is None:
        return DONE
    show(f"error: standard output cannot be written: {system_reason(failure)}", error=True)
    return FAILED


class CommandParser(argparse.ArgumentParser):
    """Parser that reports a wrong command line as a UserError of one line.

    Args:
        prog: Name of the tool.
        description: Text of --help.
        usage: How to call it; derived from the options by default.
        example: A right command line, shown after an error; by default the error refers to --help.
    """

    def __init__(self, prog: str, description: str, usage: str | None = None, example: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            usage=usage,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._hint = f"for example: {example}" if example else f"{prog} --help lists the options"

    def error(self, message: str) -> NoReturn:
        """Raise the UserError."""
        raise UserError(f"{message}; {self._hint}")


MAX_WORKERS = 1024  # processes


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a converter to a whole number from `low` to `high`."""

    def convert(text: str) -> int:
        digits = text.strip().removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= 20 else None
        if value is None or not low <= value <= high:
            raise ArgumentTypeError(f"{quoted(text)} is not a whole number from {low} to {high}")
        return value

    return convert


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a converter to a number from `low` to `high`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # nor NaN
            raise ArgumentTypeError(f"{quoted(text)} is not a number from {low:g} to {high:g}")
        return value

    return convert


def number_or(word: str, low: float, high: float) -> Callable[[str], float | None]:
    """Return a converter to a number from `low` to `high`, or to None for a word."""
    convert = number(low, high)
    return lambda text: None if text == word else convert(text)


workers = whole_number(1, MAX_WORKERS)
