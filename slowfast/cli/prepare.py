"""Commands that prepare videos and frames for training: `slowfast prepare`, `extract-frames` and `shards`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import (
    RESUMABLE,
    CommandParser,
    add_engine,
    add_source_and_out,
    add_workers,
    exit_status,
    integer,
    number_or,
    show_conversion,
    show_failures,
)
from slowfast.config.defaults import KEYS
from slowfast.errors import UserError
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show_table

# ------------------------------------------------------------------ slowfast prepare
PREPARE_EXAMPLE = "slowfast prepare kinetics --out kinetics_256 --index kinetics/train.csv kinetics/val.csv"
PREPARE_USAGE = (
    "%(prog)s SOURCE --out FOLDER [--short-side PIXELS] [--fps N] [--index CSV ...] [--shards MIB] [options]"
)
PREPARE_DESCRIPTION = f"""\
Re-encode all videos of a folder and its subfolders so that training clips are decoded fast: H.264 in .mp4, resized,
with frequent keyframes and frames that can be skipped without being decoded. The source is not changed.

  {PREPARE_EXAMPLE}

Run an interrupted command again to continue: complete videos are kept. Videos that cannot be read are skipped and
listed, with the reason, in failed.csv. Then train with DATA.PATH_PREFIX and DATA.PATH_TO_DATA_DIR set to the new
folder.
"""
SHARDS_FOLDER = "shards"
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


def parse_prepare(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast prepare", PREPARE_DESCRIPTION, PREPARE_USAGE, PREPARE_EXAMPLE)
    add_source_and_out(parser, "folder of videos", "output folder, outside of SOURCE")
    side = "resize larger videos to this short side (default %(default)s)"
    parser.add_argument("--short-side", type=integer(16, 4320), default=256, metavar="PIXELS", help=side)
    interval = "frames between keyframes; fewer are faster to read and larger on disk (default %(default)s)"
    parser.add_argument("--keyframe-interval", type=integer(1, 1000), default=32, metavar="FRAMES", help=interval)
    crf = "constant rate factor of x264; lower is better and larger (default %(default)s)"
    parser.add_argument("--crf", type=integer(0, 51), default=20, help=crf)
    preset = "preset of x264; a faster one makes larger files (default %(default)s)"
    parser.add_argument("--preset", choices=PRESETS, default="medium", metavar="NAME", help=preset)
    fps = "maximum frame rate, or keep (default keep)"
    parser.add_argument("--fps", type=number_or("keep", 0.1, 1000), metavar="N", help=fps)
    parser.add_argument(
        "--index", type=Path, nargs="+", default=[], metavar="CSV", help="index files to rewrite for the new folder"
    )
    parser.add_argument("--separator", default=" ", help="separator of path and label in them (default: a space)")
    shards = "also pack the new videos into shards of this size, in the folder shards of FOLDER; see slowfast shards"
    parser.add_argument("--shards", type=integer(1, 2**20), metavar="MIB", help=shards)
    add_workers(parser)
    add_engine(parser)
    chosen = parser.parse_and_import(arguments)
    if chosen.shards is not None and not chosen.index:
        raise UserError("--shards needs --index: shards contain the videos of index files")
    return chosen


def prepare(arguments: Sequence[str]) -> int:
    """Re-encode and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _prepare(parse_prepare(arguments)), interrupted=RESUMABLE)


def _prepare(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.encode import PrepareSettings
    from slowfast.prepare.videos import FAILED_FILE, prepare_folder
    from slowfast.utils.cpu import usable_cores

    settings = PrepareSettings(chosen.short_side, chosen.keyframe_interval, chosen.crf, chosen.fps, chosen.preset)
    processes = chosen.workers or usable_cores()
    summary = prepare_folder(
        chosen.source, chosen.out, settings, processes, chosen.index, chosen.separator, chosen.engine
    )
    show_table(summary.table())
    show_failures(summary.failed, chosen.out / FAILED_FILE)
    if chosen.shards is not None:
        index_files = [chosen.out / file.name for file in chosen.index]
        pack(chosen.out, chosen.out / SHARDS_FOLDER, index_files, chosen.separator, chosen.shards)


# ------------------------------------------------------------------ slowfast extract-frames
EXTRACT_EXAMPLE = "slowfast extract-frames my_videos --out my_frames"
EXTRACT_USAGE = "%(prog)s SOURCE --out FOLDER [--short-side PIXELS] [--fps N] [--quality Q] [--workers N]"
EXTRACT_DESCRIPTION = f"""\
Extract the frames of all videos of a folder and its subfolders as JPEG files: a/b.mp4 becomes a/b/00001.jpg and so on
(DATA.IMAGE_TEMPLATE {{:05d}}.jpg). The source is not changed.

  {EXTRACT_EXAMPLE}
  slowfast index my_frames --out my_index

Run an interrupted command again to continue: complete folders are kept. Write other settings to another folder.
"""


def parse_extract_frames(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast extract-frames", EXTRACT_DESCRIPTION, EXTRACT_USAGE, EXTRACT_EXAMPLE)
    add_source_and_out(parser, "folder of videos", "output folder, outside of SOURCE")
    side = "resize larger videos to this short side (default %(default)s)"
    parser.add_argument("--short-side", type=integer(16, 4320), default=240, metavar="PIXELS", help=side)
    parser.add_argument(
        "--fps", type=number_or("all", 0.1, 1000), default=12, help="maximum frame rate, or all (default %(default)s)"
    )
    parser.add_argument(
        "--quality", type=integer(1, 100), default=95, help="quality of the JPEG files (default %(default)s)"
    )
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def extract_frames(arguments: Sequence[str]) -> int:
    """Extract and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _extract(parse_extract_frames(arguments)), interrupted=RESUMABLE)


def _extract(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.frames import FrameSettings, extract
    from slowfast.utils.cpu import usable_cores

    settings = FrameSettings(chosen.short_side, chosen.fps, chosen.quality)
    result = extract(chosen.source, chosen.out, settings, chosen.workers or usable_cores(), chosen.engine)
    show_conversion(result, "videos extracted", chosen.out)


# ------------------------------------------------------------------ slowfast shards
SHARDS_EXAMPLE = (
    "slowfast shards kinetics_256 --out kinetics_shards --index kinetics_256/train.csv kinetics_256/val.csv"
)
SHARDS_FRAMES_EXAMPLE = "slowfast shards ssv2_frames --out ssv2_shards --index lists/train.txt --frames {:05d}.jpg"
SHARDS_USAGE = "%(prog)s SOURCE --out FOLDER --index CSV [CSV ...] [--frames TEMPLATE] [--size MIB] [options]"
SHARDS_DESCRIPTION = f"""\
Pack the samples of index files into tar files (shards), for file systems and object stores that are slow with many
small files: videos, images, recordings of event cameras, or with --frames folders of frames. Files are not re-encoded;
see slowfast prepare. The source is not changed.

  {SHARDS_EXAMPLE}
  {SHARDS_FRAMES_EXAMPLE}

Then train with DATA.PATH_TO_DATA_DIR and DATA.PATH_PREFIX set to the new folder, or to an s3:// address that it was
uploaded to. Clips and their order are the same as with single files. Run an interrupted command again to continue.
"""
DEFAULT_MIB = 512


def parse_shards(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast shards", SHARDS_DESCRIPTION, SHARDS_USAGE, SHARDS_EXAMPLE)
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


def shards(arguments: Sequence[str]) -> int:
    """Pack and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _shards(parse_shards(arguments)), interrupted=RESUMABLE)


def _shards(chosen: argparse.Namespace) -> None:
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
