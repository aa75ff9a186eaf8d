"""Table of models: sizes computed from their configs, published accuracy and weights from the config headers."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn

from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.config.parse import configs_folder
from slowfast.errors import UserError
from slowfast.models import build_model
from slowfast.models.linear import count_macs
from slowfast.models.protocol import EVENT_KEYS, EVENTS, IMAGES, Events, Network, input_shape, named_network
from slowfast.utils.files import MIB
from slowfast.utils.paths import UnreadableTextError, read_text_file
from slowfast.utils.text import plain

_TITLE = re.compile(
    r"(?P<network>[^,]+), (?:.*, )?(?P<dataset>[^,]+) \((?P<millions>[\d.]+) M parameters, (?P<gmacs>[\d.]+) GMACs"
)
_TOP1 = re.compile(r"top-1 ([\d.]+) %")
_NO_TOP1 = "unknown"
EXPECTED, WEIGHTS, LICENSE, VERIFIED = "Expected", "Weights", "License of the weights", "Verified here"


@dataclass(frozen=True)
class Header:
    """Facts in the comments at the top of a config.

    Attributes:
        network: Name of the model.
        dataset: Dataset it was trained on.
        millions: Parameters in millions.
        gmacs: GMACs per view.
        top1: Published top-1 accuracy in percent; "" if none was published.
        weights: Where the weights are.
        license: License of the weights.
        verified: What was verified in this project.
    """

    network: str
    dataset: str
    millions: float
    gmacs: float
    top1: str
    weights: str
    license: str
    verified: str


def read_header(path: str | Path) -> Header:
    """Read the header of a config. Raises UserError if a fact is missing."""
    lines = []
    for line in _read_config(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    title = _TITLE.match(lines[0]) if lines else None
    if title is None:
        raise UserError(
            f"{plain(path)}: the first line must be # network, input, dataset (N M parameters, N GMACs ...)"
        )
    expected = _field(path, lines, EXPECTED)
    top1 = _TOP1.search(expected)
    if top1 is None and not expected.startswith(_NO_TOP1):
        raise UserError(f"{plain(path)}: # {EXPECTED}: must contain top-1 N %, or {_NO_TOP1}")
    return Header(
        network=title["network"],
        dataset=title["dataset"],
        millions=float(title["millions"]),
        gmacs=float(title["gmacs"]),
        top1=top1[1] if top1 else "",
        weights=_field(path, lines, WEIGHTS),
        license=_field(path, lines, LICENSE),
        verified=_field(path, lines, VERIFIED),
    )


def _field(path: str | Path, lines: list[str], name: str) -> str:
    """Return the text after `name:` of the only line that starts with it."""
    found = [line.removeprefix(f"{name}:").strip() for line in lines if line.startswith(f"{name}:")]
    if len(found) != 1 or not found[0]:
        raise UserError(f"{plain(path)}: the comments at the top need one line # {name}: ...")
    return found[0]


def _read_config(path: str | Path) -> str:
    try:
        return read_text_file(path, MIB)
    except UnreadableTextError as error:
        raise UserError(f"{plain(path)} {error}. slowfast model-info --list prints the shipped configs") from None


FOLDERS = ("K400", "SSV1", "SSV2", "ImageNet", "DVS")  # folders of published models, in the order of the table
COLUMNS = ("config", "model", "input", "parameters", "GMACs/view", "top-1", "weights", "license", "verified")


@dataclass(frozen=True)
class ModelRow:
    """Row of the table.

    Attributes:
        config: Name of the config file.
        header: Its header.
        input: Input size.
        views: Temporal x spatial views of the published accuracy; "" for images.
        parameters: Number of parameters.
        macs: Multiply-accumulate operations per view.
    """

    config: str
    header: Header
    input: str
    views: str
    parameters: int
    macs: float

    def cells(self) -> list[str]:
        """Return the cells of the row."""
        top1 = f"{float(self.header.top1):.1f} %{self.views and f' ({self.views})'}" if self.header.top1 else "-"
        return [
            self.config,
            self.header.network,
            self.input,
            f"{self.parameters / 1e6:.1f} M",
            f"{self.macs / 1e9:.3g}",
            top1,
            self.header.weights,
            self.header.license,
            self.header.verified,
        ]


def published_configs() -> list[Path]:
    """Return the config files of all published models."""
    files = [path for folder in FOLDERS for path in sorted((configs_folder() / folder).glob("*.yaml"))]
    return [path for path in files if not path.name.startswith("Base-")]


def describe_all(paths: Sequence[str | Path]) -> list[ModelRow]:
    """Return the rows of configs, sorted by dataset, then by the first word of the name, then by size."""
    counted: dict[Hashable, float] = {}
    rows = [describe(path, counted) for path in paths]
    datasets = list(dict.fromkeys(row.header.dataset for row in rows))
    families = {row.config: row.config.partition("_")[0] for row in rows}
    return sorted(
        rows, key=lambda row: (datasets.index(row.header.dataset), families[row.config], row.parameters, row.macs)
    )


def describe(path: str | Path, counted: dict[Hashable, float] | None = None) -> ModelRow:
    """Count the parameters and MACs of a config's model on the meta device.

    Args:
        path: The config file.
        counted: MACs of the models described before, by structure, to count those of equal models once; is extended.

    Raises:
        UserError: If the file is broken.
    """
    header, cfg = read_header(path), load_config(path)
    counted = {} if counted is None else counted
    with torch.device("meta"):
        model = build_model(cfg)
        text, inputs = _example(model, cfg)
        structure = (text, _structure(model))
        if structure not in counted:
            counted[structure] = count_macs(model, inputs, 1)
        macs = counted[structure]
    views = "" if model.input_kind == IMAGES else f"{cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS}"
    return ModelRow(Path(path).stem, header, text, views, sum(p.numel() for p in model.parameters()), macs)


def _structure(model: nn.Module) -> Hashable:
    """Return all that the number of operations of a model depends on: its layers, their sizes and settings.

    Floats, such as dropout rates, do not matter.
    """
    return tuple(
        (
            name,
            type(module),
            tuple((key, value) for key, value in vars(module).items() if isinstance(value, (int, str, tuple))),
            tuple((key, parameter.shape) for key, parameter in module.named_parameters(recurse=False)),
        )
        for name, module in model.named_modules()
    )


def layers_table(path: str | Path, depth: int) -> str:
    """Return fvcore's table of the parameters of a config's model, by layer down to a depth."""
    from fvcore.nn import parameter_count_table  # imported late because it is slow to import

    with torch.device("meta"):
        model = build_model(load_config(path))
    table: str = parameter_count_table(named_network(model), max_depth=depth)
    return table


def _example(model: Network, cfg: ConfigNode) -> tuple[str, torch.Tensor | Events]:
    """Return the size of one input of a model as text, and such an input."""
    if model.input_kind == EVENTS:
        count = cfg.DVS.NUM_EVENTS
        events = {key: torch.zeros(1, count, dtype=torch.bool if key == "valid" else None) for key in EVENT_KEYS}
        return f"{count} events", events
    shape = input_shape(model, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE)
    return " x ".join(map(str, shape[1:])), torch.empty(1, *shape)


def grouped_cells(rows: Sequence[ModelRow]) -> list[list[str]]:
    """Return the cells of all rows, with a row for the name of each dataset before its models."""
    table: list[list[str]] = []
    dataset = ""
    for row in rows:
        if row.header.dataset != dataset:
            dataset = row.header.dataset
            table.append([dataset, *[""] * (len(COLUMNS) - 1)])
        table.append(row.cells())
    return table


def plain_table(rows: Sequence[ModelRow]) -> str:
    """Return the table for a terminal."""
    return tabulate(grouped_cells(rows), headers=COLUMNS, tablefmt="simple", disable_numparse=True)


def markdown_table(rows: Sequence[ModelRow]) -> str:
    """Return the table in Markdown without a final newline: datasets bold, configs as code, addresses as links."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for first, *others in grouped_cells(rows):
        lines.append([f"`{first}`" if any(others) else f"**{first}**", *map(_linked, others)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _linked(cell: str) -> str:
    """Return the address of a repository as a link with its name; other text unchanged."""
    return f"[{cell.rpartition('/')[2]}]({cell})" if cell.startswith("https://") else cell
