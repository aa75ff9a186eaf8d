"""Files of weights, in the layouts they are published in, to state dicts with this project's keys.

PyTorch files hold a state dict, bare or under one of WRAPPERS, its keys perhaps with a common prefix (Lightning,
DistributedDataParallel, torch.compile). Paddle's .pdparams are pickled dicts of NumPy arrays. Nothing that a file
may contain is ever run.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slowfast.errors import CheckpointError

StateDict = dict[str, torch.Tensor]

# Where training codes keep the weights: SlowFast; DeiT and timm; Lightning and others.
WRAPPERS = ("model_state", "model", "state_dict", "model_state_dict")
AVERAGED = "ema_state"  # this project's training, with MODEL.EMA
PREFIXES = ("module.", "model.", "_orig_mod.")
# The name of a layer's tensor in Paddle, and in PyTorch.
PADDLE_NAMES = {"_mean": "running_mean", "_variance": "running_var"}
PADDLE_NAME_TABLE = "StructuredToParameterName@@"


def read_weights(path: Path, kind: str, model: nn.Module, averaged: bool = False) -> StateDict:
    """The weights in a file, float tensors on the CPU, under the keys that `model` would use.

    kind: pytorch or paddle. averaged: prefer the averaged weights of a training checkpoint that has them.
    Whether they fit the model is for `load_weights` to say. Raises CheckpointError when the file is missing,
    damaged, unsafe, or holds no weights.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} {'is not a file' if path.exists() else 'does not exist'}; it should hold weights"
        )
    readers: dict[str, Callable[[Path], Any]] = {"pytorch": _load_torch, "paddle": _load_paddle}
    state = _unwrap(readers[kind](path), path, averaged)
    if kind == "paddle":
        return _from_paddle(state, model)
    return _without_prefix(state, model.state_dict().keys())


def _load_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            f"{path} cannot be read as PyTorch weights ({_reason(error)}); it must hold tensors and plain values only, "
            "and a .pdparams file needs CHECKPOINT_TYPE paddle"
        ) from error


def _load_paddle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise CheckpointError(f"{path} cannot be read as Paddle weights ({_reason(error)})") from error
    if isinstance(content, dict):
        content.pop(PADDLE_NAME_TABLE, None)
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Makes NumPy arrays and plain values, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _array_from_buffer
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, but only NumPy arrays are read")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What NumPy pickles an array as, before its data is set."""
    return np.ndarray((0,), np.int8)


def _array_from_buffer(data: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """NumPy's form of an array in pickle protocol 5."""
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How pickle protocol 2 keeps bytes."""
    return text.encode("latin-1")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    unsafe = next((line.strip() for line in lines if "Unsupported" in line or "Trying to load" in line), None)
    return (unsafe or (lines[0] if lines else type(error).__name__))[:200]


def _unwrap(content: Any, path: Path, averaged: bool) -> StateDict:
    """The dict of tensors inside the file's content."""
    if isinstance(content, Mapping):
        wanted = [AVERAGED, *WRAPPERS] if averaged else [*WRAPPERS]
        inside = next((content[key] for key in wanted if isinstance(content.get(key), Mapping)), content)
        state = {key: _as_tensor(value) for key, value in inside.items() if isinstance(key, str)}
        if state and len(state) == len(inside) and all(value is not None for value in state.values()):
            return {key: value for key, value in state.items() if value is not None}
    raise CheckpointError(f"{path} holds no weights: neither a dict of tensors nor one under {', '.join(WRAPPERS)}")


def _as_tensor(value: Any) -> torch.Tensor | None:
    """The value as a tensor where it is one or a numeric array."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, order="C", dtype=value.dtype.newbyteorder("=")))
    return None


def _without_prefix(state: StateDict, wanted: Iterable[str]) -> StateDict:
    """Take off the prefixes that all keys of the file share and not all of the network's."""
    wanted = list(wanted)
    for _ in PREFIXES:
        for prefix in PREFIXES:
            if all(k.startswith(prefix) for k in state) and not all(k.startswith(prefix) for k in wanted):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _from_paddle(state: StateDict, model: nn.Module) -> StateDict:
    """Paddle's names and (in, out) Linear weights to PyTorch's names and (out, in)."""
    layers = dict(model.named_modules())
    renamed: StateDict = {}
    for key, value in state.items():
        layer, _, name = key.rpartition(".")
        renamed[f"{layer}.{PADDLE_NAMES.get(name, name)}"] = value
    for name, layer in layers.items():
        if isinstance(layer, _BatchNorm) and layer.num_batches_tracked is not None:  # Paddle does not count
            renamed.setdefault(f"{name}.num_batches_tracked", torch.zeros_like(layer.num_batches_tracked))
    linear = [f"{name}.weight" for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    for key in _transposed(linear, renamed, model):
        renamed[key] = renamed[key].t().contiguous()
    return renamed


def _transposed(linear: list[str], state: StateDict, model: nn.Module) -> list[str]:
    """Linear weights stored as (in, out): all of them, square ones too, unless the others show that none is."""
    linear = [key for key in linear if key in state and state[key].dim() == 2]
    parameters = dict(model.named_parameters())
    rectangular = [key for key in linear if parameters[key].shape[0] != parameters[key].shape[1]]
    as_here = [key for key in rectangular if state[key].shape == parameters[key].shape]
    return [] if rectangular and as_here == rectangular else linear
