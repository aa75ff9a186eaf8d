"""Layers shared by the networks: dropout and stochastic depth, MLP, initialization, blocks with recomputed activations.

Activation checkpointing keeps the input of a block and recomputes the rest in the backward pass. Autograd never needs
the output of the last layer of what is recomputed. A block may therefore name its residual branches, to be kept and
recomputed one by one: one more tensor per block, and less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from slowfast.errors import ConfigError
from slowfast.models.linear import Linear

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class BatchRows:
    """Size of the global batch, and its rows that form the local batch."""

    total: int
    rows: tuple[int, ...]

    def of_frames(self, frames: int) -> BatchRows:
        """Return the rows of each clip's frames, for networks that take them as a batch of images."""
        rows = tuple(row * frames + t for row in self.rows for t in range(frames))
        return BatchRows(self.total * frames, rows)


class RowSampler:
    """Source of random numbers that do not depend on how the global batch is distributed over processes.

    All random layers of a network share one sampler, see `shared_sampler`.

    Attributes:
        batch_rows: Rows of the global batch that form the local batch; None if the local batch is the global one.
    """

    def __init__(self) -> None:
        self.batch_rows: BatchRows | None = None

    @contextmanager
    def using(self, batch_rows: BatchRows | None) -> Iterator[None]:
        """Set `batch_rows` inside the context."""
        before, self.batch_rows = self.batch_rows, batch_rows
        try:
            yield
        finally:
            self.batch_rows = before

    def uniform(self, batch: int, *shape: int) -> torch.Tensor:
        """Draw numbers in [0, 1) for each sample of the local batch: float32 (batch, *shape), on the CPU.

        Numbers are drawn for the global batch from torch's default generator: if all processes use the same seed,
        a sample gets the numbers that it gets in a single process, on the CPU and the GPU alike.
        """
        where = self.batch_rows
        if where is None:
            return torch.rand(batch, *shape)
        if len(where.rows) != batch:
            raise ValueError(f"the batch has {batch} samples, but global_batch was given {len(where.rows)} rows")
        return torch.rand(where.total, *shape)[list(where.rows)]


class RandomLayer(nn.Module):
    """Base class of modules that draw random numbers with a `RowSampler`."""

    def __init__(self) -> None:
        super().__init__()
        self.sampler = RowSampler()


def shared_sampler(model: nn.Module) -> RowSampler:
    """Return the sampler shared by all random layers of a model; the first call creates it."""
    layers = [module for module in model.modules() if isinstance(module, RandomLayer)]
    if not layers:
        return RowSampler()
    sampler = layers[0].sampler
    for layer in layers:
        layer.sampler = sampler
    return sampler


@contextmanager
def global_batch(model: nn.Module, total: int, rows: Sequence[int]) -> Iterator[None]:
    """Treat the batches of a model inside the context as these rows of a global batch of `total` samples."""
    with shared_sampler(model).using(BatchRows(total, tuple(rows))):
        yield


@contextmanager
def frames_as_batch(model: nn.Module, frames: int) -> Iterator[None]:
    """Treat the batches of a model inside the context as the frames of the clips of the batch outside."""
    sampler = shared_sampler(model)
    with sampler.using(sampler.batch_rows and sampler.batch_rows.of_frames(frames)):
        yield


class Dropout(RandomLayer):
    """Dropout that draws each sample's numbers independently of the number of processes: (B, ...) -> same.

    Args:
        rate: Fraction of the values zeroed in training; the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = (self.sampler.uniform(*x.shape) >= self.rate) / (1 - self.rate)
        return x * kept.to(x.device, x.dtype, non_blocking=True)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Mlp(nn.Module):
    """Linear, exact GELU and Linear on the last axis: (..., in_dim) -> (..., out_dim)."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(in_dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1.gelu(x))


def add_residual(x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """Return x + branch. Without gradients it overwrites `branch`, which must be the new output of a layer."""
    if torch.is_grad_enabled() or branch.dtype != x.dtype:
        return x + branch
    return branch.add_(x)  # `branch` is still in the CPU's cache


# DropPath skips the branch if at least one of this many samples is dropped.
_LEAST_DROPPED = 8


class DropPath(RandomLayer):
    """Residual connection with stochastic depth (arXiv 1603.09382): x, branch (B, ...) -> same. May overwrite `branch`.

    Args:
        rate: Fraction of the samples whose branch is dropped in training; other branches are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"DropPath: rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        return add_residual(x, branch) if self._is_plain else self._sum(x, branch, self._kept(x))

    def residual(self, x: torch.Tensor, branch: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return self(x, branch(x)); skip the branch for dropped samples if that saves time.

        Args:
            x: Input, (B, ...).
            branch: Function of some of the samples, which must neither depend on other samples of the batch nor draw
                random numbers.
        """
        if self._is_plain:
            return add_residual(x, branch(x))
        kept = self._kept(x)
        if torch.compiler.is_compiling():  # the graph must not depend on what is dropped
            return self._sum(x, branch(x), kept)
        dropped = len(kept) - int(kept.sum())  # the mask is on the CPU, so no GPU synchronization
        # With few dropped samples the copies cost more than is saved. Of no samples the branch gives zero gradients,
        # which distributed training and optimizers need; on GPUs not all operators support that.
        saves = dropped * _LEAST_DROPPED >= len(kept) and (dropped < len(kept) or x.device.type == "cpu")
        if not dropped or not saves:
            return self._sum(x, branch(x), kept)
        rows = kept.nonzero().flatten().to(x.device, non_blocking=True)
        computed = branch(x.index_select(0, rows))
        return x.index_add(0, rows, computed.to(x.dtype), alpha=1 / (1 - self.rate))

    @property
    def _is_plain(self) -> bool:
        return not self.training or self.rate == 0

    def _kept(self, x: torch.Tensor) -> torch.Tensor:
        """Draw which samples keep their branch: bool (B,), on the CPU."""
        return self.sampler.uniform(len(x)) >= self.rate

    def _sum(self, x: torch.Tensor, branch: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        scale = (kept / (1 - self.rate)).to(branch.device, branch.dtype, non_blocking=True)  # B
        return torch.addcmul(x, branch, scale.view(-1, *[1] * (branch.dim() - 1)))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their mean over the map (arXiv 1709.01507): (B, C, H, W) -> same."""

    def __init__(self, dim: int, hidden_dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1)
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc2(self.activation(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


def init_kaiming_normal(module: nn.Module) -> None:
    """Initialize 2D convolutions with Kaiming's normal distribution (fan out, ReLU) and their biases with 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


_ALL_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def init_truncated_normal(
    module: nn.Module, std: float = 0.02, layers: tuple[type[nn.Module], ...] = _ALL_LAYERS
) -> None:
    """Initialize the weights of some layers with a normal distribution truncated at +-2 and their biases with 0.

    Args:
        module: Network whose layers are initialized in place.
        std: Standard deviation.
        layers: Types of the layers to initialize; Linear layers and convolutions by default.
    """
    for layer in module.modules():
        if isinstance(layer, layers):
            assert isinstance(layer.weight, torch.Tensor)
            nn.init.trunc_normal_(layer.weight, std=std)
            if isinstance(layer.bias, torch.Tensor):
                nn.init.zeros_(layer.bias)


def check_lengths(section: str, lists: Mapping[str, Sequence[float]], count: int | None = None) -> None:
    """Raise ConfigError unless all lists have one value per stage.

    Args:
        section: Section of the config whose keys the message names.
        lists: Values of each key.
        count: Number of stages, for networks with a fixed one.
    """
    lengths = {key: len(values) for key, values in lists.items()}
    first, wanted = next(iter(lengths.items()))
    for key, n in lengths.items():
        if n == 0:
            raise ConfigError(f"{section}.{key} is empty. It needs one value per stage")
        if n != wanted:
            raise ConfigError(
                f"{section}.{first} has {wanted} values but {section}.{key} has {n}; both need one per stage"
            )
    for key, n in lengths.items():
        if count is not None and n != count:
            raise ConfigError(f"{section}.{key} has {n} values; it needs {count}, one per stage")


Part = Callable[[torch.Tensor], torch.Tensor]


class BlockOfParts(nn.Module):
    """Block composed of several functions that are recomputed one by one."""

    def parts(self) -> tuple[Part, ...]:
        """Return the functions that the block applies one after another."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts():
            x = part(x)
        return x


def run_blocks(blocks: Iterable[Part], x: torch.Tensor, recompute: bool | int) -> torch.Tensor:
    """Apply blocks one after another, some of them with activation checkpointing.

    Random numbers are the same when activations are recomputed, so gradients do not depend on `recompute`.

    Args:
        blocks: The blocks.
        x: Input of the first block.
        recompute: Number of blocks, from the first, whose activations are recomputed; True for all.
    """
    for index, block in enumerate(blocks):
        wanted = recompute is True or index < recompute
        x = _recomputed(block, x) if wanted and torch.is_grad_enabled() else block(x)
    return x


def _recomputed(block: Part, x: torch.Tensor) -> torch.Tensor:
    context = _recomputation_context(block)
    for part in block.parts() if isinstance(block, BlockOfParts) else (block,):
        x = checkpoint(part, x, use_reentrant=False, context_fn=context)
    return x


def _recomputation_context(
    block: Part,
) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """Return contexts for the forward pass and the recomputation, which draws for the same rows of the batch."""
    if not isinstance(block, nn.Module):
        return lambda: (nullcontext(), nullcontext())
    sampler = shared_sampler(block)
    rows = sampler.batch_rows  # the context of global_batch may have ended by the time of the backward pass
    return lambda: (nullcontext(), sampler.using(rows))


def block_names(name: str, blocks: nn.Module) -> list[str]:
    """Return the names of the members of a list of blocks, which is called `name` in its network."""
    return [f"{name}.{member}" for member, _ in blocks.named_children()]
