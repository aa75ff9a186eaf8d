"""Model repositories of NVIDIA Triton Inference Server: MODEL/config.pbtxt, MODEL/labels.txt, MODEL/1/model.onnx.

The fields are those of model_config.proto in Triton's repository `common`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.engine.state import CLASS_NAMES
from slowfast.errors import UserError
from slowfast.inference.export import Exported, Options, export_of_config
from slowfast.inference.export_metadata import CONFIG, INPUT_NAME, OUTPUT_NAME
from slowfast.utils.files import atomic_path
from slowfast.utils.screen import show
from slowfast.utils.text import escape, plain
from slowfast.utils.text_files import from_json

CONFIG_FILE, LABELS, MODEL_FILE, FIRST_VERSION = "config.pbtxt", "labels.txt", "model.onnx", "1"
QUEUE_DELAY = 5000  # microseconds that a request may wait to be batched with others
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
