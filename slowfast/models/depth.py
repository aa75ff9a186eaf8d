"""Depth of a network's parameters, for layer-wise learning rates and for freezing stages.

The blocks of a network are numbered from 1, input first. Layer 0 is everything before the first block: the patch,
position or event embedding. A parameter between two blocks, such as a patch embedding between two stages, belongs to
the layer of the block after it. The norm and head after the last block are the top layer. (For plain transformers
this is the rule of BEiT, MAE and SlowFast's MViT.)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from slowfast.models.protocol import Network, named_network


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


def block_names(name: str, blocks: nn.Module) -> list[str]:
    """Return the names of the members of a list of blocks.

    Args:
        name: Name of the list in its network.
        blocks: The list.
    """
    return [f"{name}.{member}" for member, _ in blocks.named_children()]


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
