"""Files and folders that a user names, to the records of what a network can read in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slowfast.config.nearest import nearest_file
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, FrameSpec, dataset_spec
from slowfast.datasets.decode.image import IMAGE_SUFFIXES
from slowfast.datasets.decode.reader import VIDEO_SUFFIXES
from slowfast.datasets.types import Failure, Record
from slowfast.errors import ConfigError

UNLABELLED = -1


@dataclass(frozen=True)
class Wanted:
    """What the configured dataset and network read."""

    images: bool  # single images; False: clips of videos
    template: str  # of a clip's extracted frames, {} is their number from 1; "" where clips are no such folders
    instead_of_video: str  # why a video cannot be read, and what to set
    instead_of_image: str

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Wanted:
        """As TEST.DATASET, MODEL and DATA.IMAGE_TEMPLATE say. Raises ConfigError for a dataset of neither."""
        spec, name = dataset_spec(cfg, TEST), cfg.MODEL.MODEL_NAME
        if not isinstance(spec, FrameSpec):
            raise ConfigError(f"TEST.DATASET {cfg.TEST.DATASET} gives {spec.gives}; this reads videos and images only")
        template = cfg.DATA.IMAGE_TEMPLATE if spec.frame_folders else ""
        for_video = "set MODEL.FRAMEWISE logits TEST.DATASET kinetics DATA.NUM_FRAMES 8"
        image = f"{name} takes clips"
        if cfg.MODEL.FRAMEWISE:
            image = f"with MODEL.FRAMEWISE {name} takes clips; for images leave it empty and set TEST.DATASET imagenet"
        frames = f"folders of frames named {template}" if template else "for folders of frames set TEST.DATASET sth"
        return cls(spec.images, template, f"{name} takes images; for videos {for_video}", f"{image} ({frames})")


@dataclass
class Found:
    """The media in what was named, and what of it is none; numbered together in the order they were found."""

    records: list[Record] = field(default_factory=list)
    refused: list[Failure] = field(default_factory=list)
    others: int = 0  # files in folders that are neither videos nor images

    def add(self, path: Path, frames: int | None = None) -> None:
        """A medium to read."""
        self.records.append(Record(self.count, path, str(path), UNLABELLED, frames))

    def refuse(self, path: Path, reason: str) -> None:
        """Something named, or in a folder that was, that cannot be read."""
        self.refused.append(Failure(self.count, str(path), reason))

    @property
    def count(self) -> int:
        """How many media and refusals there are."""
        return len(self.records) + len(self.refused)


def find_media(paths: Iterable[Path], wanted: Wanted) -> Found:
    """Every video, image or folder of frames that `paths` name, folders with all the folders in them, sorted by name.

    In a folder the suffix tells what a file is; a file named by itself is taken for what the network wants unless its
    suffix says otherwise.
    """
    found = Found()
    for path in paths:
        if path.is_dir():
            _look_in(path, wanted, found)
        elif not path.exists():
            near = nearest_file(path)
            found.refuse(path, "there is no such file" + (f"; did you mean {near}?" if near else ""))
        else:
            _take([path], path, wanted, found)
    return found


def _look_in(folder: Path, wanted: Wanted, found: Found) -> None:
    before = found.count
    for inner, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(inner)
        files = [place / name for name in sorted(names) if not name.startswith(".")]
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        found.others += len(files) - len(images) - len(videos)
        frames = count_frames([file.name for file in images], wanted.template) if wanted.template else 0
        if frames:
            found.add(place, frames)
        elif images:
            _take(images, place, wanted, found)
        if videos:
            _take(videos, place, wanted, found)
    if found.count == before:
        kinds = f"images (files ending in {_list(IMAGE_SUFFIXES)})" if wanted.images else f"videos ({_videos(wanted)})"
        found.refuse(folder, f"the folder holds no {kinds}")


def _take(files: Sequence[Path], where: Path, wanted: Wanted, found: Found) -> None:
    """Add files of one kind, or refuse them in one line."""
    suffix = files[0].suffix.lower()
    is_image = suffix in IMAGE_SUFFIXES or (wanted.images and suffix not in VIDEO_SUFFIXES)
    if is_image == wanted.images:
        for file in files:
            found.add(file)
        return
    kind, reason = ("image", wanted.instead_of_image) if is_image else ("video", wanted.instead_of_video)
    what = f"{'an' if is_image else 'a'} {kind}" if len(files) == 1 else f"{len(files)} {kind}s"
    found.refuse(where, f"{what}, but {reason}")


def count_frames(names: Iterable[str], template: str) -> int:
    """The highest number of a frame among the names of a folder's images; 0 where none follows the template."""
    numbers = (
        int(digits) for name in names for digits in re.findall(r"\d+", name) if template.format(int(digits)) == name
    )
    return max(numbers, default=0)


def target_files(records: Sequence[Record], folder: Path, suffix: str) -> list[Path]:
    """A file in `folder` for what is made of each record: named as the medium is, numbered where two would be one."""
    taken: set[str] = set()
    targets = []
    for record in records:
        stem = record.path.name if record.frames is not None else record.path.stem
        name, number = f"{stem}{suffix}", 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}{suffix}"
        taken.add(name.lower())
        targets.append(folder / name)
    return targets


def _videos(wanted: Wanted) -> str:
    frames = f", or folders of frames named {wanted.template}" if wanted.template else ""
    return f"files ending in {_list(VIDEO_SUFFIXES)}{frames}"


def _list(suffixes: Iterable[str]) -> str:
    return " ".join(sorted(suffixes))
