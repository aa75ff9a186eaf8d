"""The command line of `tools/index_folder.py`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from slowfast.datasets.index.folder import FRAMES, KINDS, run_settings, scan, split, write_index
from slowfast.errors import UserError

DESCRIPTION = """\
Write the index files of a folder of class folders: of videos, of folders of extracted frames, or of images. Which
medium goes to training, validation or test depends on its name and --seed alone.

  python tools/index_folder.py my_videos --out my_index

It ends with the overrides that make a run read them.
"""

ZERO = "0: the training media again, where there are too few to split"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        prog="index_folder.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the index files")
    parser.add_argument("--kind", choices=KINDS, default="", help="what the class folders hold (default: found out)")
    parser.add_argument("--val", type=float, default=0.1, help=f"share for validation, %(default)s; {ZERO}")
    parser.add_argument("--test", type=float, default=0.2, help=f"share for the test, %(default)s; {ZERO}")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another split (default %(default)s)")
    parser.add_argument("--separator", default=" ", help="between path and label (default a space)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the index; the exit status: 0 done, 2 the user's mistake."""
    chosen = parse(arguments)
    try:
        print(_index(chosen))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _index(chosen: argparse.Namespace) -> str:
    if chosen.val < 0 or chosen.test < 0 or chosen.val + chosen.test >= 1:
        raise UserError(f"--val {chosen.val} --test {chosen.test}: must be shares that leave something for training")
    if not chosen.separator:
        raise UserError("--separator is empty")
    collection = scan(chosen.folder, chosen.kind)
    what = {FRAMES: "folders of frames"}.get(collection.kind, collection.kind)
    parts = split(collection.media, chosen.val, chosen.test, chosen.seed)
    for part, media in parts.items():
        if not media:
            raise UserError(f"{chosen.folder} has too few {what} in each class to give some to {part}")
    files = write_index(collection, parts, chosen.out, chosen.separator)
    counts = ", ".join(f"{len(media)} {part}" for part, media in parts.items())
    settings = run_settings(collection, chosen.folder, chosen.out, chosen.separator)
    return "\n".join(
        [
            f"{len(collection.media)} {what} of {len(collection.classes)} classes: {counts}",
            *(f"  {file}" for file in files),
            "A run reads them with:",
            f"  python tools/run_net.py --cfg YOUR.yaml {shlex.join(settings)}",
        ]
    )
