"""The command line of `tools/index_folder.py`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from slowfast.datasets.index.folder import FRAMES, KINDS, check_names, scan, split, usual_shares, write_index
from slowfast.datasets.index.folder_run import RUN_FILE, run_yaml
from slowfast.errors import UserError
from slowfast.runtime.command import CommandParser, exit_status
from slowfast.runtime.screen import show

DESCRIPTION = """\
Write the index files of a folder of class folders: of videos, of folders of extracted frames, or of images. Which
medium goes to training, validation or test depends on its name and --seed alone.

  python tools/index_folder.py my_videos --out my_index
  python tools/run_net.py --cfg my_index/run.yaml TRAIN.CHECKPOINT_FILE_PATH weights.pyth

run.yaml is a config for training and testing a network on them; KEY VALUE pairs change what it says.
"""

SHARE = "where each class has enough, else 0: the training media again"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's values."""
    parser = CommandParser("index_folder.py", DESCRIPTION)
    parser.add_argument("folder", type=Path, help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the index files")
    parser.add_argument("--kind", choices=KINDS, default="", help="what the class folders hold (default: found out)")
    parser.add_argument("--cfg", type=Path, metavar="FILE", help="the network's YAML (default: of configs/Finetune)")
    parser.add_argument("--val", type=float, help=f"share for validation (default: 0.1 {SHARE})")
    parser.add_argument("--test", type=float, help=f"share for the test (default: 0.2 {SHARE})")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another split (default %(default)s)")
    parser.add_argument("--separator", default=" ", help="between path and label (default a space)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the index; the exit status: 0 done, 2 the user's mistake."""
    return exit_status(lambda: _index(parse(arguments)))


def _index(chosen: argparse.Namespace) -> None:
    if not chosen.separator:
        raise UserError("--separator is empty")
    collection = scan(chosen.folder, chosen.kind)
    check_names(collection)
    usual = usual_shares(collection.media)
    val, test = (
        share if share is not None else own for share, own in zip((chosen.val, chosen.test), usual, strict=True)
    )
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"--val {val} --test {test}: must be shares that leave something for training")
    what = {FRAMES: "folders of frames"}.get(collection.kind, collection.kind)
    parts = split(collection.media, val, test, chosen.seed)
    for part, media in parts.items():
        if not media:
            raise UserError(
                f"{chosen.folder} has too few {what} in each class to give some to {part}; --{part} 0 takes the "
                "training ones"
            )
    run = run_yaml(collection, chosen.folder, chosen.out, chosen.separator, chosen.cfg, len(parts["train"]))
    files = write_index(collection, parts, chosen.out, chosen.separator, {RUN_FILE: run})
    counts = ", ".join(f"{len(media)} {part}" for part, media in parts.items())
    lines = [f"{len(collection.media)} {what} of {len(collection.classes)} classes: {counts}"]
    shared = [part for part, share in (("val", val), ("test", test)) if not share]
    if shared:
        lines.append(f"{' and '.join(shared)} hold the training {what}: their accuracy says nothing about new ones")
    lines += [f"  {file}" for file in files]
    lines.append("Train and test with (add TRAIN.CHECKPOINT_FILE_PATH weights.pyth to start from weights):")
    lines.append("  " + shlex.join(["python", "tools/run_net.py", "--cfg", str(chosen.out / RUN_FILE)]))
    for line in lines:
        show(line)
