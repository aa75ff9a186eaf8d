"""What all command lines share: the user's mistake as one line, and the exit status."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from slowfast.errors import ToldElsewhere, UserError

DONE, FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130


def exit_status(work: Callable[[], int | None], *, quiet: bool = False, interrupted: str = "interrupted") -> int:
    """Do the work; its exit status: what it returns (None: 0), 2 for a UserError, 1 for any other exception.

    A UserError is told on stderr in its own words, unless `quiet` or ToldElsewhere: another process tells it. Any other
    exception is told with its traceback, Ctrl-C (130) in the words of `interrupted`.
    """
    try:
        return work() or DONE
    except UserError as error:
        if not (quiet or isinstance(error, ToldElsewhere)):
            print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr, flush=True)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return FAILED


class CommandParser(argparse.ArgumentParser):
    """A parser whose complaint about a command line is a UserError that ends in an example of a right one."""

    def __init__(self, prog: str, description: str, usage: str, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            usage=usage,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._example = example

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; for example: {self._example}")


def check_workers(workers: int) -> None:
    """Raise UserError unless --workers is a number of processes."""
    if workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
