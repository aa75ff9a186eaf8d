"""Parameters of a network: their depth, those that are frozen, and their groups in the optimizer.

Depth serves layer-wise learning rates and freezing stages. The blocks of a network are numbered from 1, input first.
Layer 0 is what comes before the first block: the patch, position or event embedding. A parameter between two blocks,
such as a patch embedding between two stages, belongs to the layer of the block after it; what follows the last block,
norm and head, is the top layer. (For plain transformers this is the rule of BEiT, MAE and SlowFast's MViT.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.protocol import Network, named_network
from slowfast.models.weights import head_names, is_head
from slowfast.utils.logging import get_logger
from slowfast.utils.text import did_you_mean, nearest_name, plain


@dataclass(frozen=True)
class Depth:
    """Position of a parameter in its network.

    Args:
        layer: Number of its layer, from 0 (embedding) to the number of blocks + 1 (last norm and head).
        stage: Number of its stage from 1; the embedding belongs to the first stage. 0 for the top layer.
    """

    layer: int
    stage: int


def find_blocks(model: nn.Module, prefix: str = "") -> list[list[str]]:
    """Return the names of a network's blocks by stage, in the order in which they were registered.

    A stage is an outermost ``ModuleList`` or ``Sequential`` with members that have submodules; these are its blocks.
    """
    blocks = []
    if isinstance(model, (nn.ModuleList, nn.Sequential)):
        members = [(name, child) for name, child in model.named_children() if next(child.children(), None) is not None]
        blocks = [f"{prefix}{name}" for name, child in members if next(child.parameters(), None) is not None]
    if blocks:
        return [blocks]
    return [stage for name, child in model.named_children() for stage in find_blocks(child, f"{prefix}{name}.")]


def blocks_by_stage(model: nn.Module) -> list[list[str]]:
    """Return the names of a network's blocks by stage, input first: from its hook, else from :func:`find_blocks`."""
    network = named_network(model)
    named = network.blocks_by_stage() if isinstance(network, Network) else None
    return find_blocks(network) if named is None else named


def parameter_depths(model: nn.Module) -> dict[str, Depth]:
    """Return the depth of each parameter, by name. A network without blocks only has the top layer."""
    numbered = [(block, stage) for stage, blocks in enumerate(blocks_by_stage(model), start=1) for block in blocks]
    top = Depth(len(numbered) + 1, 0)
    depth_of = {block: Depth(layer, stage) for layer, (block, stage) in enumerate(numbered, start=1)}
    depths: dict[str, Depth] = {}
    before_first = bool(numbered)
    waiting: list[str] = []  # parameters since the last block
    for name, _ in named_network(model).named_parameters():
        depth = _depth_of_block(name, depth_of)
        if depth is None:
            waiting.append(name)
            continue
        depths |= dict.fromkeys(waiting, Depth(0, 1) if before_first else depth)
        depths[name] = depth
        before_first, waiting = False, []
    return depths | dict.fromkeys(waiting, top)


def _depth_of_block(parameter: str, depth_of: dict[str, Depth]) -> Depth | None:
    """Return the depth of the block that contains a parameter; None for parameters outside blocks."""
    parts = parameter.split(".")
    names = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((depth_of[name] for name in names if name in depth_of), None)


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


def is_named(parameter: str, name: str) -> bool:
    """Return whether a parameter matches a name: in full, by its last parts, or as a pattern with * or ?."""
    return parameter == name or parameter.endswith(f".{name}") or fnmatchcase(parameter, name)


def check_no_decay(model: nn.Module, names: Sequence[str]) -> None:
    """Raise ConfigError if a name in SOLVER.NO_WD_PARAMS matches no parameter."""
    parameters = [parameter for parameter, _ in named_network(model).named_parameters()]
    for name in names:
        if not any(is_named(parameter, name) for parameter in parameters):
            near = did_you_mean(nearest_name(name, parameters))
            raise ConfigError(f"SOLVER.NO_WD_PARAMS: {type(model).__name__} has no parameter {plain(name)}.{near}")


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    norm_decay: float,
    skip_1d: bool,
    skip: Sequence[str] = (),
    layer_decay: float = 1.0,
    head_lr_mult: float = 1.0,
) -> list[dict[str, Any]]:
    """Group trainable parameters by kind of weight decay (none, batch norm, default) and learning-rate scale.

    Args:
        model: The model.
        weight_decay: Default weight decay.
        norm_decay: Weight decay of batch-norm parameters.
        skip_1d: No weight decay for one-dimensional parameters and those of the model's `no_weight_decay`.
        skip: Names of additional parameters without weight decay.
        layer_decay: Ratio of the learning rates of a layer and the one above it, see :func:`lr_scales`.
        head_lr_mult: Learning rate multiplier of the head.

    Returns:
        Groups with ``params``, ``param_names``, ``weight_decay`` and ``lr_scale``.
    """
    if skip_1d:
        skip = (*skip, *(model.no_weight_decay() if isinstance(model, Network) else ()))
    batch_norm = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    scales = lr_scales(model, layer_decay, head_lr_mult)
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for name, parameter in named_network(model).named_parameters():
        if not parameter.requires_grad:
            continue
        one_dimensional = parameter.ndim <= 1 or name.endswith(".bias")
        if (skip_1d and one_dimensional) or any(is_named(name, pattern) for pattern in skip):
            rule, decay = "no decay", 0.0
        elif id(parameter) in batch_norm:
            rule, decay = "batch norm", norm_decay
        else:
            rule, decay = "default", weight_decay
        new: dict[str, Any] = {"params": [], "param_names": [], "weight_decay": decay, "lr_scale": scales[name]}
        group = groups.setdefault((rule, scales[name]), new)
        group["params"].append(parameter)
        group["param_names"].append(name)
    return list(groups.values())


def lr_scales(model: nn.Module, layer_decay: float, head_lr_mult: float) -> dict[str, float]:
    """Return the learning rate scale of each parameter, by name.

    The top layer (last norm and head) has the full learning rate, each layer below it `layer_decay` times that of the
    layer above (BEiT, arXiv 2106.08254; SlowFast's SOLVER.LAYER_DECAY). Layers are numbered as in
    :func:`parameter_depths`. The head's learning rate is multiplied by `head_lr_mult`.
    """
    heads = head_names(model)
    depths = parameter_depths(model)
    top = max((depth.layer for depth in depths.values()), default=0)
    return {
        name: layer_decay ** (top - depth.layer) * (head_lr_mult if is_head(name, heads) else 1.0)
        for name, depth in depths.items()
    }
