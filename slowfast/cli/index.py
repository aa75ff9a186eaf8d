"""`slowfast index`: index files and a config for a folder of class folders."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from slowfast.cli.command import CommandParser, exit_status, integer, number
from slowfast.config.defaults import get_cfg
from slowfast.config.parse import BASE_KEY
from slowfast.config.shipped import base_reference, find_config
from slowfast.errors import UserError
from slowfast.utils.paths import check_output_folder
from slowfast.utils.screen import show
from slowfast.utils.text import plain, quoted

if TYPE_CHECKING:
    from slowfast.datasets.index.folder import Collection


KINDS = ("videos", "frames", "images")
# Shipped config that suits a kind of samples.
BASES = {
    "videos": "Finetune/VIDEO_MORPHMLP_S16",
    "frames": "Finetune/VIDEO_MORPHMLP_S16",
    "images": "Finetune/IMAGE_CONVMLP_S",
}
DATASETS = {"videos": "kinetics", "frames": "sth", "images": "imagenet"}
SAMPLES = {"videos": "videos", "frames": "folders of frames", "images": "images"}
RUN_FILE = "run.yaml"

EXAMPLE = "slowfast index my_videos --out my_index"
USAGE = "%(prog)s FOLDER --out FOLDER [--kind KIND] [--cfg FILE] [--val SHARE] [--test SHARE] [options]"
DESCRIPTION = f"""\
Write the index files of a folder of class folders: of videos, of folders of extracted frames, or of images. The split
of a file depends only on its name and --seed.

  {EXAMPLE}
  slowfast train --cfg my_index/{RUN_FILE} TRAIN.CHECKPOINT_FILE_PATH weights.pyth

{RUN_FILE} is a config for training and testing a model on them; KEY VALUE pairs override its keys.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for an invalid one."""
    parser = CommandParser("slowfast index", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the index files")
    parser.add_argument("--kind", choices=KINDS, default="", help="what the class folders contain (default: detected)")
    cfg = "config to build on: YAML file or name of a shipped config (default: one of Finetune/)"
    parser.add_argument("--cfg", metavar="FILE", help=cfg)
    for split, share in (("val", 0.1), ("test", 0.2)):
        text = f"share of the {split} split; 0 takes the training split (default: {share}, 0 for small classes)"
        parser.add_argument(f"--{split}", type=number(0, 1), metavar="SHARE", help=text)
    seed = "seed of the split (default %(default)s)"
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, metavar="N", help=seed)
    parser.add_argument("--separator", default=" ", help="separator of path and label (default: a space)")
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the index and return the exit status: 0 done, 2 after a user error."""
    return exit_status(lambda: _index(parse(arguments)))


def _index(chosen: argparse.Namespace) -> None:
    _check_separator(chosen.separator)
    check_output_folder(chosen.out, "--out")
    from slowfast.datasets.index.folder import check_names, default_shares, scan, write_index

    collection = scan(chosen.folder, chosen.kind)
    check_names(collection)
    usual_val, usual_test = default_shares(collection.samples)
    val = usual_val if chosen.val is None else chosen.val
    test = usual_test if chosen.test is None else chosen.test
    parts = _split(collection, chosen.folder, val, test, chosen.seed)
    run = run_yaml(collection, chosen.folder, chosen.out, chosen.separator, chosen.cfg, len(parts["train"]))
    files = write_index(collection, parts, chosen.out, chosen.separator, {RUN_FILE: run})
    what = SAMPLES[collection.kind]
    counts = ", ".join(f"{len(samples)} {part}" for part, samples in parts.items())
    show(f"{len(collection.samples)} {what} of {len(collection.classes)} classes: {counts}")
    if shared := [part for part, share in (("val", val), ("test", test)) if not share]:
        show(f"{' and '.join(shared)} contain the training {what}: accuracy on them is not accuracy on unseen data")
    for file in files:
        show(f"  {file}")
    show("Train and test with (TRAIN.CHECKPOINT_FILE_PATH weights.pyth starts from pre-trained weights):")
    show("  " + shlex.join(["slowfast", "train", "--cfg", str(chosen.out / RUN_FILE)]))


def _check_separator(separator: str) -> None:
    if not separator:
        raise UserError("--separator is empty. Give a character such as a space or a comma")
    if separator != "\t" and (any(character in separator for character in "\r\n\0") or not separator.isprintable()):
        raise UserError(f"--separator {quoted(separator)} must be printable text or a tab")


def _split(collection: Collection, folder: Path, val: float, test: float, seed: int) -> dict[str, list[Any]]:
    """Split the samples; UserError if a split would be empty."""
    from slowfast.datasets.index.folder import split

    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"--val {val:g} and --test {test:g} must be shares that leave samples for training")
    parts: dict[str, list[Any]] = {
        name: list(part) for name, part in split(collection.samples, val, test, seed).items()
    }
    for name, samples in parts.items():
        if not samples:
            raise UserError(
                f"{plain(folder)} has too few {SAMPLES[collection.kind]} per class for {name}. Use --{name} 0 to take "
                "those of training"
            )
    return parts


def run_yaml(
    collection: Collection, folder: Path, out: Path, separator: str, base: str | None, train_samples: int
) -> str:
    """Return the text of a config for the indexed samples.

    Args:
        collection: The samples.
        folder: Folder of the class folders.
        out: Folder of the index files and of this config.
        separator: Separator of path and label in the index files.
        base: Config to build on; None for the one that suits the samples.
        train_samples: Number of training samples; a batch has at most as many.

    Raises:
        ConfigError: If the config to build on cannot be read.
    """
    path = find_config(base or BASES[collection.kind])
    reference = base_reference(path, out)
    if os.path.realpath(path) == os.path.realpath(out / RUN_FILE):
        raise UserError(f"--cfg {plain(path)} is the file to write. Choose another one")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    dataset, data = DATASETS[collection.kind], {"PATH_TO_DATA_DIR": str(out.resolve())}
    data["PATH_PREFIX"] = str(folder.resolve())
    if collection.kind == "frames":
        from slowfast.datasets.index.folder import FRAME_LISTS

        data |= {"LABEL_PATH_TEMPLATE": FRAME_LISTS, "IMAGE_TEMPLATE": collection.template}
    else:
        data["PATH_LABEL_SEPARATOR"] = separator
    settings: dict[str, Any] = {
        BASE_KEY: reference,
        "TRAIN": {
            "DATASET": dataset,
            "BATCH_SIZE": min(cfg.TRAIN.BATCH_SIZE, train_samples),
            "CHECKPOINT_EPOCH_RESET": True,  # a checkpoint to start from gives weights, not an epoch to resume at
        },
        "TEST": {"DATASET": dataset},
        "DATA": data,
        "MODEL": {"NUM_CLASSES": len(collection.classes)},
        "OUTPUT_DIR": str(out.resolve() / "run"),
    }
    return "# Written by slowfast index.\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
