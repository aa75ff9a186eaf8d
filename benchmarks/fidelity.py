"""Compare every published model with its published implementation.

Each case of ``published_logits.json`` contains the logits that a published implementation computes for one input with
weights drawn by a rule that depends only on the parameter names. This program draws the same weights for the model of
this project and compares the logits::

    python benchmarks/fidelity.py                              # print the table
    python benchmarks/fidelity.py --write docs/FIDELITY.md     # update it in the page

The exit status is 1 if a model differs by more than ``TOLERANCE``.
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from slowfast.utils.text_files import from_json

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from slowfast.config.defaults import get_cfg
from slowfast.event_driven import EventDrivenInference
from slowfast.models import build_model
from slowfast.models.protocol import EVENT_KEYS, Events

CASES = Path(__file__).with_name("published_logits.json")
TOLERANCE = 2e-4  # relative to the largest logit, in float32 on the CPU
BEGIN, END = "<!-- begin: benchmarks/fidelity.py -->", "<!-- end -->"
HEADER = ("config", "compared with", "input", "parameters", "max. relative difference of logits")


@dataclass(frozen=True)
class Row:
    """Result of one case."""

    config: str
    source: str
    input: str
    parameters: int
    equal_parameters: bool
    difference: float  # relative to the largest logit

    @property
    def is_equal(self) -> bool:
        """Return whether the model computes the same as the published one."""
        return self.equal_parameters and self.difference < TOLERANCE

    def cells(self) -> list[str]:
        """Return the row of the table."""
        count = f"{self.parameters:,}" + ("" if self.equal_parameters else " (differ)")
        return [f"`{self.config}`", self.source, self.input, count, f"{self.difference:.0e}"]


def read_cases() -> list[dict[str, Any]]:
    """Return all cases."""
    cases: list[dict[str, Any]] = from_json(CASES.read_text(encoding="utf-8"))
    return cases


def compare(case: dict[str, Any]) -> Row:
    """Build the model of a case, draw its weights and compare its logits with the published ones."""
    cfg = get_cfg()
    cfg.merge_from_file(ROOT / case["config"])
    cfg.merge_from_list(["NUM_GPUS", 0, *case["overrides"]])
    model = build_model(cfg)
    draw_weights(model)
    model.eval()
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        logits, text = _frame_by_frame(model, case) if "frames" in case else _at_once(model, case)
    differences = [
        float((row[: len(wanted)] - torch.tensor(wanted)).abs().max()) / largest
        for row, wanted, largest in zip(logits, case["logits"], case["largest"], strict=True)
    ]
    equal = count == case.get("parameters", count)
    name = " ".join([Path(case["config"]).stem, *map(str, case["overrides"])])
    return Row(name, case["source"], text, count, equal, max(differences))


def _at_once(model: torch.nn.Module, case: dict[str, Any]) -> tuple[torch.Tensor, str]:
    spec = case["input"]
    if spec["kind"] == "dense":
        rng = np.random.Generator(np.random.PCG64(spec["seed"]))
        x = torch.from_numpy(rng.standard_normal(tuple(spec["shape"])).astype(np.float32))
        return model(x), " x ".join(map(str, spec["shape"]))
    return model(draw_events(spec)), f"{spec['batch']} x {spec['length']} events"


def _frame_by_frame(model: torch.nn.Module, case: dict[str, Any]) -> tuple[list[torch.Tensor], str]:
    """Run event-driven inference by the published rule; ValueError if other patches are active."""
    spec = case["frames"]
    engine = EventDrivenInference(model, threshold=spec["threshold"], reference="previous", gate="any")
    logits = []
    for number, (frame, active) in enumerate(zip(draw_frames(spec), case["active"], strict=True)):
        result = engine(frame)
        if list(result.active_patches) != active:
            raise ValueError(f"{case['config']}: frame {number} activates {result.active_patches}, published {active}")
        logits.append(result.logits[0].float())
    return logits, f"{len(logits)} frames, event-driven"


def draw_weights(model: torch.nn.Module) -> None:
    """Set all floating-point tensors of a model to numbers seeded by their names."""
    state = model.state_dict()
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        z: np.ndarray = rng.standard_normal(tuple(tensor.shape)).astype(np.float32)
        if name.endswith("running_var"):
            z = 1 + 0.1 * np.abs(z)
        elif z.ndim >= 2:
            layer = name.split(".")[-2:][0]
            z = z / math.sqrt(z.shape[-1] if "embed" in layer else max(math.prod(z.shape[1:]), 1))
        else:
            z = 1 + 0.1 * z if name.endswith("weight") else 0.1 * z
        tensor.copy_(torch.from_numpy(z.astype(np.float32)))


def draw_events(spec: dict[str, Any]) -> Events:
    """Return random events of a batch: x, y, t, p and valid of shape (B, L)."""
    rng = np.random.Generator(np.random.PCG64(spec["seed"]))
    shape = (spec["batch"], spec["length"])
    x, y = rng.integers(0, spec["width"], shape), rng.integers(0, spec["height"], shape)
    p = rng.integers(0, 2, shape)
    times = np.sort(rng.integers(0, spec["duration"], shape), axis=1)
    t = (times - times[:, :1]).astype(np.float32) / np.float32(spec["t_max"])
    valid = np.arange(spec["length"]) < np.array(spec["valid"])[:, None]
    return {key: torch.from_numpy(value) for key, value in zip(EVENT_KEYS, (x, y, t, p, valid), strict=True)}


def draw_frames(spec: dict[str, Any]) -> Iterator[torch.Tensor]:
    """Yield frames (1, 3, side, side); each adds small noise and one new rectangle to the previous one."""
    rng = np.random.Generator(np.random.PCG64(spec["seed"]))
    frame = rng.standard_normal((1, 3, spec["size"], spec["size"])).astype(np.float32)
    yield torch.from_numpy(frame)
    for rectangle in spec["squares"]:
        frame = frame + np.float32(spec["noise"]) * rng.uniform(-1, 1, frame.shape).astype(np.float32)
        if rectangle is not None:
            top, left, height, width = rectangle
            drawn = rng.standard_normal((1, 3, height, width))
            frame[:, :, top : top + height, left : left + width] = drawn
        frame = frame.astype(np.float32)
        yield torch.from_numpy(frame)


def write_table(page: Path, rows: list[Row]) -> None:
    """Replace the table between the markers of a Markdown page."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Run all cases; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="Markdown page in which to update the table")
    page = parser.parse_args().write
    rows = [compare(case) for case in read_cases()]
    print(tabulate([row.cells() for row in rows], HEADER))
    if page is not None:
        write_table(page, rows)
    return int(not all(row.is_equal for row in rows))


if __name__ == "__main__":
    sys.exit(main())
