"""A network's graph as an ONNX file (the optional packages onnx, onnxscript and onnxruntime)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slowfast.errors import UserError
from slowfast.export.graph import Graph, Run

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "input", "logits"
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers


def require_onnx() -> None:
    """Raise UserError where a package that ONNX files need cannot be imported."""
    for package in PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise UserError(
                f'.onnx needs {package}, which cannot be imported ({error}): pip install "slowfast[onnx]", or take .pt2'
            ) from error


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep the exporter's progress and its notes about packages that are not used off the screen; errors are raised."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_TALKATIVE)]
    loggers = [logging.getLogger(name) for name in {*_TALKATIVE, *names}]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def save_onnx(graph: Graph, path: Path) -> Run:
    """Write the graph as .onnx, its input named input and its output logits; what the file, read again, computes."""
    with _hushed():
        program = torch.onnx.export(graph.program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True)
    if program is None:
        raise UserError("PyTorch's exporter gave no ONNX program")
    program.save(str(path), external_data=False)
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(x: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(x.numpy())})
        return torch.from_numpy(logits)

    return run
