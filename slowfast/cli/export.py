"""Exported models: `slowfast export` writes one, `slowfast run-exported` classifies with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import FAILED, CommandParser, exit_status
from slowfast.cli.setup import add_loader_workers, parse_with_config, split_overrides
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.utils.files import check_output_file, check_output_folder
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show

# ------------------------------------------------------------------ slowfast export
EXPORT_EXAMPLE = "slowfast export --cfg ImageNet/EAT_TI --out model.onnx TEST.CHECKPOINT_FILE_PATH weights.pth"
EXPORT_DESCRIPTION = f"""\
Export a model with its weights and compare the logits of the exported file with those of the model on other random
inputs, or on the clips of --samples. Weights as in testing, on the CPU.

  {EXPORT_EXAMPLE}
  slowfast export --cfg output/run/config.yaml --out model.safetensors
  slowfast export --cfg output/run/config.yaml --out int8.onnx --precision int8 --samples clips/
  slowfast export --cfg output/run/config.yaml --triton model_repository

.pt2 files are loaded by torch.export.load, .onnx files (the onnx extra) by ONNX Runtime and others; slowfast
run-exported runs both. The exit status is 1, and nothing is written, if logits differ by more than 1e-4 of the largest
(float16: 0.1, int8: 0.5; a warning follows from 0.01 and 0.1). .safetensors files (the safetensors extra) hold the
weights alone, bit by bit; TEST.CHECKPOINT_FILE_PATH takes them. All hold preprocessing, sampling and class names as
metadata, see docs/DEPLOYMENT.md. Config overrides, KEY VALUE pairs, follow the options.
"""
EXPORT_USAGE = (
    "%(prog)s --cfg FILE --out FILE.onnx|FILE.pt2|FILE.safetensors | --triton FOLDER [options] [KEY VALUE ...]"
)
ONNX, SAFETENSORS = ".onnx", ".safetensors"
SUFFIXES = (".pt2", ONNX, SAFETENSORS)
PRECISIONS = ("float32", "float16", "int8")


def parse_export(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast export", EXPORT_DESCRIPTION, EXPORT_USAGE, EXPORT_EXAMPLE)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="FILE", help=".pt2, .onnx or .safetensors file")
    target.add_argument("--triton", type=Path, metavar="FOLDER", help="model repository of Triton Inference Server")
    parser.add_argument("--triton-name", metavar="NAME", help="model in the repository (default: MODEL.MODEL_NAME)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help="weights of an ONNX file (default %(default)s)"
    )
    parser.add_argument(
        "--samples",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE_OR_FOLDER",
        help="compare on the clips of these files, at most 64, instead of random inputs",
    )
    return parse_with_config(parser, arguments)


def export(arguments: Sequence[str]) -> int:
    """Export and return the exit status: 0 done, 1 if the logits of the file differ, 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _export(*parse_export(arguments)))


def _export(chosen: argparse.Namespace, cfg: ConfigNode) -> int | None:
    _check(chosen)
    from slowfast.inference.export import Options, export_trained, export_triton, export_weights
    from slowfast.inference.export_check import ExportDiffers

    options = Options(chosen.precision, chosen.samples)
    try:
        if chosen.triton is not None:
            export_triton(cfg, chosen.triton, chosen.triton_name, options)
        elif chosen.out.suffix.lower() == SAFETENSORS:
            export_weights(cfg, chosen.out)
        else:
            export_trained(cfg, chosen.out, options)
    except ExportDiffers as error:
        show(f"error: {error}. Nothing was written", error=True)
        return FAILED
    return None


def _check(chosen: argparse.Namespace) -> None:
    """Raise UserError for options that exclude each other and for targets that cannot be written."""
    if chosen.triton is not None:
        check_output_folder(chosen.triton, "--triton")
        return
    check_output_file(chosen.out, "--out", SUFFIXES)
    if chosen.triton_name is not None:
        raise UserError("--triton-name needs --triton FOLDER")
    suffix = chosen.out.suffix.lower()
    if suffix != ONNX and chosen.precision != PRECISIONS[0]:
        raise UserError(f"--precision {chosen.precision} is for {ONNX} files, but --out names a {suffix} file")
    if suffix == SAFETENSORS and chosen.samples:
        raise UserError(f"--samples: a {suffix} file holds no network to compare. Remove the option")


# ------------------------------------------------------------------ slowfast run-exported
RUN_EXAMPLE = "slowfast run-exported model.onnx clip.mp4"
RUN_DESCRIPTION = f"""\
Classify videos, images, folders of extracted frames or event recordings with a file of slowfast export: .onnx by ONNX
Runtime, .pt2 by PyTorch, on the CPU. No config and no checkpoint is needed: preprocessing, views and class names are in
the file, so the scores are those of slowfast predict.

  {RUN_EXAMPLE}
  slowfast run-exported model.onnx clips/ --out results TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1

Writes predictions.json and predictions.csv, as slowfast predict does; failed.csv lists files that cannot be read. The
exit status is 0 if at least one was read. Views and ensemble can be overridden by KEY VALUE pairs after the files. A
.pt2 file is a program: run only files that you trust.
"""
RUN_USAGE = "%(prog)s FILE.onnx|FILE.pt2 FILE_OR_FOLDER [...] [--out FOLDER] [options] [KEY VALUE ...]"
DEFAULT_OUT = Path("output")


def parse_run_exported(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line.

    Returns:
        The options, and the config overrides.

    Raises:
        UserError: If it cannot be parsed.
    """
    parser = CommandParser("slowfast run-exported", RUN_DESCRIPTION, RUN_USAGE, RUN_EXAMPLE)
    parser.add_argument("file", type=Path, metavar="FILE", help="exported .onnx or .pt2 file")
    parser.add_argument("paths", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="videos, images or folders")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FOLDER", help="folder for the results (default: %(default)s)"
    )
    parser.add_argument("--annotate", action="store_true", help="also write each video with its classes drawn on it")
    add_loader_workers(parser)
    words, overrides = split_overrides(arguments, parser.flags())
    chosen = parser.parse_and_import(words)
    if chosen.num_workers is not None:
        overrides = ["DATA_LOADER.NUM_WORKERS", str(chosen.num_workers), *overrides]
    return chosen, overrides


def run_exported(arguments: Sequence[str]) -> int:
    """Classify and return the exit status: 0 if a file was read, 2 after a user error or if none was."""
    with messages_on_screen():
        return exit_status(lambda: _run(*parse_run_exported(arguments)))


def _run(chosen: argparse.Namespace, overrides: Sequence[str]) -> None:
    check_output_folder(chosen.out, "--out")
    from slowfast.inference import exported

    exported.run_exported(chosen.file, chosen.paths, chosen.out, overrides, annotate=chosen.annotate)
