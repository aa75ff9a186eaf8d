"""Samples in a folder of class folders: videos, folders of frames, images or event recordings."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slowfast.datasets.decode.image import FIRST_NUMBER
from slowfast.datasets.decode.reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, skipped_note
from slowfast.datasets.dvs.formats import event_suffixes
from slowfast.datasets.dvs.formats.text import find_recordings
from slowfast.datasets.index.entries import has_suffix
from slowfast.errors import IndexFileError, UserError, system_reason
from slowfast.utils.logging import get_logger
from slowfast.utils.text import plain, quoted

VIDEOS, FRAMES, IMAGES, RECORDINGS = KINDS = ("videos", "frames", "images", "recordings")
# Names of the kinds for messages, in the plural.
SAMPLES = {VIDEOS: "videos", FRAMES: "folders of frames", IMAGES: "images", RECORDINGS: "event recordings"}
_SUFFIXES = {VIDEOS: VIDEO_SUFFIXES, FRAMES: IMAGE_SUFFIXES, IMAGES: IMAGE_SUFFIXES}
_NUMBERED = re.compile(r"(.*?)(\d+)(\.\w+)")
_SHOWN = 3  # maximum number of names in a message


@dataclass(frozen=True)
class IndexedSample:
    """Sample in a folder of class folders.

    Attributes:
        name: Path relative to the folder, with forward slashes.
        label: Class.
        frames: Number of frames of a folder of frames; otherwise 0.
    """

    name: str
    label: int
    frames: int = 0


@dataclass(frozen=True)
class Collection:
    """Contents of a folder of class folders.

    Attributes:
        kind: Kind of its samples, one of KINDS.
        classes: Names of the classes by label.
        samples: The samples.
        template: Names of the frames, such as {:05d}.jpg; "" unless the samples are folders of frames.
    """

    kind: str
    classes: list[str]
    samples: list[IndexedSample]
    template: str = ""


@dataclass
class _Tree:
    """Files of the class folders by class, as sorted paths relative to the folder of the class, and what was skipped.

    Attributes:
        files: Files of each class.
        empty: Empty folders.
        links: Links to folders that are already part of the tree.
        others: Files next to the class folders.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def scan(folder: Path, kind: str = "", out: Path | None = None) -> Collection:
    """List all samples of a folder of class folders; classes and samples are sorted by name.

    Links are followed. A folder reached by several links, even by a link to a parent folder, is read once.

    Args:
        folder: The folder.
        kind: One of KINDS; "" for what the folder contains.
        out: Folder of the index, which is not a class folder.

    Raises:
        UserError: If the kind is ambiguous, a class has no samples or frames are not numbered from 1 without gaps.
    """
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{plain(folder)} {wrong}. Name the folder with one folder per class")
    tree = _walk(folder, out)
    if not tree.files:
        raise UserError(f"{plain(folder)} contains no class folders. Put the files of a class in a folder of its name")
    kind = kind or _guess_kind(folder, tree)
    _report_skipped(folder, tree, kind)
    samples: list[IndexedSample] = []
    templates: dict[str, str] = {}  # template of the frames -> first folder with it
    for label, (name, files) in enumerate(tree.files.items()):
        chosen = _files_of_kind(files, kind)
        found = _frame_folders(folder, name, chosen, templates) if kind == FRAMES else dict.fromkeys(chosen, 0)
        if not found:
            raise UserError(f"{plain(folder / name)} contains no {SAMPLES[kind]}. Remove the folder or fill it")
        samples += [IndexedSample(f"{name}/{path}", label, frames) for path, frames in found.items()]
    if len(templates) > 1:
        (one, first), (other, second) = list(templates.items())[:2]
        raise UserError(
            f"{plain(folder)}: frames are named in two ways: {plain(one)} in {plain(first)}, {plain(other)} in "
            f"{plain(second)}. Rename some of them"
        )
    return Collection(kind, list(tree.files), samples, next(iter(templates), ""))


# ------------------------------------------------------------------ the files
def _walk(folder: Path, out: Path | None) -> _Tree:
    """Return all files below a folder, without hidden ones and the folder of the index."""
    tree, visited = _Tree(), {_identity(folder)}
    for class_name, is_folder in _entries(folder):
        if out is not None and os.path.realpath(folder / class_name) == os.path.realpath(out):
            continue
        if not is_folder:
            tree.others.append(class_name)
            continue
        files: list[str] = []
        pending = [class_name]
        while pending:
            inner = pending.pop()
            identity = _identity(folder / inner)
            if identity in visited:
                tree.links.append(inner)
                continue
            visited.add(identity)
            entries = list(_entries(folder / inner))
            if not entries:
                tree.empty.append(inner)
            pending += [f"{inner}/{name}" for name, is_inner in reversed(entries) if is_inner]
            files += [f"{inner}/{name}" for name, is_inner in entries if not is_inner]
        tree.files[class_name] = sorted(file[len(class_name) + 1 :] for file in files)
    return tree


def _identity(folder: Path) -> tuple[int, int]:
    """Return device and inode number of a folder, which identify further links to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield each non-hidden entry of a folder in sorted order: name, and whether it is a folder."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise IndexFileError(f"{plain(folder)} cannot be listed ({system_reason(error)})") from None
    yield from found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _guess_kind(folder: Path, tree: _Tree) -> str:
    """Return the kind of the class folders: videos at any depth, else images beside or in folders, else recordings."""
    files = [file for files in tree.files.values() for file in files]
    images = [file for file in files if has_suffix(file, IMAGE_SUFFIXES)]
    if any(has_suffix(file, VIDEO_SUFFIXES) for file in files):
        kinds = {VIDEOS, IMAGES} if images else {VIDEOS}
    elif images:
        kinds = {FRAMES if "/" in file else IMAGES for file in images}
    else:
        kinds = {RECORDINGS} if find_recordings(files)[0] else set()
    if len(kinds) == 1:
        return kinds.pop()
    found = " and ".join(sorted(SAMPLES[kind] for kind in kinds)) or "no videos, images or event recordings"
    raise UserError(f"{plain(folder)} contains {found}. Choose what to index with --kind {'|'.join(KINDS)}")


def _files_of_kind(files: Sequence[str], kind: str) -> list[str]:
    if kind == RECORDINGS:
        return find_recordings(files)[0]
    return [file for file in files if has_suffix(file, _SUFFIXES[kind])]


def _report_skipped(folder: Path, tree: _Tree, kind: str) -> None:
    """Warn about files and folders that may contain samples but are not read."""
    files = [f"{name}/{file}" for name, files in tree.files.items() for file in files]
    notes = [skipped_note(folder, files, event_suffixes() if kind == RECORDINGS else _SUFFIXES[kind])]
    others = _files_of_kind(tree.others, kind)
    notes.append(_note(folder, others, "in no class folder, skipped"))
    notes.append(_note(folder, tree.links, "link to a folder that is read already, skipped"))
    notes.append(_note(folder, tree.empty if kind == FRAMES else (), "folder without frames, skipped"))
    for note in filter(None, notes):
        get_logger().warning(note)


def _note(folder: Path, names: Sequence[str], problem: str) -> str | None:
    return f"{plain(folder)}: {some_names(names)}: {problem}" if names else None


def some_names(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the others, for a message."""
    more = len(names) - _SHOWN
    return ", ".join(map(plain, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _frame_folders(folder: Path, class_name: str, images: Sequence[str], templates: dict[str, str]) -> dict[str, int]:
    """Return the number of frames in each folder of a class, and add the templates of the names to `templates`."""
    by_folder: dict[str, list[str]] = {}
    for image in images:
        inner, _, name = image.rpartition("/")
        if inner:
            by_folder.setdefault(inner, []).append(name)
    for inner, names in by_folder.items():
        path = f"{class_name}/{inner}"
        templates.setdefault(frame_template(names, folder / path), path)
    return {inner: len(names) for inner, names in sorted(by_folder.items())}


def frame_template(names: Sequence[str], folder: Path) -> str:
    """Return the frame template, such as {:05d}.jpg. Raises UserError unless numbered from 1 without gaps."""
    match = _NUMBERED.fullmatch(min(names)) if names else None
    if match is None:
        raise UserError(f"{plain(folder)} contains no numbered frames such as 00001.jpg")
    prefix, digits, suffix = match.groups()
    prefix = prefix.replace("{", "{{").replace("}", "}}")
    template = f"{prefix}{{:0{len(digits)}d}}{suffix}"
    if {template.format(FIRST_NUMBER + at) for at in range(len(names))} != set(names):
        raise UserError(
            f"{plain(folder)}: its {len(names)} frames, the first of which is {plain(min(names))}, are not numbered "
            f"from {FIRST_NUMBER} to {len(names)} without a gap. Rename them"
        )
    return template


def check_names(collection: Collection) -> None:
    """Raise UserError if names cannot be written to an index."""
    names = Counter([*collection.classes, *(sample.name for sample in collection.samples)])
    wrong = [name for name in names if not _can_be_listed(name)]
    if wrong:
        raise UserError(
            f"{len(wrong)} names cannot be listed in an index, such as {quoted(wrong[0])}: names must be UTF-8 text "
            "without line breaks, and neither begin nor end with a space. Rename them"
        )


def _can_be_listed(name: str) -> bool:
    return name == name.strip() and len(name.splitlines()) == 1 and not any("\ud800" <= c <= "\udfff" for c in name)
