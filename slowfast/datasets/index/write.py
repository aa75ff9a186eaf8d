"""Index files of the samples of a folder, and reproducible splits, by sample or by source.

videos              train.csv, val.csv, test.csv (kinetics)
folders of frames   frames_train_split.txt, frames_validation_split.txt, frames_test_split.txt (sth)
images              train_list.txt, val_list.txt, test_list.txt (imagenet)
event recordings    the same (dvsfolder, dvsframes)
all of them         categories.txt, the class names
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection as Container
from collections.abc import Mapping, Sequence
from pathlib import Path

from slowfast.datasets.index.folder import FRAMES, VIDEOS, Collection, IndexedSample
from slowfast.datasets.index.labeled_paths import CLASS_NAMES_FILE, LISTS, format_line
from slowfast.datasets.index.something import SPLIT_NAMES
from slowfast.datasets.types import SPLITS, TRAIN
from slowfast.errors import UserError
from slowfast.utils.files import atomic_write_text, make_output_folder
from slowfast.utils.text import plain, quoted

Split = dict[str, list[IndexedSample]]
FRAME_LISTS = "frames_{}_split.txt"


def default_shares(samples: Sequence[IndexedSample], sources: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Return the fractions of validation and test samples: 0.1 and 0.2, or 0 if there are too few samples.

    Args:
        samples: The samples; the size of the smallest class is decisive.
        sources: Source of each sample by name; if given, their number is decisive.
    """
    smallest = min(Counter(sample.label for sample in samples).values())
    count = smallest if sources is None else len(set(sources.values()))
    return (0.1 if count > 2 else 0.0), (0.2 if count > 1 else 0.0)


def split(samples: Sequence[IndexedSample], val: float, test: float, seed: int) -> Split:
    """Split samples class by class; at least one of each class is for training.

    The split of a sample depends only on its name, the seed and the other names of its class.

    Args:
        samples: The samples.
        val: Fraction of the validation samples; 0 uses the training samples, for datasets too small to be split.
        test: Fraction of the test samples; 0 uses the training samples.
        seed: Seed of the split.

    Returns:
        The samples of each split.
    """
    shares = {"val": val, "test": test}
    chosen: dict[str, str] = {}
    by_class: dict[int, list[str]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample.name)
    for names in by_class.values():
        remaining = sorted(names, key=lambda name: _draw(name, seed))
        for part, share in shares.items():
            count = min(max(round(share * len(names)), 1 if share else 0), len(remaining) - 1)
            chosen |= dict.fromkeys(remaining[:count], part)
            del remaining[:count]
        chosen |= dict.fromkeys(remaining, TRAIN)
    return _parts(samples, chosen, shares)


def _draw(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()


def _parts(samples: Sequence[IndexedSample], chosen: Mapping[str, str], shares: Mapping[str, float]) -> Split:
    """Return the samples of each split; the training samples if the fraction of a split is 0."""
    source = {TRAIN: TRAIN} | {part: part if share else TRAIN for part, share in shares.items()}
    return {part: [sample for sample in samples if chosen[sample.name] == source[part]] for part in SPLITS}


# ------------------------------------------------------------------ by source
def find_sources(samples: Sequence[IndexedSample], pattern: str) -> tuple[dict[str, str], list[str]]:
    """Return the source of each sample, and the samples without one.

    Args:
        samples: The samples.
        pattern: Regular expression searched in the names; its first group is the source. A sample without a
            source counts as a separate source.

    Raises:
        UserError: If the pattern is invalid, has no group or matches no name.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"--group {quoted(pattern)} is not a regular expression: {error}") from None
    if not expression.groups:
        raise UserError(
            f"--group {quoted(pattern)} has no group. Put the part that identifies the source in parentheses"
        )
    sources: dict[str, str] = {}
    unmatched = []
    for sample in samples:
        found = expression.search(sample.name)
        if found and found[1]:
            sources[sample.name] = f"source {found[1]}"
        else:
            sources[sample.name] = f"sample {sample.name}"
            unmatched.append(sample.name)
    if len(unmatched) == len(samples):
        raise UserError(
            f"--group {quoted(pattern)} matches none of {len(samples)} names, such as {quoted(samples[0].name)}"
        )
    return sources, unmatched


def split_by_source(
    samples: Sequence[IndexedSample], sources: Mapping[str, str], val: float, test: float, seed: int
) -> Split:
    """Split samples so that all samples of a source are in one split.

    Sources are assigned one by one, the large ones first, each to the split that lacks most of its classes (greedy
    stratification). At least one source of each class is for training, and each split gets a source if possible.

    Args:
        samples: The samples.
        sources: Source of each sample, by name.
        val: Fraction of the validation samples; 0 uses the training samples.
        test: Fraction of the test samples; 0 uses the training samples.
        seed: Seed of the order among sources of similar size.

    Returns:
        The samples of each split; one may be empty if there are too few sources.
    """
    counts: dict[str, Counter[int]] = {}
    for sample in samples:
        counts.setdefault(sources[sample.name], Counter())[sample.label] += 1
    shares = {TRAIN: 1 - val - test, "val": val, "test": test}
    assignment = _Assignment(counts, {part: share for part, share in shares.items() if share > 0})
    # Sizes are rounded to powers of 2, so that the seed changes the order of sources of similar size.
    for source in sorted(counts, key=lambda name: (-counts[name].total().bit_length(), _draw(name, seed))):
        assignment.assign(source)
    assignment.fill_empty_splits()
    chosen = {sample.name: assignment.chosen[sources[sample.name]] for sample in samples}
    return _parts(samples, chosen, {"val": val, "test": test})


class _Assignment:
    """Assignment of sources to splits.

    Args:
        counts: Samples of each class in each source.
        shares: Fraction of each split, above 0.
    """

    def __init__(self, counts: Mapping[str, Counter[int]], shares: Mapping[str, float]) -> None:
        self.chosen: dict[str, str] = {}
        self._counts = counts
        self._totals = Counter[int]()
        for labels in counts.values():
            self._totals.update(labels)
        # Samples of each class that a split lacks.
        self._lacking = {
            part: {label: share * total for label, total in self._totals.items()} for part, share in shares.items()
        }
        # Sources of each class that are or may be in the training split.
        self._for_training = Counter(label for labels in counts.values() for label in labels)

    def assign(self, source: str) -> None:
        """Assign a source to the split that lacks most of its classes."""
        allowed = list(self._lacking) if self._can_be_spared(source) else [TRAIN]
        self._put(source, max(allowed, key=lambda part: self._need(source, part)))

    def fill_empty_splits(self) -> None:
        """Move the most suitable source of the training split to each split that has none."""
        for part in self._lacking:
            if part in self.chosen.values():
                continue
            candidates = [s for s, of in self.chosen.items() if of == TRAIN and self._can_be_spared(s)]
            if candidates:
                source = max(candidates, key=lambda one: self._need(one, part) - self._need(one, TRAIN))
                self._put(source, part)

    def _can_be_spared(self, source: str) -> bool:
        """Return whether the training split has other sources of all classes of a source."""
        return all(self._for_training[label] > 1 for label in self._counts[source])

    def _need(self, source: str, part: str) -> float:
        """Return how much of a source's classes a split lacks, relative to their size."""
        lacking = self._lacking[part]
        return sum(count * lacking[label] / self._totals[label] ** 2 for label, count in self._counts[source].items())

    def _put(self, source: str, part: str) -> None:
        for label, count in self._counts[source].items():
            if source in self.chosen:
                self._lacking[self.chosen[source]][label] += count
            self._lacking[part][label] -= count
            self._for_training[label] -= part != TRAIN
        self.chosen[source] = part


def index_names(kind: str) -> list[str]:
    """Return the file names of an index, by kind of samples."""
    return [*(_file_name(kind, part) for part in SPLITS), CLASS_NAMES_FILE]


def refuse_existing(out: Path, names: Container[str]) -> None:
    """Raise UserError if one of the files to write exists."""
    for name in names:
        if os.path.lexists(out / name):
            raise UserError(f"{plain(out / name)} already exists. Remove it or choose another --out")


def write_index(
    collection: Collection,
    parts: Mapping[str, Sequence[IndexedSample]],
    out: Path,
    separator: str,
    others: Mapping[str, str],
) -> list[Path]:
    """Write the index files and categories.txt; a split without samples has no file.

    Args:
        collection: The samples.
        parts: Samples of each split.
        out: Folder of the files.
        separator: Separator of path and label.
        others: Content of additional files, by name.

    Returns:
        The files that were written.

    Raises:
        UserError: If a file already exists or cannot be written.
    """

    def line(sample: IndexedSample) -> str:
        if collection.kind == FRAMES:
            return f"{sample.name} {sample.frames} {sample.label}\n"
        return format_line(sample.name, separator, sample.label)

    texts = {
        _file_name(collection.kind, part): "".join(map(line, samples)) for part, samples in parts.items() if samples
    }
    texts[CLASS_NAMES_FILE] = "".join(f"{name}\t{label}\n" for label, name in enumerate(collection.classes))
    texts |= others
    refuse_existing(out, texts)
    make_output_folder(out, "--out")
    for name, text in texts.items():
        atomic_write_text(out / name, text)
    return [out / name for name in texts]


def _file_name(kind: str, part: str) -> str:
    if kind == VIDEOS:
        return f"{part}.csv"
    return FRAME_LISTS.format(SPLIT_NAMES[part]) if kind == FRAMES else LISTS.format(part)
