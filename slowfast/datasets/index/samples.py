"""Samples in files and folders specified by the user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, skipped_note
from slowfast.datasets.dvs.formats import event_suffixes
from slowfast.datasets.dvs.formats.text import find_recordings
from slowfast.datasets.types import Failure, Record
from slowfast.errors import system_reason
from slowfast.models.protocol import IMAGES
from slowfast.utils.logging import get_logger
from slowfast.utils.paths import nearest_file
from slowfast.utils.text import did_you_mean

UNLABELED = -1
LONGEST_NAME = 150  # maximum bytes of output names without suffix; file systems allow about 250
IMAGE, VIDEO, RECORDING = "image", "video", "event recording"
ARRAYS = frozenset((".npz", ".npy"))
KINDS = (RECORDING, IMAGE, VIDEO)
MAKE_EVENTS = "slowfast video-to-dvs computes events from videos"


@dataclass(frozen=True)
class SampleKind:
    """Kind of samples that the configured dataset and network read.

    Attributes:
        images: Whether samples are single images; otherwise clips.
        template: Template of the frames of a folder, such as {:05d}.jpg; "" if samples are not folders of frames.
        instead_of_video: Reason why a video cannot be read, and what to set.
        instead_of_image: Like `instead_of_video`, for an image.
        instead_of_recording: Like `instead_of_video`, for an event recording.
        recordings: Whether samples are event recordings.
    """

    images: bool
    template: str
    instead_of_video: str
    instead_of_image: str
    instead_of_recording: str = "only videos are read"
    recordings: bool = False

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SampleKind:
        """Return the kind required by TEST.DATASET, MODEL and DATA.IMAGE_TEMPLATE."""
        dataset, name = find_dataset(cfg, TEST), cfg.MODEL.MODEL_NAME
        if dataset.reads_recordings:
            reads = f"TEST.DATASET {cfg.TEST.DATASET} reads event recordings"
            return cls(False, "", f"{reads}; {MAKE_EVENTS}", reads, recordings=True)
        images = dataset.input_kind == IMAGES
        template = cfg.DATA.IMAGE_TEMPLATE if dataset.reads_frame_folders else ""
        for_video = "set MODEL.FRAMEWISE logits TEST.DATASET kinetics DATA.NUM_FRAMES 8"
        image = f"{name} takes clips"
        if cfg.MODEL.FRAMEWISE:
            image = f"with MODEL.FRAMEWISE {name} takes clips; for images leave it empty and set TEST.DATASET imagenet"
        frames = f"folders of frames named {template}" if template else "for folders of frames set TEST.DATASET sth"
        kind = "images" if images else "clips"
        events = f"{name} takes {kind}; for event recordings set TEST.DATASET dvsframes with a network of clips"
        return cls(images, template, f"{name} takes images; for videos {for_video}", f"{image} ({frames})", events)

    @property
    def kind(self) -> str:
        """Kind of the files, one of KINDS."""
        if self.recordings:
            return RECORDING
        return IMAGE if self.images else VIDEO

    def instead_of(self, kind: str) -> str:
        """Return the reason why another kind cannot be read, and what to do."""
        reasons = {IMAGE: self.instead_of_image, VIDEO: self.instead_of_video, RECORDING: self.instead_of_recording}
        return reasons[kind]

    def kind_of(self, file: Path) -> str | None:
        """Return the kind of a file by its suffix; None if it is unknown.

        Most suffixes of recordings are ambiguous: if videos or images are wanted, only NumPy's count.
        """
        suffix = file.suffix.lower()
        if suffix in (event_suffixes() if self.recordings else ARRAYS):
            return RECORDING
        return IMAGE if suffix in IMAGE_SUFFIXES else VIDEO if suffix in VIDEO_SUFFIXES else None

    def suffixes(self) -> frozenset[str]:
        """Return the suffixes of the files that are read."""
        return suffixes_of(self.kind)


def suffixes_of(kind: str) -> frozenset[str]:
    """Return the suffixes of the files of a kind."""
    return {RECORDING: event_suffixes(), IMAGE: IMAGE_SUFFIXES, VIDEO: VIDEO_SUFFIXES}[kind]


@dataclass
class FoundSamples:
    """Samples that were found, and files that cannot be read; numbered together in the order of discovery.

    Attributes:
        records: The samples.
        refused: Files and folders that cannot be read.
        others: Number of files in folders that are not samples.
    """

    records: list[Record] = field(default_factory=list)
    refused: list[Failure] = field(default_factory=list)
    others: int = 0

    def add(self, path: Path, frames: int | None = None) -> None:
        """Add a sample."""
        self.records.append(Record(self.count, path, str(path), UNLABELED, frames))

    def refuse(self, path: Path, reason: str) -> None:
        """Add a file or folder that cannot be read."""
        self.refused.append(Failure(self.count, str(path), reason))

    @property
    def count(self) -> int:
        """Number of samples and of files that cannot be read."""
        return len(self.records) + len(self.refused)


def find_samples(paths: Iterable[Path], wanted: SampleKind) -> FoundSamples:
    """Find the samples in files and folders, which are searched with their subfolders in order of name.

    In a folder the suffix tells the kind of a file. A file that is named itself is read unless its suffix is that of
    another kind.

    Args:
        paths: Files and folders.
        wanted: Kind of the samples.
    """
    found = FoundSamples()
    for path in paths:
        if os.path.isdir(path):  # also False for names that are too long
            _search(path, wanted, found)
        elif not os.path.exists(path):
            found.refuse(path, f"does not exist.{did_you_mean(nearest_file(path))}".removesuffix("."))
        else:
            _take([path], path, wanted, found)
    return found


def _search(folder: Path, wanted: SampleKind, found: FoundSamples) -> None:
    before, unknown = found.count, list[str]()

    def closed(error: OSError) -> None:
        found.refuse(Path(error.filename), f"the folder cannot be listed ({system_reason(error)})")

    for inner, folders, names in os.walk(folder, onerror=closed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        current = Path(inner)
        files = [current / name for name in sorted(names) if not name.startswith(".")]
        by_kind = {kind: [file for file in files if wanted.kind_of(file) == kind] for kind in KINDS}
        if not wanted.recordings:
            del by_kind[RECORDING]  # .npz and .npy files may contain anything
        else:
            by_kind[RECORDING] = [Path(file) for file in find_recordings(map(str, files))[0]]
        found.others += len(files) - sum(map(len, by_kind.values()))
        unknown += [str(file.relative_to(folder)) for file in files if wanted.kind_of(file) is None]
        frames = highest_frame([file.name for file in by_kind[IMAGE]], wanted.template) if wanted.template else 0
        if frames:
            found.add(current, frames)
            del by_kind[IMAGE]
        for of_kind in by_kind.values():
            if of_kind:
                _take(of_kind, current, wanted, found)
    note = skipped_note(folder, unknown, wanted.suffixes())
    if note is not None:
        get_logger().warning(note)
    if found.count == before:
        found.refuse(folder, f"the folder contains no {wanted.kind}s ({_names(wanted)})")


def _take(files: Sequence[Path], where: Path, wanted: SampleKind, found: FoundSamples) -> None:
    """Add files of one kind as samples or as unreadable."""
    kind = wanted.kind_of(files[0]) or wanted.kind
    if kind == wanted.kind:
        for file in files:
            found.add(file)
        return
    article = "an" if kind[0] in "aeiou" else "a"
    what = f"{article} {kind}" if len(files) == 1 else f"{len(files)} {kind}s"
    found.refuse(where, f"{what}, but {wanted.instead_of(kind)}")


def highest_frame(names: Iterable[str], template: str) -> int:
    """Return the highest frame number among file names; 0 if none matches the template."""
    numbers = (
        int(digits) for name in names for digits in re.findall(r"\d+", name) if template.format(int(digits)) == name
    )
    return max(numbers, default=0)


def target_files(records: Sequence[Record], folder: Path, suffix: str) -> list[Path]:
    """Return an output file for each record, named after it, and numbered if that is not unique.

    Names are truncated to LONGEST_NAME bytes: addresses of streams may be longer than file systems allow.

    Args:
        records: The samples.
        folder: Folder of the files.
        suffix: Suffix of the files, with the dot.
    """
    stems = (record.path.name if record.frames is not None else record.path.stem for record in records)
    return distinct_files(stems, folder, suffix)


def distinct_files(stems: Iterable[str], folder: Path, suffix: str) -> list[Path]:
    """Return a file in a folder for each name without suffix, as :func:`target_files`."""
    taken: set[str] = set()
    targets = []
    for stem in stems:
        if len(os.fsencode(stem)) > LONGEST_NAME:
            stem = os.fsencode(stem)[:LONGEST_NAME].decode(errors="ignore")
        name, number = f"{stem}{suffix}", 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}{suffix}"
        taken.add(name.lower())
        targets.append(folder / name)
    return targets


def _names(wanted: SampleKind) -> str:
    """Return a description of the names of the files and folders of samples."""
    frames = f", or folders of frames named {wanted.template}" if wanted.template else ""
    return f"files ending in {' '.join(sorted(wanted.suffixes()))}{frames}"
