"""Put weights into a network: all of them or none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from slowfast.errors import CheckpointError
from slowfast.models.published import StateDict
from slowfast.runtime.logging import get_logger

SHOWN = 3  # keys named in a message


@runtime_checkable
class AdaptsWeights(Protocol):
    """A network that can start training from weights for other inputs, such as images of another size."""

    def adapt_start_weights(self, state: StateDict, path: Path) -> StateDict:
        """The state dict read from `path` as this network's; unchanged where there is nothing to adapt."""


def load_weights(model: nn.Module, state: StateDict, path: Path, allow_new_head: bool = False) -> None:
    """Load a whole state dict that was read from `path`.

    allow_new_head: a classification head of another class count keeps the network's own weights, with a message.
    Raises CheckpointError, and leaves the network as it is, unless every key is used and every weight is given.
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


def _check_tables(model: nn.Module, state: StateDict, own: StateDict, path: Path) -> None:
    """Tables of whole numbers, such as an order of pixels, are not learned: the file's must be the network's."""
    for key, table in own.items():
        whole = not (table.is_floating_point() or table.is_complex())
        if whole and table.numel() > 1 and not torch.equal(state[key].cpu(), table.cpu()):
            raise CheckpointError(
                f"{path} does not fit this {type(model).__name__}: {key} holds other numbers than the network's. "
                "Take the config these weights were trained with"
            )


def head_names(model: nn.Module) -> tuple[str, ...]:
    """The layers that give class scores: `HEAD` of networks that do not call theirs head."""
    names: tuple[str, ...] = getattr(model, "HEAD", ("head",))
    return names


def _with_own_head(state: StateDict, own: StateDict, heads: tuple[str, ...], path: Path) -> StateDict:
    """The state with the network's head where the file's has another number of classes."""
    other = [
        key
        for key in state.keys() & own.keys()
        if is_head(key, heads) and state[key].shape != own[key].shape and state[key].shape[1:] == own[key].shape[1:]
    ]
    if not other:
        return state
    key = other[0]
    get_logger().warning(
        f"{path} has a head for {len(state[key])} classes: a new one for {len(own[key])} starts from random weights"
    )
    return state | {key: own[key] for key in own if is_head(key, heads)}


def is_head(key: str, heads: tuple[str, ...]) -> bool:
    """Whether a weight belongs to a classification head, such as head.weight."""
    return key.rpartition(".")[0] in heads


def _what_differs(
    model: nn.Module,
    state: StateDict,
    own: StateDict,
    path: Path,
    unused: Sequence[str],
    missing: Sequence[str],
    shapes: Sequence[str],
) -> str:
    """One line: depths, then shapes, then keys."""
    parts = []
    theirs, ours = _depths(state), _depths(own)
    depths = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    if depths:
        found, wanted = (" ".join(str(d[name]) for name in depths) for d in (theirs, ours))
        parts.append(f"depth of {', '.join(depths)} is {found} in the file, {wanted} in the network")
    if shapes:
        first = shapes[0]
        parts.append(
            f"{len(shapes)} shapes differ, the first {first}: {tuple(state[first].shape)} in the file, "
            f"{tuple(own[first].shape)} in the network"
        )
    if unused:
        parts.append(f"{len(unused)} keys of the file are unknown here ({_some(unused)})")
    if missing:
        parts.append(f"{len(missing)} weights are not in the file ({_some(missing)})")
    name = type(model).__name__
    return f"{path} does not fit this {name}: {'; '.join(parts)}. Take the config these weights were trained with"


def _depths(keys: Iterable[str]) -> dict[str, int]:
    """Length of each outermost numbered list of layers: blocks1.0.norm1.weight, ... -> {blocks1: n}."""
    depths: dict[str, int] = {}
    for key in keys:
        match = re.match(r"(.*?)\.(\d+)\.", key)
        if match:
            depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return depths


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
