"""The published settings as rows of a table: counted parameters and multiply-adds beside what the YAML files say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from slowfast.config.load import load_config
from slowfast.config.node import ConfigNode
from slowfast.model_info.header import Header, read_header
from slowfast.models import build_model
from slowfast.models.inputs import EVENT_KEYS, EVENTS, IMAGES, Events, input_shape, takes
from slowfast.models.macs import count_macs

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
    views = "" if takes(model) == IMAGES else f"{cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS}"
    return ModelRow(path.stem, header, text, views, sum(p.numel() for p in model.parameters()), macs)


def _example(model: nn.Module, cfg: ConfigNode) -> tuple[str, torch.Tensor | Events]:
    """One input of the network, in words and as it takes it."""
    if takes(model) == EVENTS:
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
