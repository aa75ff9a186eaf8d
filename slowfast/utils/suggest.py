"""Suggestions for misspelled keys, values and file names."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from slowfast.utils.remote.address import as_address
from slowfast.utils.text import plain, quoted

MAX_EDITS = 2
MAX_FILES_COMPARED = 2000
MAX_KEYS_SUGGESTED = 4


def edit_distance(a: str, b: str) -> int:
    """Return the Damerau-Levenshtein distance of two words (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        before, above, row = row, before, [i]
        for j, right in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


def nearest_name(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that `word` most likely misspells; an empty string if none is close.

    A candidate is close if it differs by at most 2 edits and a third of the word's length, ignoring case.
    """
    most = min(MAX_EDITS, len(word) // 3)
    wanted = word.lower()
    alike = (name for name in candidates if name and abs(len(name) - len(word)) <= most)
    # Break ties by length: a wrong letter is more likely than a missing one.
    close = [(edit_distance(wanted, name.lower()), abs(len(name) - len(word)), name) for name in alike]
    distance, _, name = min(close, default=(most + 1, 0, ""))
    return name if distance <= most else ""


def nearest_keys(key: str, candidates: Iterable[str]) -> list[str]:
    """Return likely intended keys: the closest one, else keys of the same name in other sections."""
    keys = list(candidates)
    near = nearest_name(key, keys)
    if near:
        return [near]
    leaf = key.rpartition(".")[2].lower()
    same_leaf = [name for name in keys if name.rpartition(".")[2].lower() == leaf]
    if not same_leaf:
        near_leaf = nearest_name(leaf, {name.rpartition(".")[2] for name in keys})
        same_leaf = [name for name in keys if near_leaf and name.rpartition(".")[2] == near_leaf]
    return same_leaf[:MAX_KEYS_SUGGESTED]


def nearest_file(path: str | Path, pattern: str = "*") -> Path | None:
    """Return the existing file with the closest name in the nearest existing folder of a missing file.

    None if no name is close.
    """
    if as_address(path):
        return None
    path = Path(path)
    try:
        folder = next((p for p in path.absolute().parents if p.is_dir()), None)
    except (OSError, ValueError):  # the name is too long or invalid
        return None
    if folder is None:
        return None
    found = [p for depth in (pattern, f"*/{pattern}") for p in islice(folder.glob(depth), MAX_FILES_COMPARED)]
    near = nearest_name(path.name, {p.name for p in found})
    best = next((p for p in found if p.name == near and p.is_file()), None) if near else None
    return best if best is None or path.is_absolute() else _as_written(best)


def file_in_sibling_folder(path: str | Path) -> Path | None:
    """Return the file of the same name in a sibling of a missing file's folder, if the folder names are alike.

    Folder names that differ only in case and punctuation come first, then misspelled ones. None if there is none.
    """
    if as_address(path):
        return None
    path = Path(path)
    try:
        folders = islice(path.parent.absolute().parent.iterdir(), MAX_FILES_COMPARED)
        names = sorted(folder.name for folder in folders if (folder / path.name).is_file())
    except (OSError, ValueError):  # no such folder, or an invalid name
        return None
    wanted = path.parent.absolute().name
    same = next((name for name in names if _letters(name) == _letters(wanted)), "")
    near = same or nearest_name(wanted, names)
    return path.parent.parent / near / path.name if near and path.parent.name else None


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def did_you_mean(near: object) -> str:
    """Return the suggestion to append to an error message; an empty string if there is none."""
    return f" Did you mean {plain(near)}?" if near else ""


def unknown_value(where: str, value: object, choices: Iterable[str]) -> str:
    """Return the error message for a value that is not among the choices."""
    names = list(choices)
    near = nearest_name(str(value), names)
    shown = ", ".join(name or '""' for name in names)
    return f"{where}: unknown value {quoted(value)}.{did_you_mean(repr(near) if near else '')} Choices: {shown}"


def _as_written(path: Path) -> Path:
    """Return the path relative to the working directory if it is inside."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
