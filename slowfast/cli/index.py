"""The command line of `tools/index_folder.py`."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from slowfast.cli.command import CommandParser, exit_status, number, whole_number
from slowfast.config.defaults import get_cfg
from slowfast.config.parse import BASE_KEY
from slowfast.datasets.index.folder import (
    FRAME_LISTS,
    FRAMES,
    IMAGES,
    KINDS,
    VIDEOS,
    Collection,
    check_names,
    scan,
    split,
    usual_shares,
    write_index,
)
from slowfast.errors import UserError
from slowfast.utils.output_folders import check_output_folder
from slowfast.utils.screen import show
from slowfast.utils.text import plain, quoted

RUN_FILE = "run.yaml"
_FINETUNE = Path(__file__).resolve().parents[2] / "configs" / "Finetune"
# The network that suits a kind of media, unless another is asked for.
BASES = {
    VIDEOS: _FINETUNE / "VIDEO_MORPHMLP_S16.yaml",
    FRAMES: _FINETUNE / "VIDEO_MORPHMLP_S16.yaml",
    IMAGES: _FINETUNE / "IMAGE_CONVMLP_S.yaml",
}
DATASETS = {VIDEOS: "kinetics", FRAMES: "sth", IMAGES: "imagenet"}


def run_yaml(collection: Collection, folder: Path, out: Path, separator: str, base: Path | None, train: int) -> str:
    """The text of the file: `base` on this data, in batches of no more than the `train` media. Raises ConfigError."""
    base = (base or BASES[collection.kind]).resolve()
    if base == (out / RUN_FILE).resolve():
        raise UserError(f"--cfg {base} is the file to be written")
    cfg = get_cfg()
    cfg.merge_from_file(base)
    dataset, data = DATASETS[collection.kind], {"PATH_TO_DATA_DIR": str(out.resolve())}
    data["PATH_PREFIX"] = str(folder.resolve())
    if collection.kind == FRAMES:
        data |= {"LABEL_PATH_TEMPLATE": FRAME_LISTS, "IMAGE_TEMPLATE": collection.template}
    else:
        data["PATH_LABEL_SEPARATOR"] = separator
    settings: dict[str, Any] = {
        BASE_KEY: os.path.relpath(base, out.resolve()),
        "TRAIN": {
            "DATASET": dataset,
            "BATCH_SIZE": min(cfg.TRAIN.BATCH_SIZE, train),
            "CHECKPOINT_EPOCH_RESET": True,  # a checkpoint is taken for its weights, not gone on with
        },
        "TEST": {"DATASET": dataset},
        "DATA": data,
        "MODEL": {"NUM_CLASSES": len(collection.classes)},
        "OUTPUT_DIR": str(out.resolve() / "run"),
    }
    return "# Written by tools/index_folder.py.\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


EXAMPLE = "python tools/index_folder.py my_videos --out my_index"
USAGE = "%(prog)s FOLDER --out FOLDER [--kind KIND] [--cfg FILE] [--val SHARE] [--test SHARE] [options]"
DESCRIPTION = f"""\
Write the index files of a folder of class folders: of videos, of folders of extracted frames, or of images. The split
of a file depends only on its name and --seed.

  {EXAMPLE}
  python tools/run_net.py --cfg my_index/run.yaml TRAIN.CHECKPOINT_FILE_PATH weights.pyth

run.yaml is a config for training and testing a model on them; KEY VALUE pairs override its keys.
"""

SHARE = "where each class has enough, else 0: the training samples again"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    parser = CommandParser("index_folder.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("folder", type=Path, help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the index files")
    parser.add_argument("--kind", choices=KINDS, default="", help="what the class folders contain (default: detected)")
    parser.add_argument("--cfg", type=Path, metavar="FILE", help="config to build on (default: of configs/Finetune)")
    parser.add_argument("--val", type=number(0, 1), help=f"share for validation (default: 0.1 {SHARE})")
    parser.add_argument("--test", type=number(0, 1), help=f"share for the test (default: 0.2 {SHARE})")
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        help="another seed gives another split (default %(default)s)",
    )
    parser.add_argument("--separator", default=" ", help="between path and label (default a space)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the index and return the exit status: 0 done, 2 user error."""
    return exit_status(lambda: _index(parse(arguments)))


def _index(chosen: argparse.Namespace) -> None:
    if not chosen.separator:
        raise UserError("--separator is empty. Give a character such as a space or a comma")
    if any(character in chosen.separator for character in "\r\n\0") or not chosen.separator.isprintable():
        if chosen.separator != "\t":
            raise UserError(f"--separator {quoted(chosen.separator)} must be printable text or a tab")
    check_output_folder(chosen.out, "--out")
    collection = scan(chosen.folder, chosen.kind)
    check_names(collection)
    usual = usual_shares(collection.media)
    val, test = (
        share if share is not None else own for share, own in zip((chosen.val, chosen.test), usual, strict=True)
    )
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"--val {val:g} and --test {test:g} must be shares that leave samples for training")
    what = {FRAMES: "folders of frames"}.get(collection.kind, collection.kind)
    parts = split(collection.media, val, test, chosen.seed)
    for part, media in parts.items():
        if not media:
            raise UserError(
                f"{plain(chosen.folder)} has too few {what} in each class for {part}. Use --{part} 0 to take the "
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
