"""Export of a model as a PyTorch program (.pt2) or as ONNX (the onnx extra), checked against the model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from slowfast.config.node import ConfigNode
from slowfast.engine.state import network_to_test
from slowfast.errors import UserError
from slowfast.models.protocol import input_shape
from slowfast.utils.files import atomic_path, reporting_file
from slowfast.utils.screen import show

TOLERANCE = 1e-4  # maximum difference of logits, relative to the largest
BATCHES = (1, 2, 3)  # batch sizes of the check if the batch size is dynamic
EXAMPLES = 2  # batch size of the traced inputs
STANDARD_NAMESPACES = frozenset({"aten", "_operator"})  # of operators that other programs know

Run = Callable[[torch.Tensor], torch.Tensor]


class ExportDiffers(UserError):
    """Exported file computes other logits than the model."""


@dataclass(frozen=True)
class Graph:
    """Exported model.

    Args:
        program: The exported program.
        fixed_batch: Why the batch size is fixed; "" if it is dynamic.
    """

    program: ExportedProgram
    fixed_batch: str = ""

    @property
    def batches(self) -> Sequence[int]:
        """Return batch sizes to check."""
        return (EXAMPLES,) if self.fixed_batch else BATCHES


def export_graph(model: nn.Module, shape: Sequence[int]) -> Graph:
    """Export a model in evaluation mode, with a dynamic batch size if it can be traced so.

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


def save_graph(graph: Graph, path: Path) -> Run:
    """Write a .pt2 file; return a function that runs the file."""
    with reporting_file(path) as file:
        torch.export.save(graph.program, file)
    module = torch.export.load(path).module()
    return lambda x: module(x)


def example(shape: Sequence[int], batch: int, seed: int) -> torch.Tensor:
    """Return random inputs (batch, *shape) distributed like normalized pixels."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def largest_difference(model: nn.Module, run: Run, shape: Sequence[int], batches: Sequence[int]) -> float:
    """Return the largest difference of logits on new random inputs, relative to the largest logit.

    Args:
        model: Model that was exported.
        run: Function that runs the exported file.
        shape: Shape of an input without the batch dimension.
        batches: Batch sizes.

    Raises:
        ExportDiffers: If shapes differ.
    """
    worst = 0.0
    for batch in batches:
        x = example(shape, batch, seed=batch)
        wanted, found = model.eval()(x), run(x)
        if found.shape != wanted.shape:
            raise ExportDiffers(
                f"the exported model returns logits of shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
            )
        difference = float((found - wanted).abs().max() / wanted.abs().max())
        worst = difference if difference != difference else max(worst, difference)  # NaN stays
    return worst


def check_difference(difference: float) -> None:
    """Raise ExportDiffers for a difference above TOLERANCE, or NaN."""
    if not difference <= TOLERANCE:
        raise ExportDiffers(
            f"the logits of the exported model differ by {difference:.1e} of the largest, more than {TOLERANCE}"
        )


PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "input", "logits"
_VERBOSE_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def require_onnx() -> None:
    """Raise UserError if a package of the onnx extra cannot be imported."""
    for package in PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise UserError(
                f'--out: .onnx needs {package}, which cannot be imported ({error}). pip install "slowfast[onnx]", '
                "or use .pt2"
            ) from error


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's progress output and warnings; errors are still raised."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_VERBOSE_LOGGERS)]
    loggers = [logging.getLogger(name) for name in {*_VERBOSE_LOGGERS, *names}]
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
    """Write an .onnx file with the input `input` and the output `logits`; return a function that runs the file."""
    with _quiet_exporter():
        program = torch.onnx.export(graph.program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True)
    if program is None:
        raise UserError("--out: the ONNX exporter of PyTorch returned no program. Use .pt2")
    program.save(str(path), external_data=False)
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(x: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(x.numpy())})
        return torch.from_numpy(logits)

    return run


WRITERS: dict[str, Callable[[Graph, Path], Run]] = {".pt2": save_graph, ".onnx": save_onnx}


def export(model: nn.Module, shape: Sequence[int], out: Path) -> tuple[Graph, float]:
    """Write a model to a .pt2 or .onnx file, which appears complete and checked or not at all.

    Args:
        model: Model with its weights.
        shape: Shape of an input without the batch dimension.
        out: File to write.

    Returns:
        The exported graph and the largest difference of logits, relative to the largest logit.

    Raises:
        ExportDiffers: If the file computes other logits than the model.
        UserError: If the model cannot be exported.
    """
    with atomic_path(out, suffix=out.suffix) as part:
        graph = export_graph(model, shape)
        run = WRITERS[out.suffix](graph, part)
        difference = largest_difference(model, run, shape, graph.batches)
        check_difference(difference)
    return graph, difference


def export_trained(cfg: ConfigNode, out: Path) -> None:
    """Export the model of a config with its weights and print what the file takes and returns.

    Args:
        cfg: Config for evaluating the model.
        out: .pt2 or .onnx file.

    Raises:
        ExportDiffers: If the file computes other logits than the model.
        UserError: If weights or packages are missing or the model cannot be exported.
    """
    if out.suffix == ".onnx":
        require_onnx()
    model = network_to_test(cfg, torch.device("cpu"))
    shape = input_shape(model, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE)
    graph, difference = export(model, shape, out)
    order = "BGR" if cfg.DATA.REVERSE_INPUT_CHANNEL else "RGB"
    batch = f"{graph.batches[0]} ({graph.fixed_batch})" if graph.fixed_batch else "any"
    show(f"largest difference {difference:.1e} of the largest logit, on {len(graph.batches)} random batches")
    show(f"input: float32 (batch, {', '.join(map(str, shape))}), batch {batch}; {order}, (pixel / 255 - mean) / std,")
    show(f"  mean {list(cfg.DATA.MEAN)}, std {list(cfg.DATA.STD)}; output: logits (batch, {cfg.MODEL.NUM_CLASSES})")
    show(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
