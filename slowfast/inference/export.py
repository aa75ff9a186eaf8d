"""Export of a model as a PyTorch program (.pt2), as ONNX (the onnx extra) or as weights (.safetensors), verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from slowfast.config.node import ConfigNode
from slowfast.engine.state import network_to_test
from slowfast.errors import UserError
from slowfast.inference.export_check import (
    ROUNDS,
    Comparison,
    ExportDiffers,
    compare,
    example,
    random_batches,
    sample_batches,
)
from slowfast.inference.export_metadata import FLOAT32, class_names_note, export_metadata, graph_metadata
from slowfast.inference.export_onnx import Run, quiet_loggers, require_onnx, save_onnx
from slowfast.models.protocol import input_shape
from slowfast.utils.checkpoint_files.read import import_safetensors, read_torch_file, write_safetensors
from slowfast.utils.files import atomic_path, reporting_file
from slowfast.utils.screen import show
from slowfast.utils.text_files import to_json

PT2, ONNX = ".pt2", ".onnx"
BATCHES = (1, 2, 3)  # batch sizes of the check if the batch size is dynamic
EXAMPLES = 2  # batch size of the traced inputs
STANDARD_NAMESPACES = frozenset({"aten", "_operator"})  # namespaces of operators that other programs know
METADATA_FILE = "slowfast.json"  # file name in a .pt2 archive
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


WRITERS: dict[str, Writer] = {PT2: save_graph, ONNX: save_onnx}


@dataclass(frozen=True)
class Options:
    """Settings of an export.

    Attributes:
        precision: Data type of the weights, one of `export_onnx.PRECISIONS`; .pt2 files are float32.
        samples: Files whose clips replace random inputs in the comparison with the model.
    """

    precision: str = FLOAT32
    samples: Sequence[Path] = ()


@dataclass(frozen=True)
class Exported:
    """Exported model, in a file that has been compared with it.

    Attributes:
        graph: Graph of the file.
        shape: Shape of an input without the batch dimension.
        comparison: Comparison of the file with the model.
        metadata: Metadata of the file.
    """

    graph: Graph
    shape: tuple[int, ...]
    comparison: Comparison
    metadata: Mapping[str, str] = field(default_factory=dict)


def export(
    model: nn.Module,
    shape: Sequence[int],
    out: Path,
    metadata: Mapping[str, str] | None = None,
    precision: str = FLOAT32,
    inputs: Sequence[torch.Tensor] = (),
) -> Exported:
    """Write a model to a .pt2 or .onnx file, which appears complete and checked or not at all.

    Args:
        model: Model with its weights.
        shape: Shape of an input without the batch dimension.
        out: File to write.
        metadata: Metadata of the model; that of the graph is added.
        precision: Data type of the weights.
        inputs: Batches for the comparison, of EXAMPLES inputs each if the batch size is fixed; random by default.

    Raises:
        ExportDiffers: If the logits of the file differ from the model's.
        UserError: If the model cannot be exported.
    """
    with atomic_path(out, suffix=out.suffix) as part:
        graph = export_graph(model, shape)
        about = {**(metadata or {}), **graph_metadata(shape, precision, graph.batch)}
        run = WRITERS[out.suffix.lower()](graph.program, part, about, precision)
        rounds = 1 if precision == FLOAT32 else ROUNDS
        batches = inputs or list(random_batches(shape, graph.batches, rounds))
        comparison = compare(model, run, batches, "clips of the samples" if inputs else "random inputs")
        comparison.check(precision)
    return Exported(graph, tuple(shape), comparison, about)


def export_trained(cfg: ConfigNode, out: Path, options: Options | None = None) -> None:
    """Export the model of a config to a file and print its inputs and outputs; see :func:`export_of_config`."""
    export_of_config(cfg, out, options or Options())
    show(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def export_of_config(cfg: ConfigNode, out: Path, options: Options) -> Exported:
    """Export the model of a config with its weights and print the inputs and outputs of the file.

    Args:
        cfg: Config for evaluating the model.
        out: .pt2 or .onnx file.
        options: Settings of the export.

    Raises:
        ExportDiffers: If the logits of the file differ from the model's.
        UserError: If weights or packages are missing or the model cannot be exported.
    """
    if out.suffix.lower() == ONNX:
        require_onnx()
    model = network_to_test(cfg, torch.device("cpu"))
    shape = input_shape(model, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE)
    inputs = sample_batches(cfg, options.samples, EXAMPLES) if options.samples else []
    exported = export(model, shape, out, export_metadata(cfg, model), options.precision, inputs)
    _report(cfg, exported)
    return exported


def _report(cfg: ConfigNode, exported: Exported) -> None:
    graph, about = exported.graph, exported.metadata
    batch = f"{graph.batch} ({graph.fixed_batch})" if graph.fixed_batch else "any"
    show(f"{about['precision']}: {exported.comparison}")
    show(f"input: float32 (batch, {', '.join(map(str, exported.shape))}), batch {batch}; {about['channel_order']},")
    show(f"  (pixel / 255 - mean) / std, mean {list(cfg.DATA.MEAN)}, std {list(cfg.DATA.STD)};")
    show(f"output: logits (batch, {cfg.MODEL.NUM_CLASSES})")
    show(f"metadata: preprocessing, sampling and config digest, {class_names_note(about)}")


def export_weights(cfg: ConfigNode, out: Path) -> None:
    """Write the weights of a config's model to a .safetensors file, which appears complete and verified or not at all.

    Args:
        cfg: Config for evaluating the model.
        out: .safetensors file.

    Raises:
        ExportDiffers: If the file does not contain identical weights.
        UserError: If weights or the safetensors package are missing.
    """
    import_safetensors("--out")
    model = network_to_test(cfg, torch.device("cpu"))
    # Other libraries choose their reader by "format".
    state, metadata = model.state_dict(), {"format": "pt", **export_metadata(cfg, model)}
    with atomic_path(out, suffix=out.suffix) as part:
        write_safetensors(part, state, metadata)
        found = read_torch_file(part)
        changed = [name for name in state if name not in found or not _same_bits(state[name], found[name])]
        if changed or len(found) != len(state):
            raise ExportDiffers(f"{len(changed)} of {len(state)} tensors of the exported file differ from the model's")
    note = class_names_note(metadata)
    show(f"{len(state)} tensors, bit by bit those of the model; metadata: mean, std and config digest, {note}")
    show(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare tensors as bytes, so that NaN equals itself and -0 differs from 0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second)
