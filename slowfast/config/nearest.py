"""What the user may have meant: the nearest key, name or file."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

MAX_FILES_LOOKED_AT = 2000
LEAST_SIMILARITY = 0.6  # of two file names, from 0 to 1


def nearest_name(word: str, candidates: Iterable[str]) -> str:
    """The candidate most similar to `word`, whatever its case; "" when there are none."""
    names = sorted(candidates)
    if not names:
        return ""
    return max(names, key=lambda name: _similarity(word, name))


def nearest_key(key: str, candidates: Iterable[str]) -> str:
    """The dotted key most similar to `key`; a key of the same name in another section comes first."""
    keys = list(candidates)
    leaf = key.rpartition(".")[2].lower()
    same_leaf = [k for k in keys if k.rpartition(".")[2].lower() == leaf]
    return nearest_name(key, same_leaf or keys)


def nearest_file(path: Path, pattern: str = "*") -> Path | None:
    """The existing file of the most similar name, beside a missing one or below its nearest existing folder.

    None where no name is similar.
    """
    folder = next((p for p in path.absolute().parents if p.is_dir()), None)
    if folder is None:
        return None
    found = (p for depth in (pattern, f"*/{pattern}") for p in islice(folder.glob(depth), MAX_FILES_LOOKED_AT))
    similar = [p for p in found if p.is_file() and _similarity(path.name, p.name) >= LEAST_SIMILARITY]
    if not similar:
        return None
    best = max(similar, key=lambda p: _similarity(path.name, p.name))
    return best if path.is_absolute() else _as_written(best)


def _as_written(path: Path) -> Path:
    """The path relative to the working directory where it lies below it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _similarity(a: str, b: str) -> float:
    return SequenceMatcher(None, a.lower(), b.lower()).ratio()
