"""The command line of tools/make_demo_data.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo_data.build import FORMATS, build
from demo_data.settings import SPLITS
from slowfast.cli.command import CommandParser, exit_status, whole_number, workers
from slowfast.utils.output_folders import check_output_folder
from slowfast.utils.screen import show

EXAMPLE = "python tools/make_demo_data.py --format kinetics --out demo"
USAGE = "%(prog)s --out FOLDER [--format FORMAT] [options]"
HELP = f"""\
Make demo data: small real files in a dataset's own layout, rendered on the spot. Run again with the same settings, it
only checks the existing files.

  {EXAMPLE}
"""
MAX_SAMPLES = 1_000_000


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    usual = {name: layout.usual for name, layout in FORMATS.items()}
    parser = CommandParser("make_demo_data.py", HELP, USAGE, EXAMPLE)
    parser.add_argument("--format", default="kinetics", choices=sorted(FORMATS), help="layout to write")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, help="equal seeds give equal frames")
    for split in SPLITS:
        counts = ", ".join(f"{name} {settings.count(split)}" for name, settings in usual.items())
        parser.add_argument(
            f"--{split}", type=whole_number(1, MAX_SAMPLES), help=f"{split} samples (default: {counts})"
        )
    sizes = ", ".join(f"{name} {settings.size}" for name, settings in usual.items())
    parser.add_argument(
        "--size", type=whole_number(32, 4320), help=f"height of the frames, pixels, even (default: {sizes})"
    )
    lengths = ", ".join(f"{name} {settings.frames}" for name, settings in usual.items() if name != "imagenet")
    parser.add_argument(
        "--frames",
        type=whole_number(2, 100_000),
        help=f"length of a clip, in frames at 30 a second (default: {lengths})",
    )
    parser.add_argument("--workers", type=workers, default=None, help="processes (default: one per core)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Make the data and return the exit status: 0 done, 2 user error."""
    return exit_status(lambda: _make(vars(parse(arguments))))


def _make(chosen: dict[str, Any]) -> None:
    out, processes = chosen.pop("out"), chosen.pop("workers")
    check_output_folder(out, "--out")
    given = {name: value for name, value in chosen.items() if value is not None}
    result = build(out, replace(FORMATS[given["format"]].usual, **given), processes)
    done = f"made in {result.seconds:.0f} s" if result.made else "already there, nothing to do"
    show(f"{out}: {result.samples} samples, {result.size / 1e6:.1f} MB, {done}")
