"""The command line of `tools/export.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from slowfast.cli.command import FAILED, CommandParser, exit_status
from slowfast.cli.setup import parse_tool_line
from slowfast.config.node import ConfigNode
from slowfast.engine.test import network_to_test
from slowfast.inference.export import (
    ExportDiffers,
    Graph,
    Run,
    check,
    export_graph,
    largest_difference,
    require_onnx,
    save_graph,
    save_onnx,
)
from slowfast.models.inputs import input_shape
from slowfast.utils.files import written_whole
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.output_folders import check_output_file
from slowfast.utils.screen import show

EXAMPLE = "python tools/export.py --cfg configs/ImageNet/EAT_TI.yaml --out net.onnx TEST.CHECKPOINT_FILE_PATH w.pth"
DESCRIPTION = f"""\
Write a network with its weights as one file for other programs, and check that the file gives the network's logits
on other random inputs. Weights as for a test; float32, on the CPU, one process.

  {EXAMPLE}

.pt2 is read by torch.export.load, .onnx (the extra onnx) by ONNX Runtime and others. What follows the options are
KEY VALUE pairs. The exit status is 1 where the logits differ by more than 1e-4 of the largest.
"""
USAGE = "%(prog)s --cfg FILE --out FILE.pt2|FILE.onnx [KEY VALUE ...]"
WRITERS: dict[str, Callable[[Graph, Path], Run]] = {".pt2": save_graph, ".onnx": save_onnx}


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """The command line's values and the config. Raises UserError."""
    parser = CommandParser("export.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .pt2 or .onnx")
    return parse_tool_line(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Export and check; the exit status: 0 done, 1 the file differs, 2 the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _export(*parse(arguments)))


def _export(chosen: argparse.Namespace, cfg: ConfigNode) -> int | None:
    _check_target(chosen.out)
    model = network_to_test(cfg, torch.device("cpu"))
    shape = input_shape(model, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE)
    try:
        graph, difference = export(model, shape, chosen.out)
    except ExportDiffers as error:
        show(f"error: {error}; nothing was written", error=True)
        return FAILED
    order = "B G R" if cfg.DATA.REVERSE_INPUT_CHANNEL else "R G B"
    batch = f"{graph.batches[0]} ({graph.fixed_batch})" if graph.fixed_batch else "any"
    show(f"largest difference {difference:.1e} of the largest logit, on {len(graph.batches)} random batches")
    show(f"input: float32 (batch, {', '.join(map(str, shape))}), batch {batch}; {order}, (pixel / 255 - mean) / std,")
    show(f"  mean {list(cfg.DATA.MEAN)}, std {list(cfg.DATA.STD)}; output: logits (batch, {cfg.MODEL.NUM_CLASSES})")
    show(f"written: {chosen.out} ({chosen.out.stat().st_size / 1e6:.1f} MB)")
    return None


def export(model: nn.Module, shape: Sequence[int], out: Path) -> tuple[Graph, float]:
    """Write a network for inputs (B, *shape) to a .pt2 or .onnx file; its graph and largest difference in logits.

    The file is there whole and checked, or not at all: ExportDiffers where it gives other logits than the network.
    """
    with written_whole(out, suffix=out.suffix) as part:
        graph = export_graph(model, shape)
        run = WRITERS[out.suffix](graph, part)
        difference = largest_difference(model, run, shape, graph.batches)
        check(difference)
    return graph, difference


def _check_target(out: Path) -> None:
    check_output_file(out, "--out", tuple(WRITERS))
    if out.suffix == ".onnx":
        require_onnx()
