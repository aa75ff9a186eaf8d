"""Export of the weights as a safetensors file, with everything needed to use them as metadata."""

from __future__ import annotations

from pathlib import Path

import torch

from slowfast.config.node import ConfigNode
from slowfast.engine.test import network_to_test
from slowfast.inference.export_check import ExportDiffers
from slowfast.inference.export_metadata import class_names_note, export_metadata
from slowfast.utils.checkpoint_files.read import read_torch_file
from slowfast.utils.checkpoint_files.safetensors_file import SUFFIX, import_safetensors, write_safetensors
from slowfast.utils.files import atomic_path
from slowfast.utils.screen import show

__all__ = ["SUFFIX", "export_weights"]


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
