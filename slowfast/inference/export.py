"""Verified export of a model: as .pt2, .onnx or .safetensors file, or in a model repository of Triton Inference Server.

A model in a repository is MODEL/config.pbtxt, MODEL/labels.txt and MODEL/1/model.onnx. The fields of config.pbtxt are
those of model_config.proto in Triton's repository `common`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.state import CLASS_NAMES, network_to_test
from slowfast.errors import UserError
from slowfast.inference.export_check import ROUNDS, Comparison, ExportDiffers, compare, random_batches, sample_batches
from slowfast.inference.export_formats import EXAMPLES, ONNX, WRITERS, Graph, export_graph, require_onnx
from slowfast.inference.export_metadata import (
    CONFIG,
    FLOAT32,
    INPUT_NAME,
    OUTPUT_NAME,
    class_names_note,
    export_metadata,
    graph_metadata,
)
from slowfast.models.protocol import input_shape
from slowfast.utils.checkpoint_files.read import import_safetensors, read_torch_file, write_safetensors
from slowfast.utils.files import atomic_path
from slowfast.utils.screen import show
from slowfast.utils.text import escape, plain
from slowfast.utils.text_files import from_json

CONFIG_FILE, LABELS, MODEL_FILE, FIRST_VERSION = "config.pbtxt", "labels.txt", "model.onnx", "1"
QUEUE_DELAY = 5000  # microseconds that a request may wait to be batched with others
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Options:
    """Settings of an export.

    Attributes:
        precision: Data type of the weights, one of `export_formats.PRECISIONS`; .pt2 files are float32.
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


def export_triton(cfg: ConfigNode, repository: Path, name: str | None = None, options: Options | None = None) -> None:
    """Write the model of a config to a model repository, completely or not at all.

    Args:
        cfg: Config for evaluating the model.
        repository: Folder of the repository; other models in it are kept.
        name: Name of the model; by default MODEL.MODEL_NAME in lower case.
        options: Settings of the export.

    Raises:
        ExportDiffers: If the logits of the file differ from the model's.
        UserError: If the repository has a model of this name, or as :func:`export_of_config` does.
    """
    name = cfg.MODEL.MODEL_NAME.lower() if name is None else name
    if not _NAME.fullmatch(name):
        raise UserError(f"--triton-name {plain(name)}: use letters, digits, '.', '_' and '-', such as morphmlp")
    folder = repository / name
    if folder.exists():
        raise UserError(f"--triton {plain(repository)} has a model {name} already. Remove it or set --triton-name")
    with atomic_path(folder) as part:
        version = part / FIRST_VERSION
        version.mkdir(parents=True)
        exported = export_of_config(cfg, version / MODEL_FILE, options or Options())
        names = from_json(exported.metadata.get(CLASS_NAMES, "null")) or map(str, range(cfg.MODEL.NUM_CLASSES))
        (part / LABELS).write_text("".join(f"{escape(label)}\n" for label in names), encoding="utf-8")
        text = "\n".join(config_lines(name, exported, cfg.MODEL.NUM_CLASSES, cfg.TEST.BATCH_SIZE))
        (part / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")
    show(f"Wrote the Triton model {folder}; serve it with tritonserver --model-repository={repository}")


def config_lines(name: str, exported: Exported, classes: int, max_batch: int) -> Iterator[str]:
    """Yield the lines of config.pbtxt, a ModelConfig in protobuf's text format.

    Args:
        name: Name of the model, that of its folder.
        exported: The exported model.
        classes: Number of classes.
        max_batch: Maximum size of a dynamic batch, if the batch size is dynamic.
    """
    fixed = exported.graph.batch
    # Without max_batch_size, dims include the batch.
    first = [] if fixed is None else [fixed]
    yield f"name: {_quoted(name)}"
    yield 'backend: "onnxruntime"'
    yield f"max_batch_size: {max_batch if fixed is None else 0}"
    yield from _tensor("input", INPUT_NAME, [*first, *exported.shape])
    yield from _tensor("output", OUTPUT_NAME, [*first, classes], label_filename=LABELS)
    if fixed is None:
        yield f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY} }}"
    yield from _parameters(exported.metadata)


def _tensor(field: str, name: str, dims: Sequence[int], **more: str) -> Iterator[str]:
    yield f"{field} [\n  {{"
    yield f"    name: {_quoted(name)}"
    yield "    data_type: TYPE_FP32"
    yield f"    dims: [ {', '.join(map(str, dims))} ]"
    yield from (f"    {key}: {_quoted(value)}" for key, value in more.items())
    yield "  }\n]"


def _parameters(metadata: Mapping[str, str]) -> Iterator[str]:
    """Yield the metadata that clients need: Triton returns parameters, but not the metadata of ONNX files."""
    for key, value in metadata.items():
        if key not in (CLASS_NAMES, CONFIG):
            yield f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"


def _quoted(text: str) -> str:
    """Return a string literal of protobuf's text format."""
    return '"' + escape(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
