"""Command line of tools/make_demo_data.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo_data.build import build
from demo_data.formats import FORMATS
from demo_data.settings import SPLITS
from slowfast.cli.command import CommandParser, add_workers, exit_status, integer
from slowfast.utils.files import check_output_folder
from slowfast.utils.screen import show

EXAMPLE = "python tools/make_demo_data.py --format kinetics --out demo"
USAGE = "%(prog)s --out FOLDER [--format FORMAT] [options]"
HELP = f"""\
Build a demo dataset: small rendered videos, images or event recordings in the layout of a public dataset. An existing
dataset with the same settings is kept.

  {EXAMPLE}
"""
MAX_SAMPLES = 1_000_000


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    defaults = {name: layout.default for name, layout in FORMATS.items()}
    parser = CommandParser("make_demo_data.py", HELP, USAGE, EXAMPLE, imports=False)
    parser.add_argument("--format", type=_format, default="kinetics", choices=sorted(FORMATS), help="layout")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder")
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, help="random seed (default %(default)s)")
    for split in SPLITS:
        counts = ", ".join(f"{name} {settings.count(split)}" for name, settings in defaults.items())
        parser.add_argument(
            f"--{split}", type=integer(1, MAX_SAMPLES), help=f"number of {split} samples (default: {counts})"
        )
    sizes = ", ".join(f"{name} {settings.size}" for name, settings in defaults.items())
    parser.add_argument("--size", type=integer(32, 4320), help=f"even frame height in pixels (default: {sizes})")
    lengths = ", ".join(f"{name} {settings.frames}" for name, settings in defaults.items() if name != "imagenet")
    parser.add_argument(
        "--frames",
        type=integer(2, 100_000),
        help=f"frames per clip, at 30 fps (default: {lengths})",
    )
    add_workers(parser)
    return parser.parse(arguments)


def _format(name: str) -> str:
    """Translate the former spelling of a format."""
    return "kinetics_colors" if name == "kinetics_colours" else name


def main(arguments: Sequence[str]) -> int:
    """Build the dataset and return the exit status: 0 done, 2 after a user error."""
    return exit_status(lambda: _make(vars(parse(arguments))))


def _make(chosen: dict[str, Any]) -> None:
    out, processes = chosen.pop("out"), chosen.pop("workers")
    check_output_folder(out, "--out")
    given = {name: value for name, value in chosen.items() if value is not None}
    result = build(out, replace(FORMATS[given["format"]].default, **given), processes)
    done = f"built in {result.seconds:.0f} s" if result.built else "already complete"
    show(f"{out}: {result.samples} samples, {result.size / 1e6:.1f} MB, {done}")
