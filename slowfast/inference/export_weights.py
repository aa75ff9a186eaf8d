"""Export of the weights alone as a safetensors file, with what a user of the weights must know as metadata."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from slowfast import __version__
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, find_dataset, has_data
from slowfast.engine.state import CLASS_NAMES
from slowfast.engine.test import network_to_test
from slowfast.inference.export import ExportDiffers
from slowfast.models.protocol import Network
from slowfast.utils.checkpoint_files.read import read_torch_file
from slowfast.utils.checkpoint_files.safetensors_file import SUFFIX, import_safetensors, write_safetensors
from slowfast.utils.files import atomic_path
from slowfast.utils.json_files import to_json
from slowfast.utils.screen import show

__all__ = ["SUFFIX", "export_weights", "weights_metadata"]


def export_weights(cfg: ConfigNode, out: Path) -> None:
    """Write the weights of a config's model to a .safetensors file, which appears complete and verified or not at all.

    Args:
        cfg: Config for evaluating the model.
        out: .safetensors file.

    Raises:
        ExportDiffers: If the file does not give back the same weights, bit by bit.
        UserError: If weights or the safetensors package are missing.
    """
    import_safetensors("--out")
    model = network_to_test(cfg, torch.device("cpu"))
    state, metadata = model.state_dict(), weights_metadata(cfg, model)
    with atomic_path(out, suffix=out.suffix) as part:
        write_safetensors(part, state, metadata)
        found = read_torch_file(part)
        changed = [name for name in state if name not in found or not _same_bits(state[name], found[name])]
        if changed or len(found) != len(state):
            raise ExportDiffers(f"{len(changed)} of {len(state)} tensors of the exported file differ from the model's")
    names = (
        "with class names"
        if CLASS_NAMES in metadata
        else "without class names (neither DATA.PATH_TO_DATA_DIR nor the weights)"
    )
    show(f"{len(state)} tensors, bit by bit those of the model; mean, std and config digest in the metadata, {names}")
    show(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def weights_metadata(cfg: ConfigNode, model: Network) -> dict[str, str]:
    """Return the metadata of exported weights: text by name, JSON for lists.

    Class names are those of the dataset, else those of the checkpoint.
    """
    metadata = {
        "format": "pt",  # by which other libraries choose their reader
        "slowfast": __version__,
        "model": cfg.MODEL.MODEL_NAME,
        "config_digest": hashlib.sha256(cfg.dump().encode()).hexdigest()[:16],
        "mean": to_json(list(cfg.DATA.MEAN)),
        "std": to_json(list(cfg.DATA.STD)),
        "channel_order": "BGR" if cfg.DATA.REVERSE_INPUT_CHANNEL else "RGB",
    }
    names = find_dataset(cfg, TEST).read_class_names() if has_data(cfg) else None
    if names is None and model.loaded is not None and model.loaded.class_names is not None:
        names = list(model.loaded.class_names)
    return metadata if names is None else metadata | {CLASS_NAMES: to_json(names)}


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare tensors as bytes, so that NaN equals itself and -0 differs from 0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second)
