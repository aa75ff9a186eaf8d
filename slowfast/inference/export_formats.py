"""Graphs of models and their files: tracing, .pt2 (PyTorch) and .onnx (the onnx extra) with metadata, and running."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from slowfast.errors import UserError
from slowfast.inference.export_metadata import (
    FLOAT32,
    INPUT_NAME,
    OUTPUT_NAME,
)
from slowfast.utils.files import reporting_file
from slowfast.utils.imports import import_extra
from slowfast.utils.text_files import to_json

PT2, ONNX = ".pt2", ".onnx"
BATCHES = (1, 2, 3)  # batch sizes of the check if the batch size is dynamic
EXAMPLES = 2  # batch size of the traced inputs
STANDARD_NAMESPACES = frozenset({"aten", "_operator"})  # namespaces of operators that other programs know
METADATA_FILE = "slowfast.json"  # file name in a .pt2 archive
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FLOAT16, INT8 = "float16", "int8"
PRECISIONS = (FLOAT32, FLOAT16, INT8)
BATCH = "batch"  # name of a dynamic batch dimension
_VERBOSE_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")
_ONLY_FATAL = 4  # severity of ONNX Runtime's log

Run = Callable[[torch.Tensor], torch.Tensor]
Writer = Callable[[ExportedProgram, Path, Mapping[str, str], str], Run]


@dataclass(frozen=True)
class Graph:
    """Exported model.

    Args:
        program: The exported program.
        fixed_batch: Reason why the batch size is fixed; "" if it is dynamic.
    """

    program: ExportedProgram
    fixed_batch: str = ""

    @property
    def batch(self) -> int | None:
        """Return the batch size; None if it is dynamic."""
        return EXAMPLES if self.fixed_batch else None

    @property
    def batches(self) -> Sequence[int]:
        """Return batch sizes to check."""
        return (EXAMPLES,) if self.fixed_batch else BATCHES


def example(shape: Sequence[int], batch: int, seed: int) -> torch.Tensor:
    """Return random inputs (batch, *shape) distributed like normalized pixels."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def export_graph(model: nn.Module, shape: Sequence[int]) -> Graph:
    """Export a model in evaluation mode, with a dynamic batch size if tracing supports it.

    Converting the batch size to an integer, as `len(x)` does and `x.shape[0]` does not, fixes it.

    Args:
        model: Model to export.
        shape: Shape of an input without the batch dimension.

    Raises:
        UserError: If the graph contains operators that are not PyTorch's.
    """
    model, x = model.eval(), example(shape, EXAMPLES, seed=0)
    try:
        graph = Graph(_trace(model, x, ({0: Dim("batch", min=1)},)))
    except (torch._dynamo.exc.UserError, torch.fx.experimental.symbolic_shapes.ConstraintViolationError) as error:
        reason = str(error).strip().splitlines()[0]
        graph = Graph(_trace(model, x, None), fixed_batch=reason)
    foreign = foreign_operators(graph.program)
    if foreign:
        raise UserError(
            f"MODEL.MODEL_NAME: the exported graph contains operators of extensions: {', '.join(sorted(foreign))}"
        )
    return graph


def _trace(model: nn.Module, x: torch.Tensor, dynamic_shapes: object) -> ExportedProgram:
    with torch.enable_grad():  # without gradients, layers use kernels that cannot be exported
        # Strict mode, the default before PyTorch 2.7, supports only a part of Python.
        return torch.export.export(model, (x,), dynamic_shapes=dynamic_shapes, strict=False)  # type: ignore[arg-type]


def foreign_operators(program: ExportedProgram) -> set[str]:
    """Return the operators of a graph and its subgraphs that are not PyTorch's."""
    nodes = (node for part in program.graph_module.modules() for node in getattr(part, "graph", torch.fx.Graph()).nodes)
    calls = (node.target for node in nodes if node.op == "call_function")
    return {str(call) for call in calls if _origin(call) not in STANDARD_NAMESPACES}


def _origin(call: object) -> str:
    return str(getattr(call, "namespace", None) or getattr(call, "__module__", ""))


def save_graph(program: ExportedProgram, path: Path, metadata: Mapping[str, str], precision: str = FLOAT32) -> Run:
    """Write a .pt2 file; return a function that runs the file.

    Args:
        program: Exported program.
        path: File to write.
        metadata: Text by name, which becomes the extra file METADATA_FILE.
        precision: float32, the only one of this format.
    """
    # PyTorch warns about the unknown file type.
    with quiet_loggers("torch.export"), reporting_file(path) as file:
        torch.export.save(program, file, extra_files={METADATA_FILE: to_json(metadata)})
    return program_run(torch.export.load(path))


def program_run(program: ExportedProgram) -> Run:
    """Return a function that computes the logits of a batch."""
    module = program.module()
    return lambda x: module(x)


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


WRITERS: dict[str, Writer] = {PT2: save_graph, ONNX: save_onnx}
