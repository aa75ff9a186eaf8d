"""`slowfast env`: print versions and hardware, for choosing settings and for bug reports."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast.cli.command import CommandParser, exit_status
from slowfast.utils.screen import show_table
from slowfast.utils.text_files import to_json

EXAMPLE = "slowfast env"
DESCRIPTION = """\
Print what this machine has and what is used of it: Python, PyTorch and other packages, CPU instruction sets and limits
set by the environment, GPUs, what each precision setting does here and why, and optional extras with the command that
installs them. --kernels compiles the kernels of event-driven inference if needed (about 10 s) and reports if they work.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast env", DESCRIPTION, "%(prog)s [--json] [--kernels]", EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--kernels", action="store_true", help="compile the kernels of event-driven inference")
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print the environment and return the exit status: 0 done, 2 after a user error."""
    return exit_status(lambda: _show(parse(arguments)))


def _show(chosen: argparse.Namespace) -> None:
    from slowfast.cli.environment import describe_environment, environment_table

    facts = describe_environment(chosen.kernels)
    show_table(to_json(facts, indent=2) if chosen.json else environment_table(facts))
