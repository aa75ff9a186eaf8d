"""`slowfast shards`: pack samples into tar files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import RESUMABLE, CommandParser, add_source_and_out, exit_status, integer, show_failures
from slowfast.config.keys import KEYS
from slowfast.errors import UserError
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show_table

EXAMPLE = "slowfast shards kinetics_256 --out kinetics_shards --index kinetics_256/train.csv kinetics_256/val.csv"
FRAMES_EXAMPLE = "slowfast shards ssv2_frames --out ssv2_shards --index lists/train.txt --frames {:05d}.jpg"
USAGE = "%(prog)s SOURCE --out FOLDER --index CSV [CSV ...] [--frames TEMPLATE] [--size MIB] [options]"
DESCRIPTION = f"""\
Pack the samples of index files into tar files (shards), for file systems and object stores that are slow with many
small files: videos, images, recordings of event cameras, or with --frames folders of frames. Files are not re-encoded;
see slowfast prepare. The source is not changed.

  {EXAMPLE}
  {FRAMES_EXAMPLE}

Then train with DATA.PATH_TO_DATA_DIR and DATA.PATH_PREFIX set to the new folder, or to an s3:// address that it was
uploaded to. Clips and their order are the same as with single files. Run an interrupted command again to continue.
"""
DEFAULT_MIB = 512


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast shards", DESCRIPTION, USAGE, EXAMPLE)
    add_source_and_out(parser, "folder that the paths in the index files are relative to", "folder of the shards")
    index = "index files such as train.csv and val.csv; those of the shards get the same names"
    parser.add_argument("--index", type=Path, nargs="+", default=[], metavar="CSV", help=index)
    parser.add_argument("--separator", default=" ", help="separator of path and label in them (default: a space)")
    frames = "the samples are folders of frames of these names (DATA.IMAGE_TEMPLATE), such as {:05d}.jpg; the lines of "
    frames += "the index files are: folder frames label"
    parser.add_argument("--frames", default="", metavar="TEMPLATE", help=frames)
    size = "size of a shard in MiB (default %(default)s)"
    parser.add_argument("--size", type=integer(1, 2**20), default=DEFAULT_MIB, metavar="MIB", help=size)
    chosen = parser.parse_and_import(arguments)
    if not chosen.index:
        raise UserError("--index is missing. Name the index files of the samples, such as SOURCE/train.csv")
    if chosen.frames:
        KEYS["DATA.IMAGE_TEMPLATE"].check("--frames", chosen.frames)
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Pack and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _run(parse(arguments)), interrupted=RESUMABLE)


def _run(chosen: argparse.Namespace) -> None:
    pack(chosen.source, chosen.out, chosen.index, chosen.separator, chosen.size, chosen.frames)


def pack(source: Path, target: Path, index_files: Sequence[Path], separator: str, size: int, frames: str = "") -> None:
    """Write shards and show the summary.

    Args:
        source: Folder of the samples.
        target: Folder of the shards.
        index_files: Index files.
        separator: Separator of path and label in them.
        size: Size of a shard in MiB.
        frames: Names of the frames if the samples are folders of frames.
    """
    from slowfast.prepare.files import FAILED_FILE
    from slowfast.prepare.shards import write_shards
    from slowfast.utils.files import MIB

    summary = write_shards(source, target, index_files, separator, size * MIB, frames)
    show_table(summary.table())
    show_failures(summary.failed, target / FAILED_FILE)
