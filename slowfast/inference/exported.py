"""Exported .onnx and .pt2 files as networks, and predictions with them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slowfast.datasets.index.samples import find_samples
from slowfast.errors import UserError, system_reason
from slowfast.inference.export_formats import (
    METADATA_FILE,
    ONNX,
    PT2,
    Run,
    open_session,
    program_run,
    quiet_loggers,
    require_onnx,
    session_run,
)
from slowfast.inference.export_metadata import INPUT_NAME, OUTPUT_NAME, Metadata, read_metadata
from slowfast.inference.output import classify_to_files, refuse_annotated_images, run_facts
from slowfast.inference.predictor import Predictor
from slowfast.utils.distributed import World
from slowfast.utils.paths import why_not_regular
from slowfast.utils.screen import phase
from slowfast.utils.text import plain
from slowfast.utils.text_files import from_json

SUFFIXES = (ONNX, PT2)
_MOST_CHARACTERS = 200  # limit for the reason given by another library
# Prefix of ONNX Runtime's reasons: status, path, and position in its source.
_RUNTIME_PLACE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (.*? failed:)?(/onnxruntime_src/.*?\) )?")


class ExportedNetwork(nn.Module):
    """Network in an exported file.

    Args:
        run: Function that computes the logits of a batch.
        batch: Batch size that the file requires; None for any.
        where: The file, for messages.
    """

    def __init__(self, run: Run, batch: int | None, where: str) -> None:
        super().__init__()
        self._run, self.batch, self.where = run, batch, where

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, classes); a last batch that is too small is padded with its first input."""
        with reported(self.where, "cannot be run"):
            if self.batch is None:
                return self._run(x)
            missing = -len(x) % self.batch
            padded = torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
            return torch.cat([self._run(part) for part in padded.split(self.batch)])[: len(x)]


@dataclass(frozen=True)
class ExportedFile:
    """Exported file that has been opened.

    Attributes:
        network: Its network.
        metadata: Its metadata.
    """

    network: ExportedNetwork
    metadata: Metadata

    def predictor(self) -> Predictor:
        """Return a predictor with the preprocessing and the ensemble of the file, on the CPU."""
        return Predictor.of_model(self.metadata.cfg, self.network, self.metadata.class_names, World())


def open_exported(path: Path, overrides: Sequence[Any] = ()) -> ExportedFile:
    """Open an exported file. Nothing else is read from a file without metadata.

    Args:
        path: .onnx or .pt2 file.
        overrides: KEY VALUE pairs, see :func:`read_metadata`.

    Raises:
        UserError: If the file is missing, damaged, without metadata or inconsistent with it.
    """
    where = plain(path)
    if path.suffix.lower() == ".safetensors":
        raise UserError(
            f"{where} contains weights without a network. Use it with slowfast predict --cfg FILE --weights {where}"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{where}: the name of an exported file must end in {' or '.join(SUFFIXES)}")
    if wrong := why_not_regular(path):
        raise UserError(f"{where} {wrong}. Give a file of slowfast export")
    run, metadata = (_open_onnx if path.suffix.lower() == ONNX else _open_pt2)(path, where, overrides)
    return ExportedFile(ExportedNetwork(run, metadata.batch, where), metadata)


@contextmanager
def reported(where: str, problem: str) -> Iterator[None]:
    """Convert any error that a library raises about a file into a user error of one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = _RUNTIME_PLACE.sub("", " ".join(system_reason(error).split()))[:_MOST_CHARACTERS].rstrip(".")
        raise UserError(f"{where} {problem}: {reason}. Copy the file again, or export the model again") from error


def _open_onnx(path: Path, where: str, overrides: Sequence[Any]) -> tuple[Run, Metadata]:
    require_onnx(where, ("onnxruntime",))
    with reported(where, "cannot be read as ONNX"):
        session = open_session(path)
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map, where, overrides)
    inputs, outputs = ({one.name: one for one in ends} for ends in (session.get_inputs(), session.get_outputs()))
    if list(inputs) != [INPUT_NAME] or list(outputs) != [OUTPUT_NAME]:
        raise UserError(
            f"{where}: its inputs are {', '.join(inputs)} and its outputs {', '.join(outputs)}, not {INPUT_NAME} and "
            f"{OUTPUT_NAME}: the network is not the one of the metadata. Export the model again"
        )
    takes, gives = list(inputs[INPUT_NAME].shape), list(outputs[OUTPUT_NAME].shape)
    _check_shapes(where, metadata, takes[1:], gives[-1:])
    return session_run(session), metadata


def _open_pt2(path: Path, where: str, overrides: Sequence[Any]) -> tuple[Run, Metadata]:
    with reported(where, "cannot be read as a .pt2 archive"):
        entries = _pt2_metadata(path)
    metadata = read_metadata(entries, where, overrides)
    # PyTorch logs the tracebacks of errors that it raises.
    with quiet_loggers("torch.export"), reported(where, "cannot be read as a .pt2 file"):
        run = program_run(torch.export.load(path))
        with torch.inference_mode():
            logits = run(torch.zeros(metadata.batch or 1, *metadata.shape))
    _check_shapes(where, metadata, list(metadata.shape), list(logits.shape[-1:]))
    return run, metadata


def _pt2_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata in an archive without loading the program; empty if there is none."""
    with zipfile.ZipFile(path) as archive:
        name = next((one for one in archive.namelist() if one.endswith(f"/extra/{METADATA_FILE}")), None)
        content = {} if name is None else from_json(archive.read(name))
    valid = isinstance(content, dict) and all(isinstance(value, str) for value in content.values())
    return content if valid else {}


def _check_shapes(where: str, metadata: Metadata, takes: Sequence[Any], gives: Sequence[Any]) -> None:
    """Raise UserError unless the network has the shapes of the metadata."""
    classes = metadata.cfg.MODEL.NUM_CLASSES
    if list(takes) != list(metadata.shape) or list(gives) != [classes]:
        raise UserError(
            f"{where}: its network takes inputs of shape {list(takes)} and returns {list(gives)} logits, but the "
            f"metadata says {list(metadata.shape)} and [{classes}]: it is another network. Export the model again"
        )


def run_exported(
    path: Path, paths: Sequence[Path], output: Path, overrides: Sequence[Any] = (), *, annotate: bool = False
) -> None:
    """Classify files with an exported file, print the best classes and write the results.

    Args:
        path: .onnx or .pt2 file.
        paths: Videos, images, event recordings, and folders of them.
        output: Output folder.
        overrides: KEY VALUE pairs, see :func:`read_metadata`.
        annotate: Also write each video or event recording as .mp4 with its classes drawn on it.

    Raises:
        UserError: If the file cannot be used.
        DataError: If no file can be read.
    """
    with phase("opening the exported file"):
        exported = open_exported(path, overrides)
        predictor, cfg = exported.predictor(), exported.metadata.cfg
        refuse_annotated_images(cfg, predictor.wanted, annotate)
        found = find_samples(paths, predictor.wanted)
    about = run_facts(cfg) | {"weights": str(path), "precision": exported.metadata.precision}
    classify_to_files(cfg, predictor, found, output, about, annotate=annotate)
