"""ONNX files (the onnx extra): writing with metadata, reduced precision, and running."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from slowfast.errors import UserError
from slowfast.inference.export_metadata import FLOAT32, INPUT_NAME, OUTPUT_NAME
from slowfast.utils.imports import import_extra

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FLOAT16, INT8 = "float16", "int8"
PRECISIONS = (FLOAT32, FLOAT16, INT8)
BATCH = "batch"  # name of a dynamic batch dimension
_VERBOSE_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")
_ONLY_FATAL = 4  # severity of ONNX Runtime's log

Run = Callable[[torch.Tensor], torch.Tensor]


def require_onnx(where: str = "--out", packages: Sequence[str] = PACKAGES) -> None:
    """Raise UserError if a package of the onnx extra cannot be imported.

    Args:
        where: Option or file that needs it, for the message.
        packages: The packages.
    """
    for package in packages:
        import_extra(package, "onnx", f"{where}: .onnx", "use .pt2")


def save_onnx(program: ExportedProgram, path: Path, metadata: Mapping[str, str], precision: str = FLOAT32) -> Run:
    """Write an .onnx file with the input `input` and the output `logits`, both float32 for every precision.

    Args:
        program: Exported program.
        path: File to write.
        metadata: Text by name.
        precision: One of PRECISIONS.

    Returns:
        A function that runs the file.
    """
    onnx: Any = import_module("onnx")
    # ONNX Runtime's quantization warns through the root logger.
    with quiet_loggers("", *_VERBOSE_LOGGERS), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = _CONVERTERS[precision](convert(program))
    _tidy(model)
    onnx.helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())
    return session_run(open_session(path))


def convert(program: ExportedProgram) -> Any:
    """Return a program as an ONNX model."""
    exported = torch.onnx.export(program, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME], dynamo=True)
    if exported is None:
        raise UserError("--out: the ONNX exporter of PyTorch returned no program. Use .pt2")
    return exported.model_proto


@contextlib.contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Suppress the warnings of loggers and of those below them; errors are still raised.

    Args:
        names: Names of the loggers; the root logger is "", and nothing is below it here.
    """
    known = [name for name in logging.root.manager.loggerDict if name.startswith(tuple(filter(None, names)))]
    loggers = [logging.getLogger(name) for name in {*names, *known}]
    levels, handlers = [logger.level for logger in loggers], list(logging.root.handlers)
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        # logging.warning() adds a handler, which would print all later log lines of the package twice.
        logging.root.handlers[:] = handlers


def _float32(model: Any) -> Any:
    return model


def _float16(model: Any) -> Any:
    """Convert weights and operators to float16."""
    return import_module("onnxruntime.transformers.float16").convert_float_to_float16(model, keep_io_types=True)


def _int8(model: Any) -> Any:
    """Quantize the weights of matrix multiplications per channel; activations are quantized as they are computed."""
    onnx, quantization = import_module("onnx"), import_module("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            model,
            str(path),
            op_types_to_quantize=["MatMul"],  # replaces Gemm
            per_channel=True,
            # 7 bits, because sums of 8-bit products overflow the 16-bit registers of CPUs without VNNI.
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(str(path))


_CONVERTERS: dict[str, Callable[[Any], Any]] = {FLOAT32: _float32, FLOAT16: _float16, INT8: _int8}


def _tidy(model: Any) -> None:
    """Name the dynamic batch dimension, which has a symbol such as s77, and drop the exporter's notes.

    The notes of each operator contain stack traces with local paths and take most of a small file.
    """
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        return
    word = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = word.sub(BATCH, dimension.dim_param)


def open_session(path: Path) -> Any:
    """Open a file with ONNX Runtime, on the CPU."""
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = _ONLY_FATAL  # log nothing, because errors are raised
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def session_run(session: Any) -> Run:
    """Return a function that computes the logits of a batch."""

    def run(x: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(x.numpy())})
        return torch.from_numpy(logits)

    return run
