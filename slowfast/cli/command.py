"""Shared parts of all commands: exit status, parser, options and summaries of processed folders."""

from __future__ import annotations

import argparse
import math
import re
import signal
import sys
import traceback
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from slowfast.config.rules import MAX_WORKERS
from slowfast.errors import LostProcessError, ReportedByRankZero, UserError, system_reason
from slowfast.utils.files import disk_error
from slowfast.utils.imports import import_user_modules
from slowfast.utils.ray_cluster import ENGINES, LOCAL
from slowfast.utils.screen import Heartbeat, lost_output, safe_streams, show, write_screen
from slowfast.utils.signals import Stopped, StopSignal
from slowfast.utils.text import did_you_mean, nearest_name, plain, quoted, sanitize_lines

if TYPE_CHECKING:
    from slowfast.prepare.jobs import Conversion


DONE, FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130
RESUMABLE = "Interrupted. Run the same command to continue"
SIGNALLED = 128  # the signal number is added, as in shells
_OPTION = re.compile(r"--?[A-Za-z][\w-]*(=.*)?", re.DOTALL)
_SHOWN_FAILURES = 10  # failures on the screen; a file lists all


def exit_status(
    work: Callable[[], int | None],
    *,
    quiet: bool | Callable[[], bool] = False,
    interrupted: str = "interrupted",
    logged: bool = False,
) -> int:
    """Run a command and return its exit status.

    User errors and a full disk are reported on standard error in one line, other exceptions with their traceback.
    SIGTERM and SIGHUP end the work immediately, which is safe because files are written atomically; work that saves a
    checkpoint handles them itself. A closed standard output is ignored; any other error of it is a failure, because
    output was lost.

    Args:
        work: Function to run; it may return an exit status, None stands for 0.
        quiet: Do not report user errors, because another process does; a function is called after each.
        interrupted: Message after Ctrl-C.
        logged: Standard output is also written to a log file, so nothing is lost if it fails.

    Returns:
        The status of the work; 2 after a user error or on a full disk, 130 after Ctrl-C, 128 + n after signal n, 1
        after any other exception.
    """
    with safe_streams(), Heartbeat.unless_running(lambda line: show(line, error=True)):
        try:
            with StopSignal() as stop, stop.at_once():
                status = work() or DONE
        except UserError as error:
            if not ((quiet() if callable(quiet) else quiet) or isinstance(error, ReportedByRankZero)):
                show(f"error: {error}", error=True)
            return USER_MISTAKE
        except KeyboardInterrupt:
            show(interrupted, error=True)
            return INTERRUPTED
        except Stopped as stopped:
            show(f"Received {stopped.name}, stopping. Files that were written are complete", error=True)
            return SIGNALLED + signal.Signals[stopped.name]
        except LostProcessError as error:
            show(f"error: {error}", error=True)
            return FAILED
        except Exception as error:
            if failure := disk_error(error):
                show(f"error: {failure}", error=True)
                return USER_MISTAKE
            write_screen(sanitize_lines(traceback.format_exc()), sys.stderr)
            return FAILED
        return status or (DONE if logged else _status_of_output())


def _status_of_output() -> int:
    """Report output that was lost, unless its reader closed the pipe."""
    failure = lost_output()
    if failure is None:
        return DONE
    show(f"error: standard output is not writable: {system_reason(failure)}", error=True)
    return FAILED


class CommandParser(argparse.ArgumentParser):
    """Argument parser that raises a UserError for an invalid command line.

    Args:
        prog: Name of the command, such as "slowfast predict".
        description: Text of --help.
        usage: Arguments and options, in the notation of argparse; derived from the options by default.
        example: Valid command line, shown after an error; by default the error refers to --help.
        imports: Add --import, a list in the attribute `modules`.
    """

    def __init__(
        self, prog: str, description: str, usage: str | None = None, example: str = "", *, imports: bool = True
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            usage=usage,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._hint = f"Example: {example}" if example else f"{prog} --help lists the options"
        if imports:
            text = "Python module or .py file that registers models or datasets; may be repeated"
            self.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=text)

    def flags(self) -> set[str]:
        """Return the options that take no value."""
        return {option for action in self._actions if action.nargs == 0 for option in action.option_strings}

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; options and positional arguments may be mixed.

        Raises:
            UserError: If it cannot be parsed.
        """
        self._refuse_unknown_option(words)
        takes_rest = any(action.nargs == argparse.REMAINDER for action in self._actions)
        chosen = self.parse_args(list(words)) if takes_rest else self.parse_intermixed_args(list(words))
        _merge_target(self, chosen)
        return chosen

    def parse_and_import(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse a command line and import the modules of --import. Raises UserError if either fails."""
        chosen = self.parse(words)
        import_user_modules(chosen.modules)
        return chosen

    def _refuse_unknown_option(self, words: Sequence[str]) -> None:
        """Raise UserError for an unknown option, which is reported before missing arguments."""
        known = self._option_string_actions
        takes_rest = any(action.nargs == argparse.REMAINDER for action in self._actions)
        before = ""
        for word in words:
            option = word.partition("=")[0]
            if word == "--" or (takes_rest and not word.startswith("-") and not self._takes_value(before)):
                return
            if _OPTION.fullmatch(word) and option not in known:
                near = nearest_name(option, known)
                self.error(f"unknown option {plain(option)}.{did_you_mean(near)}".rstrip("."))
            before = word

    def _takes_value(self, option: str) -> bool:
        action = self._option_string_actions.get(option)
        return action is not None and action.nargs != 0

    def error(self, message: str) -> NoReturn:
        """Raise a UserError with the message and a hint."""
        raise UserError(f"{message}{'' if message.endswith('?') else '.'} {self._hint}")


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a converter to an integer from `low` to `high`."""

    def convert(text: str) -> int:
        digits = text.strip().removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= 20 else None
        if value is None or not low <= value <= high:
            raise ArgumentTypeError(f"{quoted(text)} is not an integer from {low} to {high}")
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
    """Return a converter to a number from `low` to `high`, or to None for the given word."""
    convert = number(low, high)
    return lambda text: None if text == word else convert(text)


workers = integer(1, MAX_WORKERS)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add --workers for a command that runs jobs in worker processes; None means one per core."""
    parser.add_argument("--workers", type=workers, metavar="N", help="worker processes (default: one per core)")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine for a command whose jobs also run on a cluster."""
    engine = "local, or ray: the nodes of a Ray cluster (RAY_ADDRESS), which see the same files (default %(default)s)"
    parser.add_argument("--engine", choices=ENGINES, default=LOCAL, help=engine)


def add_source_and_out(parser: argparse.ArgumentParser, source: str, out: str, *, name: str = "source") -> None:
    """Add the path to read as a positional argument, and --out.

    Args:
        parser: Parser of the command.
        source: Help of the path.
        out: Help of --out.
        name: Name of the path.
    """
    parser.add_argument(name, type=Path, metavar=name.upper(), help=source)
    parser.add_argument("--out", type=Path, metavar="PATH", help=out)
    # The former second positional argument, an alias of --out.
    parser.add_argument("target", type=Path, nargs="?", help=argparse.SUPPRESS)


def _merge_target(parser: CommandParser, chosen: argparse.Namespace) -> None:
    """Use the former positional argument as --out."""
    values: dict[str, Any] = vars(chosen)
    if "target" not in values:
        return
    target = values.pop("target")
    if target is not None and chosen.out is not None:
        parser.error(f"unexpected argument {plain(target)}: --out is given")
    chosen.out = target if chosen.out is None else chosen.out
    if chosen.out is None:
        parser.error("the following arguments are required: --out")


def show_failures(failed: Mapping[str, str], file: Path) -> None:
    """Print the first failures and the file that lists all of them.

    Args:
        failed: Reasons by name.
        file: List of all failures.
    """
    for name, reason in list(failed.items())[:_SHOWN_FAILURES]:
        show(f"failed: {name}: {reason}")
    if failed:
        show(f"all {len(failed)} failures: {file}")


def show_conversion(result: Conversion, what: str, out: Path) -> None:
    """Print what was converted and what failed.

    Args:
        result: Result of the conversion.
        what: What was done, such as "videos extracted".
        out: Output folder.
    """
    for problem, files in (("damaged, converted up to the damage", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(files.items()):
            show(f"{problem}: {name}: {reason}")
    others = f"{result.skipped} converted before, {len(result.failed)} failed"
    show(f"{result.done} {what} to {out} in {result.seconds:.0f} s, {others}")
