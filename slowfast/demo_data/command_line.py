"""The command line of tools/make_demo_data.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slowfast.demo_data.build import FORMATS, build
from slowfast.demo_data.settings import SPLITS
from slowfast.runtime.command import CommandParser, check_workers, exit_status
from slowfast.runtime.screen import show

HELP = """Makes demo data: small real files in a dataset's own layout, rendered on the spot. Run again with the same
settings, it only checks what is there."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    usual = {name: layout.usual for name, layout in FORMATS.items()}
    parser = CommandParser("make_demo_data.py", HELP)
    parser.add_argument("--format", default="kinetics", choices=sorted(FORMATS), help="layout to write")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal frames")
    for split in SPLITS:
        counts = ", ".join(f"{name} {settings.count(split)}" for name, settings in usual.items())
        parser.add_argument(f"--{split}", type=int, help=f"{split} samples (default: {counts})")
    sizes = ", ".join(f"{name} {settings.size}" for name, settings in usual.items())
    parser.add_argument("--size", type=int, help=f"height of the frames, pixels, even (default: {sizes})")
    lengths = ", ".join(f"{name} {settings.frames}" for name, settings in usual.items() if name != "imagenet")
    parser.add_argument("--frames", type=int, help=f"length of a clip, in frames at 30 a second (default: {lengths})")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Make the data; exit status 0, or 2 for the user's mistake."""
    return exit_status(lambda: _make(vars(parse(arguments))))


def _make(chosen: dict[str, Any]) -> None:
    out, workers = chosen.pop("out"), chosen.pop("workers")
    if workers is not None:
        check_workers(workers)
    given = {name: value for name, value in chosen.items() if value is not None}
    result = build(out, replace(FORMATS[given["format"]].usual, **given), workers)
    done = f"made in {result.seconds:.0f} s" if result.made else "already there, nothing to do"
    show(f"{out}: {result.samples} samples, {result.size / 1e6:.1f} MB, {done}")
