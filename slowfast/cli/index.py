"""`slowfast index`: write index files and a config for a folder of class folders."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from slowfast.cli.command import DONE, FAILED, RESUMABLE, CommandParser, add_workers, exit_status, integer, number
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.config.parse import BASE_KEY, CONFIG_DIR, base_reference, find_config
from slowfast.errors import DataError, UserError
from slowfast.utils.files import check_output_folder
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show
from slowfast.utils.text import plain, quoted

if TYPE_CHECKING:
    from slowfast.datasets.index.folder import Collection
    from slowfast.datasets.index.write import Split

KINDS = ("videos", "frames", "images", "recordings")
# Shipped config for each kind of samples.
BASES = {
    "videos": "Finetune/VIDEO_MORPHMLP_S16",
    "frames": "Finetune/VIDEO_MORPHMLP_S16",
    "images": "Finetune/IMAGE_CONVMLP_S",
    "recordings": "Finetune/EVENT_EVENT2VEC",
}
RUN_FILE = "run.yaml"
_LISTED = 20  # unreadable files on the screen

EXAMPLE = "slowfast index my_videos --out my_index"
USAGE = "%(prog)s FOLDER --out FOLDER [--kind KIND] [--check] [--group REGEX] [--cfg FILE] [--val FRACTION] [options]"
DESCRIPTION = f"""\
Write the index files of a folder of class folders: of videos, of folders of extracted frames, of images, or of event
recordings. The split of a file depends only on its name and --seed.

  {EXAMPLE}
  slowfast train --cfg my_index/{RUN_FILE} TRAIN.CHECKPOINT_FILE_PATH weights.pyth

{RUN_FILE} is a config for training and testing a model on them; KEY VALUE pairs override its keys. The index and the
samples can be moved together.

--check opens all files in parallel, leaves those out of the index that cannot be read and lists them in
unreadable.csv; the exit status is 1 if there are any. An interrupted check continues when the command is run again.

--group keeps all files of one source in the same split, for example the clips of one recording or of one person: the
first group of the regular expression, which is searched in CLASS/FILE, names the source.

  slowfast index UCF-101 --out my_index --group '(v_.*_g[0-9]+)_c'
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast index", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the index files")
    parser.add_argument("--kind", choices=KINDS, default="", help="what the class folders contain (default: detected)")
    parser.add_argument("--check", action="store_true", help="open all files and exclude unreadable ones")
    add_workers(parser)
    group = "regular expression whose first group names the source of a file; a source stays in one split"
    parser.add_argument("--group", metavar="REGEX", help=group)
    cfg = "config to build on: YAML file or name of a shipped config (default: one of Finetune/)"
    parser.add_argument("--cfg", metavar="FILE", help=cfg)
    for split, share in (("val", 0.1), ("test", 0.2)):
        text = f"fraction of the {split} split; 0 uses the training split (default: {share}, 0 for small classes)"
        parser.add_argument(f"--{split}", type=number(0, 1), metavar="FRACTION", help=text)
    seed = "seed of the split (default %(default)s)"
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, metavar="N", help=seed)
    parser.add_argument("--separator", default=" ", help="separator of path and label (default: a space)")
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the index and return the exit status: 0 done, 1 if files cannot be read, 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _index(parse(arguments)), interrupted=RESUMABLE)


def _index(chosen: argparse.Namespace) -> int:
    _check_separator(chosen.separator)
    check_output_folder(chosen.out, "--out")
    from slowfast.datasets.index.folder import SAMPLES, check_names, scan
    from slowfast.datasets.index.write import find_sources, index_names, refuse_existing, write_index

    collection = scan(chosen.folder, chosen.kind, chosen.out)
    check_names(collection)
    refuse_existing(chosen.out, [*index_names(collection.kind), RUN_FILE])
    base = _read_base(chosen.cfg or BASES[collection.kind], chosen.out)
    sources = None
    if chosen.group is not None:
        sources, unmatched = find_sources(collection.samples, chosen.group)
        _show_unmatched(unmatched, SAMPLES[collection.kind])
    parts = _split(collection, chosen, sources)
    found = len(collection.samples)
    if chosen.check:
        collection = _readable(collection, chosen)
        parts = _split(collection, chosen, sources)
    run = run_yaml(collection, chosen.folder, chosen.out, chosen.separator, base, len(parts["train"]))
    files = write_index(collection, parts, chosen.out, chosen.separator, {RUN_FILE: run})
    _show_split(collection, parts, SAMPLES[collection.kind])
    for file in files:
        show(f"  {file}")
    show("Train and test with (TRAIN.CHECKPOINT_FILE_PATH weights.pyth starts from pre-trained weights):")
    show("  " + shlex.join(["slowfast", "train", "--cfg", str(chosen.out / RUN_FILE)]))
    if chosen.check:
        from slowfast.prepare.check import finish_check

        finish_check(chosen.out)
    return FAILED if len(collection.samples) < found else DONE


def _check_separator(separator: str) -> None:
    if not separator:
        raise UserError("--separator is empty. Give a character such as a space or a comma")
    if separator != "\t" and (any(character in separator for character in "\r\n\0") or not separator.isprintable()):
        raise UserError(f"--separator {quoted(separator)} must be printable text or a tab")


# ------------------------------------------------------------------ the check
def _readable(collection: Collection, chosen: argparse.Namespace) -> Collection:
    """Return the readable samples and report the others. Raises DataError if a class has none."""
    from slowfast.datasets.index.folder import SAMPLES, some_names
    from slowfast.prepare.check import DAMAGED_FILE, UNREADABLE_FILE, check_samples
    from slowfast.utils.cpu import usable_cores

    results = check_samples(collection, chosen.folder, chosen.out, chosen.workers or usable_cores())
    what, unreadable = SAMPLES[collection.kind], results.unreadable
    for problem, names, file in (
        ("cannot be read, left out of the index", unreadable, UNREADABLE_FILE),
        ("damaged, kept in the index", results.damaged, DAMAGED_FILE),
    ):
        for name, reason in sorted(names.items())[:_LISTED]:
            show(f"{name}: {problem}: {reason}")
        if len(names) > _LISTED:
            show(f"... and {len(names) - _LISTED} more")
        if names:
            show(f"{len(names)} of {len(collection.samples)} {what} {problem}. Full list: {chosen.out / file}")
    if not unreadable:
        show(f"All {len(collection.samples)} {what} can be read")
    samples = [sample for sample in collection.samples if sample.name not in unreadable]
    empty = sorted(set(range(len(collection.classes))) - {sample.label for sample in samples})
    if empty:
        raise DataError(
            f"{some_names([collection.classes[label] for label in empty])}: none of the {what} can be read. Replace "
            f"the files listed in {plain(chosen.out / UNREADABLE_FILE)} or remove the class folder"
        )
    return replace(collection, samples=samples)


# ------------------------------------------------------------------ the split
def _split(collection: Collection, chosen: argparse.Namespace, sources: Mapping[str, str] | None) -> Split:
    """Split the samples. Raises UserError if a split would be empty."""
    from slowfast.datasets.index.folder import SAMPLES
    from slowfast.datasets.index.write import default_shares, split, split_by_source

    samples = collection.samples
    if sources is not None:
        sources = {sample.name: sources[sample.name] for sample in samples}
    usual_val, usual_test = default_shares(samples, sources)
    val = usual_val if chosen.val is None else chosen.val
    test = usual_test if chosen.test is None else chosen.test
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"--val {val:g} and --test {test:g} must be fractions that leave samples for training")
    if sources is None:
        parts = split(samples, val, test, chosen.seed)
    else:
        parts = split_by_source(samples, sources, val, test, chosen.seed)
    for name, found in parts.items():
        if not found:
            few = f"{SAMPLES[collection.kind]} per class" if sources is None else "sources (--group)"
            raise UserError(
                f"{plain(chosen.folder)} has too few {few} for {name}. Use --{name} 0 to take those of training"
            )
    return parts


def _show_unmatched(names: Sequence[str], what: str) -> None:
    from slowfast.datasets.index.folder import some_names

    if names:
        show(f"{len(names)} {what} do not match --group and count as separate sources: {some_names(names)}")


def _show_split(collection: Collection, parts: Split, what: str) -> None:
    from slowfast.datasets.index.folder import some_names

    counts = ", ".join(f"{len(samples)} {part}" for part, samples in parts.items())
    show(f"{len(collection.samples)} {what} of {len(collection.classes)} classes: {counts}")
    if len(collection.classes) == 1:
        show("All samples are of one class, so there is nothing to learn. Add a folder for each further class")
    if shared := [part for part in ("val", "test") if parts[part] == parts["train"]]:
        show(f"{' and '.join(shared)} contain the training {what}: accuracy on them is not accuracy on unseen data")
    for part, samples in parts.items():
        missing = sorted(set(range(len(collection.classes))) - {sample.label for sample in samples})
        if missing:
            names = some_names([collection.classes[label] for label in missing])
            show(f"{part} has no {what} of {len(missing)} classes: {names}")


# ------------------------------------------------------------------ run.yaml
def _read_base(name: str, out: Path) -> tuple[str, ConfigNode]:
    """Return the `_BASE_` entry of run.yaml and that config. Raises UserError if it cannot be read."""
    path = find_config(name)
    if os.path.realpath(path) == os.path.realpath(out / RUN_FILE):
        raise UserError(f"--cfg {plain(path)} is the file to write. Choose another one")
    reference, cfg = base_reference(path, out), get_cfg()
    cfg.merge_from_file(path)
    return reference, cfg


def run_yaml(
    collection: Collection,
    folder: Path,
    out: Path,
    separator: str,
    base: tuple[str, ConfigNode],
    train_samples: int,
) -> str:
    """Return the text of a config for the indexed samples.

    Args:
        collection: The samples.
        folder: Folder of the class folders.
        out: Folder of the index files and of this config.
        separator: Separator of path and label in the index files.
        base: Reference to the config to build on, and that config.
        train_samples: Number of training samples; a batch has at most as many.
    """
    reference, cfg = base
    dataset = _dataset(collection.kind, cfg)
    data = {"PATH_TO_DATA_DIR": CONFIG_DIR, "PATH_PREFIX": _movable(folder, out)}
    if collection.kind == "frames":
        from slowfast.datasets.index.write import FRAME_LISTS

        data |= {"LABEL_PATH_TEMPLATE": FRAME_LISTS, "IMAGE_TEMPLATE": collection.template}
    else:
        data["PATH_LABEL_SEPARATOR"] = separator
    settings: dict[str, Any] = {
        BASE_KEY: reference,
        "TRAIN": {
            "DATASET": dataset,
            "BATCH_SIZE": min(cfg.TRAIN.BATCH_SIZE, train_samples),
            "CHECKPOINT_EPOCH_RESET": True,  # start from the weights of a checkpoint, not from its epoch
        },
        "TEST": {"DATASET": dataset},
        "DATA": data,
        "MODEL": {"NUM_CLASSES": len(collection.classes)},
        "OUTPUT_DIR": f"{CONFIG_DIR}/run",
    }
    if collection.kind == "recordings":
        settings["DVS"] = _sensor(collection, folder)
    return "# Written by slowfast index.\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _movable(folder: Path, out: Path) -> str:
    """Return the folder of the samples for run.yaml, relative to it unless they only share the root folder."""
    absolute, start = folder.resolve(), out.resolve()
    if os.path.commonpath([absolute, start]) == absolute.anchor:
        return str(absolute)
    inner = os.path.relpath(absolute, start)
    return CONFIG_DIR if inner == os.curdir else f"{CONFIG_DIR}/{inner}"


def _dataset(kind: str, cfg: ConfigNode) -> str:
    """Return the name of the dataset that reads the index files."""
    if kind == "recordings":
        from slowfast.models import MODEL_REGISTRY
        from slowfast.models.protocol import EVENTS

        network = MODEL_REGISTRY.find(cfg.MODEL.MODEL_NAME, "MODEL.MODEL_NAME")
        return "dvsfolder" if network.input_kind == EVENTS else "dvsframes"
    return {"videos": "kinetics", "frames": "sth", "images": "imagenet"}[kind]


def _sensor(collection: Collection, folder: Path) -> dict[str, list[int]]:
    """Return the sensor size setting suggested by the coordinates of the events; {} if there are no events."""
    from slowfast.datasets.dvs.index import guess_sensor

    size = guess_sensor(folder / sample.name for sample in collection.samples)
    if size is None:
        return {}
    show(
        f"DVS.SENSOR_SIZE [{size[0]},{size[1]}] is the smallest common sensor that contains the events. Correct it in "
        f"{RUN_FILE} if the camera has another one"
    )
    return {"SENSOR_SIZE": list(size)}
