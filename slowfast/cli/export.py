"""`slowfast export`: a model and its weights as one file for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import FAILED, CommandParser, exit_status
from slowfast.cli.setup import parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.paths import check_output_file
from slowfast.utils.screen import show

EXAMPLE = "slowfast export --cfg ImageNet/EAT_TI --out model.onnx TEST.CHECKPOINT_FILE_PATH weights.pth"
DESCRIPTION = f"""\
Export a model with its weights and compare the logits of the exported file with those of the model on other random
inputs. Weights as in testing; float32, on the CPU.

  {EXAMPLE}
  slowfast export --cfg output/run/config.yaml --out model.safetensors

.pt2 files are loaded by torch.export.load, .onnx files (the onnx extra) by ONNX Runtime and others. The exit status is
1, and nothing is written, if logits differ by more than 1e-4 of the largest. .safetensors files (the safetensors extra)
hold the weights alone, bit by bit, with mean, std and class names as metadata; TEST.CHECKPOINT_FILE_PATH takes them.
Config overrides, KEY VALUE pairs, follow the options.
"""
USAGE = "%(prog)s --cfg FILE --out FILE.pt2|FILE.onnx|FILE.safetensors [KEY VALUE ...]"
SUFFIXES = (".pt2", ".onnx", ".safetensors")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast export", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".pt2, .onnx or .safetensors file")
    return parse_with_config(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Export and return the exit status: 0 done, 1 if the file computes other logits, 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _export(*parse(arguments)))


def _export(chosen: argparse.Namespace, cfg: ConfigNode) -> int | None:
    check_output_file(chosen.out, "--out", SUFFIXES)
    from slowfast.inference.export import ExportDiffers, export_trained
    from slowfast.inference.export_weights import SUFFIX, export_weights

    try:
        (export_weights if chosen.out.suffix == SUFFIX else export_trained)(cfg, chosen.out)
    except ExportDiffers as error:
        show(f"error: {error}. Nothing was written", error=True)
        return FAILED
    return None
