"""Reading, renaming, inflating and loading weights in published formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slowfast.errors import CheckpointError, DamagedFileError
from slowfast.models.protocol import Network, StateDict, named_network
from slowfast.utils.checkpoint_files.inert import InertObject
from slowfast.utils.checkpoint_files.read import HOW_TO_CONVERT, read_paddle_file, read_torch_file
from slowfast.utils.logging import get_logger
from slowfast.utils.paths import local_path
from slowfast.utils.remote.address import as_address
from slowfast.utils.text import redact


def load_weights(model: nn.Module, state: StateDict, path: str | Path, allow_new_head: bool = False) -> None:
    """Load a state dict strictly: all of its keys and all of the network's keys must match.

    Args:
        model: The network.
        state: The state dict.
        path: Path or address of the file it was read from, for messages.
        allow_new_head: Keep the network's own head, with a warning, if the file's has a different number of classes.

    Raises:
        CheckpointError: If a key is unknown or missing or a shape differs; the network is left as it is.
    """
    own = model.state_dict()
    if allow_new_head:
        state = _with_own_head(state, own, head_names(model), path)
    unused = [key for key in state if key not in own]
    missing = [key for key in own if key not in state]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if unused or missing or shapes:
        raise CheckpointError(_what_differs(model, state, own, path, unused, missing, shapes))
    _check_tables(model, state, own, path)
    model.load_state_dict(state)


def _check_tables(model: nn.Module, state: StateDict, own: StateDict, path: str | Path) -> None:
    """Check that integer tables that are not learned, such as a pixel order, equal the network's."""
    for key, table in own.items():
        integers = not (table.is_floating_point() or table.is_complex())
        if integers and table.numel() > 1 and not torch.equal(state[key].cpu(), table.cpu()):
            raise CheckpointError(
                f"{path} does not fit this {type(model).__name__}: {key} differs from the network's. "
                "Use the config that these weights were trained with"
            )


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that compute class scores, see `Network.head_names`."""
    return model.head_names() if isinstance(model, Network) else ("head",)


def _with_own_head(state: StateDict, own: StateDict, heads: tuple[str, ...], path: str | Path) -> StateDict:
    """Return the state with the network's own head if the file's head has a different number of classes."""
    other = [
        key
        for key in state.keys() & own.keys()
        if is_head(key, heads) and state[key].shape != own[key].shape and state[key].shape[1:] == own[key].shape[1:]
    ]
    if not other:
        return state
    key = other[0]
    get_logger().warning(
        f"{path} has a head for {len(state[key])} classes. The new one for {len(own[key])} classes starts from random "
        "weights"
    )
    return state | {key: own[key] for key in own if is_head(key, heads)}


def is_head(key: str, heads: tuple[str, ...]) -> bool:
    """Return whether a weight, such as head.weight, belongs to a classification head."""
    return key.rpartition(".")[0] in heads


def _what_differs(
    model: nn.Module,
    state: StateDict,
    own: StateDict,
    path: str | Path,
    unused: Sequence[str],
    missing: Sequence[str],
    shapes: Sequence[str],
) -> str:
    """Return a line that lists the differences: depths, then shapes, then keys."""
    parts = []
    theirs, ours = _depths(state), _depths(own)
    depths = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    if depths:
        found, wanted = (" ".join(str(d[name]) for name in depths) for d in (theirs, ours))
        parts.append(f"depth of {', '.join(depths)} is {found} in the file, {wanted} in the network")
    if shapes:
        first = shapes[0]
        parts.append(
            f"{len(shapes)} shapes differ, the first is {first}: {tuple(state[first].shape)} in the file, "
            f"{tuple(own[first].shape)} in the network"
        )
    if unused:
        parts.append(f"{len(unused)} keys of the file are unknown ({_some(unused)})")
    if missing:
        parts.append(f"{len(missing)} weights are not in the file ({_some(missing)})")
    name = type(model).__name__
    return f"{path} does not fit this {name}: {'; '.join(parts)}. Use the config that these weights were trained with"


def _depths(keys: Iterable[str]) -> dict[str, int]:
    """Return the length of each outermost list of layers: blocks1.0.norm1.weight, ... -> {blocks1: n}."""
    depths: dict[str, int] = {}
    for key in keys:
        match = re.match(r"(.*?)\.(\d+)\.", key)
        if match:
            depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return depths


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


# CHECKPOINT_TYPE -> reader of the file's content.
READERS: dict[str, Callable[[str | Path], Any]] = {"pytorch": read_torch_file, "paddle": read_paddle_file}
# Keys of the raw weights: SlowFast; DeiT, timm, torchvision; Lightning; others.
RAW_KEYS = ("model_state", "model", "state_dict", "model_state_dict", "module", "net", "network", "params")
# Keys of weights averaged over training: this project; DeiT, timm, torchvision, PaddleViT; others.
AVERAGED_KEYS = (
    *("ema_state", "model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model_state_dict"),
    *("model_state_ema", "ema_model", "averaged_model", "averaged", "swa_model", "params_ema", "ema"),
)
AVERAGE_COUNT = "n_averaged"  # key that torch.optim.swa_utils.AveragedModel adds
PREFIXES = ("module.", "model.", "_orig_mod.")
# Tensor names of a layer in Paddle and in PyTorch.
PADDLE_NAMES = {"_mean": "running_mean", "_variance": "running_var"}
PADDLE_NAME_TABLE = "StructuredToParameterName@@"

RAW, AVERAGED = "raw", "averaged"
# TEST.CHECKPOINT_WEIGHTS -> kinds of weights in the order of preference; training starts from raw ones if it can.
RAW_FIRST = "raw first"
CHOICES = {"auto": (AVERAGED, RAW), "raw": (RAW,), "ema": (AVERAGED,), RAW_FIRST: (RAW, AVERAGED)}


@dataclass(frozen=True)
class Candidate:
    """State dict in a file and its key; `key` is empty for a bare state dict."""

    kind: str
    key: str
    state: StateDict

    def __str__(self) -> str:
        return f"{self.kind} weights" + (f" ({self.key!r})" if self.key else "")


def read_weights(path: str | Path, kind: str, model: nn.Module, choice: str = RAW_FIRST) -> StateDict:
    """Read the weights in a file; whether they fit the model is checked by `load_weights`.

    Args:
        path: Path or address of the file.
        kind: Its format, a key of READERS.
        model: Network whose layers and keys decide what is renamed.
        choice: Raw or averaged weights, a key of CHOICES.

    Returns:
        Tensors on the CPU under the keys of `model`.

    Raises:
        CheckpointError: If the file is missing, damaged or unsafe, or does not contain such weights.
    """
    return weights_of(read_file(path, kind), redact(str(path)), kind, model, choice)


def read_file(path: str | Path, kind: str) -> Any:
    """Return the content of a file specified by the user.

    Args:
        path: Path or address of the file.
        kind: Its format, a key of READERS.

    Raises:
        CheckpointError: If the file is missing, damaged or unsafe.
    """
    try:
        return READERS[kind](path)
    except DamagedFileError as error:
        advice = f"Delete {local_path(path)} to download it again" if as_address(path) else "Copy or download it again"
        raise DamagedFileError(f"{error}. {advice}") from error


def weights_of(content: Any, path: str | Path, kind: str, model: nn.Module, choice: str = RAW_FIRST) -> StateDict:
    """Return the weights in the content of a file, as :func:`read_weights` does."""
    found = _choose(_candidates(content), content, path, choice)
    if kind == "paddle":
        return _from_paddle(found.state, model)
    return _without_prefix(found.state, model.state_dict().keys())


def _choose(found: list[Candidate], content: Any, path: str | Path, choice: str) -> Candidate:
    """Return the preferred state dict and log it where the file holds averaged ones."""
    if not found:
        raise CheckpointError(_no_weights(content, path))
    for kind in CHOICES[choice]:
        taken = next((one for one in found if one.kind == kind), None)
        if taken is not None:
            break
    else:
        others = ", ".join(map(str, found))
        raise CheckpointError(
            f"{path} does not hold the weights that TEST.CHECKPOINT_WEIGHTS {choice} asks for. It holds {others}; "
            "set TEST.CHECKPOINT_WEIGHTS auto"
        )
    others = ", ".join(str(one) for one in found if one is not taken and one.kind != taken.kind)
    if AVERAGED in (one.kind for one in found):
        get_logger().info(f"Using the {taken} of {path}" + (f"; it also holds {others}" if others else ""))
    return taken


def _candidates(content: Any) -> list[Candidate]:
    """Return all state dicts in a file's content, by kind in the order of their keys' preference."""
    if not isinstance(content, Mapping):
        return []
    bare = _as_state(content)
    if bare:
        return [_candidate(RAW, "", bare)]
    found = []
    for kind, keys in ((AVERAGED, AVERAGED_KEYS), (RAW, RAW_KEYS)):
        for key in keys:
            state = _as_state(_innermost(content.get(key)))
            if state:
                found.append(_candidate(kind, key, state))
    return found


def _candidate(kind: str, key: str, state: StateDict) -> Candidate:
    """Return a candidate without the counter of an AveragedModel, which indicates averaged weights."""
    if AVERAGE_COUNT not in state or not all(name.startswith("module.") for name in state if name != AVERAGE_COUNT):
        return Candidate(kind, key, state)
    return Candidate(AVERAGED, key, {name: value for name, value in state.items() if name != AVERAGE_COUNT})


def _innermost(content: Any) -> Any:
    """Return the content under wrapping keys: {"state_dict": weights} -> weights."""
    for _ in range(3):
        if not isinstance(content, Mapping):
            return content
        inside = next((content[key] for key in RAW_KEYS if isinstance(content.get(key), Mapping)), None)
        if inside is None:
            return content
        content = inside
    return content


def _as_state(content: Any) -> StateDict:
    """Return a dict of tensors or arrays as tensors; empty for anything else."""
    if not isinstance(content, Mapping):
        return {}
    state: StateDict = {}
    for key, value in content.items():
        if key == PADDLE_NAME_TABLE:
            continue
        tensor = _as_tensor(value)
        if tensor is None or not isinstance(key, str):
            return {}
        state[key] = tensor
    return state


def _no_weights(content: Any, path: str | Path) -> str:
    parts = [content, *(content.values() if isinstance(content, Mapping) else ())]
    whole = next((part for part in parts if isinstance(part, InertObject)), None)
    if whole is not None:
        return f"{path} holds no state dict, but an object of the class {whole.class_name}. {HOW_TO_CONVERT}"
    return f"{path} holds no weights: neither a dict of tensors nor one under {', '.join(RAW_KEYS + AVERAGED_KEYS)}"


def _as_tensor(value: Any) -> torch.Tensor | None:
    """Return a tensor or numeric array as a tensor; Paddle stores some as (name, array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, order="C", dtype=value.dtype.newbyteorder("=")))
    return None


def _without_prefix(state: StateDict, wanted: Iterable[str]) -> StateDict:
    """Remove the prefixes that all keys of the file but not all keys of the network have."""
    wanted = list(wanted)
    for _ in PREFIXES:
        for prefix in PREFIXES:
            if all(k.startswith(prefix) for k in state) and not all(k.startswith(prefix) for k in wanted):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _from_paddle(state: StateDict, model: nn.Module) -> StateDict:
    """Convert Paddle's names and (in, out) Linear weights to PyTorch's names and (out, in)."""
    layers = dict(named_network(model).named_modules())
    renamed: StateDict = {}
    for key, value in state.items():
        layer, _, name = key.rpartition(".")
        renamed[f"{layer}.{PADDLE_NAMES.get(name, name)}"] = value
    for name, layer in layers.items():
        if isinstance(layer, _BatchNorm) and layer.num_batches_tracked is not None:  # Paddle does not count batches
            renamed.setdefault(f"{name}.num_batches_tracked", torch.zeros_like(layer.num_batches_tracked))
    linear = [f"{name}.weight" for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    for key in _transposed(linear, renamed, model):
        renamed[key] = renamed[key].t().contiguous()
    return renamed


def _transposed(linear: list[str], state: StateDict, model: nn.Module) -> list[str]:
    """Return the Linear weights stored as (in, out): all, square ones too, unless the others show that none is."""
    linear = [key for key in linear if key in state and state[key].dim() == 2]
    parameters = dict(named_network(model).named_parameters())
    rectangular = [key for key in linear if parameters[key].shape[0] != parameters[key].shape[1]]
    as_here = [key for key in rectangular if state[key].shape == parameters[key].shape]
    return [] if rectangular and as_here == rectangular else linear
