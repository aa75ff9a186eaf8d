"""The command line of `tools/model_info.py`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.models import build_model
from slowfast.models.inputs import EVENT_KEYS, EVENTS, IMAGES, Events, input_shape
from slowfast.models.linear import count_macs
from slowfast.models.protocol import Network
from slowfast.utils.files import write_whole
from slowfast.utils.output_folders import check_output_file
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import plain
from slowfast.utils.text_files import MIB, UnreadableTextError, read_text_file

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
        raise UserError(f"{plain(path)} {error}. Give a config such as those in configs/") from None


ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FOLDERS = (
    "K400",
    "SSV1",
    "SSV2",
    "ImageNet",
    "DVS",
)  # in the order of the table; the other settings publish no figures
COLUMNS = ("setting", "network", "input", "parameters", "GMACs a view", "top-1", "weights", "licence", "verified")


@dataclass(frozen=True)
class ModelRow:
    """A setting of the table."""

    setting: str  # name of the YAML file
    header: Header
    input: str
    views: str  # with which the published figure was reached; empty for images
    parameters: int
    macs: float  # of a view

    def cells(self) -> list[str]:
        """The row's cells."""
        top1 = f"{float(self.header.top1):.1f} %{self.views and f' ({self.views})'}" if self.header.top1 else "-"
        return [
            self.setting,
            self.header.network,
            self.input,
            f"{self.parameters / 1e6:.1f} M",
            f"{self.macs / 1e9:.3g}",
            top1,
            self.header.weights,
            self.header.licence,
            self.header.verified,
        ]


def published_settings() -> list[Path]:
    """The YAML files of all published settings."""
    files = [path for folder in FOLDERS for path in sorted((CONFIGS / folder).glob("*.yaml"))]
    return [path for path in files if not path.name.startswith("Base-")]


def describe_all(paths: Sequence[Path]) -> list[ModelRow]:
    """Their rows, each dataset's together; within one by the first word of the setting's name and by size."""
    rows = [describe(path) for path in paths]
    datasets = list(dict.fromkeys(row.header.dataset for row in rows))
    families = {row.setting: row.setting.partition("_")[0] for row in rows}
    return sorted(
        rows, key=lambda row: (datasets.index(row.header.dataset), families[row.setting], row.parameters, row.macs)
    )


def describe(path: Path) -> ModelRow:
    """Count a setting's network, on the meta device: nothing is computed. Raises UserError for a broken file."""
    header, cfg = read_header(path), load_config(path)
    with torch.device("meta"):
        model = build_model(cfg)
        text, inputs = _example(model, cfg)
        macs = count_macs(model, inputs, 1)
    views = "" if model.input_kind == IMAGES else f"{cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS}"
    return ModelRow(path.stem, header, text, views, sum(p.numel() for p in model.parameters()), macs)


def _example(model: Network, cfg: ConfigNode) -> tuple[str, torch.Tensor | Events]:
    """One input of the network, in words and as it takes it."""
    if model.input_kind == EVENTS:
        count = cfg.DVS.NUM_EVENTS
        events = {key: torch.zeros(1, count, dtype=torch.bool if key == "valid" else None) for key in EVENT_KEYS}
        return f"{count} events", events
    shape = input_shape(model, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE)
    return " x ".join(map(str, shape[1:])), torch.empty(1, *shape)


def grouped_cells(rows: Sequence[ModelRow]) -> list[list[str]]:
    """The cells of all rows, with a row of its own for the name of each dataset before its rows."""
    table: list[list[str]] = []
    dataset = ""
    for row in rows:
        if row.header.dataset != dataset:
            dataset = row.header.dataset
            table.append([dataset, *[""] * (len(COLUMNS) - 1)])
        table.append(row.cells())
    return table


def markdown_table(rows: Sequence[ModelRow]) -> str:
    """The table in Markdown, without a line's end: datasets bold, settings as code, addresses as links."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for first, *others in grouped_cells(rows):
        lines.append([f"`{first}`" if any(others) else f"**{first}**", *map(_linked, others)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _linked(cell: str) -> str:
    """The address of a repository as a link with its name; other words as they are."""
    return f"[{cell.rpartition('/')[2]}]({cell})" if cell.startswith("https://") else cell


MAX_BYTES = 16 * MIB
BEGIN, END = "<!-- begin: tools/model_info.py -->", "<!-- end: tools/model_info.py -->"
EXAMPLE = "python tools/model_info.py --cfg configs/K400/K400_MLP_S16x4.yaml"
USAGE = "%(prog)s [--cfg FILE ...] [--markdown] [--check FILE | --write FILE]"
DESCRIPTION = f"""\
Print a table of the published settings under configs/: parameters and multiply-adds, counted here without computing
anything; the input; the published accuracy; where the weights are, their licence, and what was verified here.

  python tools/model_info.py
  {EXAMPLE}
  python tools/model_info.py --write README.md     puts the table between the two marker comments
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    parser = CommandParser("model_info.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("--cfg", type=Path, nargs="+", metavar="FILE", help="some settings (default: all published)")
    parser.add_argument("--markdown", action="store_true", help="print it as Markdown")
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--check", type=Path, metavar="FILE", help="exit 2 unless the file holds the table as it is now")
    goal.add_argument("--write", type=Path, metavar="FILE", help="put the table into the file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print, check or write the table and return the exit status: 0 done, 2 user error."""
    return exit_status(lambda: _run(parse(arguments)))


def _run(chosen: argparse.Namespace) -> None:
    file = chosen.check or chosen.write
    if file is not None and chosen.cfg is not None:
        raise UserError("--check and --write are for the whole table. Remove --cfg")
    if file is not None:
        held_table(file)  # before the counting
    if chosen.write is not None:
        check_output_file(chosen.write, "--write")
    rows = describe_all(chosen.cfg or published_settings())
    if chosen.check is not None:
        check_file(chosen.check, rows)
        show(f"{chosen.check}: its table is up to date")
    elif chosen.write is not None:
        held, now = (f"{BEGIN}\n{table}\n{END}" for table in (held_table(chosen.write), markdown_table(rows)))
        write_whole(chosen.write, chosen.write.read_text(encoding="utf-8").replace(held, now))
        show(f"written: {chosen.write}")
    elif chosen.markdown:
        show_table(markdown_table(rows))
    else:
        show_table(tabulate(grouped_cells(rows), headers=COLUMNS, tablefmt="simple", disable_numparse=True))


def check_file(file: Path, rows: Sequence[ModelRow]) -> None:
    """Raise UserError, with the first line that differs, unless the table in the file is that of the rows."""
    held, now = held_table(file).splitlines(), markdown_table(rows).splitlines()
    if held != now:
        pairs = zip(now, [*held, *[""] * len(now)], strict=False)
        wanted = next((new for new, old in pairs if new != old), "no more lines")
        raise UserError(f"{file}: its table is out of date, run tools/model_info.py --write {file}; expected {wanted}")


def held_table(file: Path) -> str:
    """What stands between the marker comments of a file; UserError where they are missing."""
    try:
        text = read_text_file(file, MAX_BYTES)
    except UnreadableTextError as error:
        raise UserError(f"{plain(file)} {error}. Give a Markdown file such as README.md") from None
    start, found, rest = text.partition(f"{BEGIN}\n")
    table, end, _ = rest.partition(f"\n{END}")
    if not found or not end:
        raise UserError(f"{plain(file)} has no lines {BEGIN} and {END}. Add them; the table goes between them")
    return table
