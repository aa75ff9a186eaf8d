"""Frozen parameters: linear probing (MODEL.FREEZE_BACKBONE), and layers or stages by name (MODEL.FREEZE)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.blocks import parameter_depths
from slowfast.models.protocol import named_network
from slowfast.models.weights import head_names, is_head
from slowfast.utils.logging import get_logger
from slowfast.utils.text import did_you_mean, nearest_name, plain

_STAGE = re.compile(r"stage(\d+)")


def freeze_parameters(model: nn.Module, backbone: bool, names: Sequence[str] = ()) -> None:
    """Freeze the parameters that :func:`find_frozen` returns, and log how many remain trainable.

    Args:
        model: The network.
        backbone: MODEL.FREEZE_BACKBONE.
        names: MODEL.FREEZE.

    Raises:
        ConfigError: If a name matches nothing, or nothing is left to train.
    """
    frozen = find_frozen(model, backbone, names)
    if not frozen:
        return
    for name, parameter in named_network(model).named_parameters():
        parameter.requires_grad_(name not in frozen)
    trained = {name: p.numel() for name, p in named_network(model).named_parameters() if p.requires_grad}
    total = sum(p.numel() for p in model.parameters())
    keys = " and ".join(key for key, given in (("MODEL.FREEZE_BACKBONE", backbone), ("MODEL.FREEZE", names)) if given)
    shown = ", ".join(list(trained)[:4]) + (", ..." if len(trained) > 4 else "")
    get_logger().info(f"{keys}: {sum(trained.values()):,} of {total:,} parameters are trainable: {shown}")


def find_frozen(model: nn.Module, backbone: bool, names: Sequence[str]) -> set[str]:
    """Return the names of the parameters that either setting freezes.

    Args:
        model: The network; only parameter names are used.
        backbone: Freeze everything but the classification head.
        names: Names of layers or parameters, patterns of such names with ``*``, ``?`` or ``[...]``, and stages:
            ``stage1`` is the network's first stage with the embedding before it.

    Raises:
        ConfigError: If a name matches nothing, or nothing is left to train.
    """
    parameters = [name for name, _ in named_network(model).named_parameters()]
    frozen = {parameter for name in names for parameter in _matches(model, name)}
    if backbone:
        heads = head_names(model)
        frozen |= {name for name in parameters if not is_head(name, heads)}
        if not any(is_head(name, heads) for name in parameters):
            raise ConfigError(f"MODEL.FREEZE_BACKBONE: {type(model).__name__} has no layer called {' or '.join(heads)}")
    if len(frozen) == len(parameters):
        raise ConfigError("MODEL.FREEZE: every parameter is frozen. Leave at least one layer to train")
    return frozen


def freeze_modes(model: nn.Module, probing: bool) -> None:
    """Put frozen layers into evaluation mode: batch-norm statistics are fixed, and dropout is off.

    Args:
        model: The network, in training mode.
        probing: Linear probing (MODEL.FREEZE_BACKBONE): layers without parameters, such as dropout before the head, are
            put into evaluation mode as well.
    """
    for module in model.modules():
        has_parameters = next(module.parameters(), None) is not None
        if (has_parameters or probing) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def _matches(model: nn.Module, name: str) -> list[str]:
    """Return the parameters that an entry of MODEL.FREEZE matches. Raises ConfigError if there are none."""
    parameters = [parameter for parameter, _ in named_network(model).named_parameters()]
    found = [parameter for parameter in parameters if any(fnmatchcase(part, name) for part in _ancestors(parameter))]
    if found:
        return found
    depths = parameter_depths(model)
    stage = _STAGE.fullmatch(name)
    found = [parameter for parameter, depth in depths.items() if stage and depth.stage == int(stage[1]) > 0]
    if found:
        return found
    known = dict.fromkeys(part for parameter in parameters for part in _ancestors(parameter))
    stages = [f"stage{number}" for number in sorted({depth.stage for depth in depths.values()} - {0})]
    last = f" Its stages are stage1 to {stages[-1]}." if stage and stages else ""
    near = "" if stage else did_you_mean(nearest_name(name, [*known, *stages]))
    raise ConfigError(
        f"MODEL.FREEZE: {type(model).__name__} has no layer, parameter or stage {plain(name)}.{last}{near}"
    )


def _ancestors(parameter: str) -> Iterator[str]:
    """Yield the names of the layers that contain a parameter, outermost first, and its own name."""
    parts = parameter.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))
