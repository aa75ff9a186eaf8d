"""The comments on top of a setting's YAML file: the one place of facts that cannot be counted.

# ConvMLP-S, 224 x 224, ImageNet-1K (9.0 M parameters, 2.4 GMACs an image).
# Reproduces: top-1 76.76 %, ... or "nothing", where no figure was published
# Weights: where they are published
# Licence of the weights: ...
# Verified here: ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from slowfast.errors import UserError
from slowfast.utils.quote import plain
from slowfast.utils.text_file import MIB, UnreadableTextError, read_text_file

_TITLE = re.compile(
    r"(?P<network>[^,]+), (?:.*, )?(?P<dataset>[^,]+) \((?P<millions>[\d.]+) M parameters, (?P<gmacs>[\d.]+) GMACs"
)
_TOP1 = re.compile(r"top-1 ([\d.]+) %")
_NO_TOP1 = "nothing"
REPRODUCES, WEIGHTS, LICENCE, VERIFIED = "Reproduces", "Weights", "Licence of the weights", "Verified here"


@dataclass(frozen=True)
class Header:
    """What a setting says of itself."""

    network: str
    dataset: str
    millions: float  # parameters
    gmacs: float  # of a view
    top1: str  # percent, as published; empty where none was
    weights: str
    licence: str
    verified: str


def read_header(path: Path) -> Header:
    """The facts on top of a YAML file; UserError, naming file and line, where one is missing."""
    lines = []
    for line in _text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    title = _TITLE.match(lines[0]) if lines else None
    if title is None:
        raise UserError(f"{path}: its first line must be # network, input, dataset (N M parameters, N GMACs a view).")
    reproduces = _field(path, lines, REPRODUCES)
    top1 = _TOP1.search(reproduces)
    if top1 is None and not reproduces.startswith(_NO_TOP1):
        raise UserError(f"{path}: # {REPRODUCES}: must give top-1 N %, or {_NO_TOP1}")
    return Header(
        network=title["network"],
        dataset=title["dataset"],
        millions=float(title["millions"]),
        gmacs=float(title["gmacs"]),
        top1=top1[1] if top1 else "",
        weights=_field(path, lines, WEIGHTS),
        licence=_field(path, lines, LICENCE),
        verified=_field(path, lines, VERIFIED),
    )


def _field(path: Path, lines: list[str], name: str) -> str:
    """What follows `name:` on the one line that begins with it."""
    found = [line.removeprefix(f"{name}:").strip() for line in lines if line.startswith(f"{name}:")]
    if len(found) != 1 or not found[0]:
        raise UserError(f"{path}: the comments on top need one line # {name}: ...")
    return found[0]


def _text(path: Path) -> str:
    try:
        return read_text_file(path, MIB)
    except UnreadableTextError as error:
        raise UserError(f"config file {plain(path)} {error}") from None
