"""Layers shared by the networks: initialization, norms, dropout and drop path by batch row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.linear import Linear
from slowfast.models.sync_batchnorm import SyncBatchNorm2d

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


@dataclass(frozen=True)
class BatchRows:
    """Clips of the whole batch, and the places of this process's clips among them."""

    total: int
    rows: tuple[int, ...]


_current: BatchRows | None = None


@contextmanager
def global_batch(total: int, rows: Sequence[int]) -> Iterator[None]:
    """While this is open, the local batch stands for these rows of a batch of `total` clips."""
    with batch_rows_as(BatchRows(total, tuple(rows))):
        yield


@contextmanager
def batch_rows_as(value: BatchRows | None) -> Iterator[None]:
    """Set what `current_batch_rows` gives, and restore it at the end."""
    global _current
    before, _current = _current, value
    try:
        yield
    finally:
        _current = before


def current_batch_rows() -> BatchRows | None:
    """What the innermost open context says; None when the local batch is the whole one."""
    return _current


def draw_uniform(batch: int, *shape: int) -> torch.Tensor:
    """Numbers in [0, 1) for each clip of the local batch, float32 (batch, *shape) on the CPU.

    Drawn for the whole batch from torch's default generator, so that seeding it alike in all processes gives
    every clip the numbers it would get in a single process, on a CPU and on a GPU alike.
    """
    where = _current
    if where is None:
        return torch.rand(batch, *shape)
    if len(where.rows) != batch:
        raise ValueError(f"a batch of {batch} clips, but global_batch was given {len(where.rows)} rows")
    return torch.rand(where.total, *shape)[list(where.rows)]


class Dropout(nn.Module):
    """In training, zero a share `rate` of the values and scale the others by 1 / (1 - rate): (B, ...) -> same.

    Unlike torch's it draws by `batch_rows.draw_uniform`, so that each clip gets the numbers a single process gives it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must be in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = (draw_uniform(*x.shape) >= self.rate) / (1 - self.rate)
        return x * kept.to(x.device, x.dtype, non_blocking=True)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on the last axis: (..., width) -> (..., out)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1.gelu(x))


def add_residual(x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """x + branch. Without gradients it is written over `branch`, which must be a layer's fresh output."""
    if torch.is_grad_enabled() or branch.dtype != x.dtype:
        return x + branch
    return branch.add_(x)  # memory that is in the cache already


class DropPath(nn.Module):
    """Residual sum whose branch is left out for a share `rate` of the clips in training (arXiv 1603.09382).

    A clip's branch is either 0 or scaled by 1 / (1 - rate), drawn by `batch_rows.draw_uniform`. May overwrite `branch`.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"DropPath: rate must be in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return add_residual(x, branch)
        kept = (draw_uniform(len(branch)) >= self.rate) / (1 - self.rate)  # B
        scale = kept.to(branch.device, branch.dtype, non_blocking=True)
        return torch.addcmul(x, branch, scale.view(-1, *[1] * (branch.dim() - 1)))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their mean over the map (arXiv 1709.01507): (B, C, H, W) -> same."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc2(self.activation(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


BatchNorm2dType = type[nn.BatchNorm2d] | type[SyncBatchNorm2d]


def batch_norm_2d(synchronized: bool) -> BatchNorm2dType:
    """Return the class of batch norm for maps, with statistics of this process or of all of them."""
    return SyncBatchNorm2d if synchronized else nn.BatchNorm2d


Conv = nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d
Convolve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]  # of x, weight, bias


def conv_then_norm(convolve: Convolve, x: torch.Tensor, conv: Conv, norm: BatchNorm) -> torch.Tensor:
    """norm(convolve(x, conv's weight and bias)); as one convolution where the norm is fixed and no gradient wanted."""
    mean, var = norm.running_mean, norm.running_var
    if norm.training or torch.is_grad_enabled() or mean is None or var is None:
        return norm(convolve(x, conv.weight, conv.bias))
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -mean if conv.bias is None else conv.bias - mean
    bias = bias * scale if norm.bias is None else torch.addcmul(norm.bias, bias, scale)
    return convolve(x, conv.weight * scale.view(-1, *[1] * (conv.weight.dim() - 1)), bias)


def init_kaiming_normal(module: nn.Module) -> None:
    """Initialize 2D convolutions from Kaiming's normal distribution (fan out) for ReLU, and their biases with 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


_ALL_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def init_truncated_normal(
    module: nn.Module, std: float = 0.02, layers: tuple[type[nn.Module], ...] = _ALL_LAYERS
) -> None:
    """Initialize the weights of some layers from a normal distribution cut off at +-2, and their biases with 0.

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


def check_lengths(section: str, *, count: int | None = None, **lists: Sequence[float]) -> None:
    """Raise ConfigError unless all lists have one value per stage.

    Args:
        section: Section of the config whose keys the message names.
        count: Number of stages, for networks with a fixed one.
        lists: The values of each key.
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


def check_no_recomputation(cfg: ConfigNode) -> None:
    """Raise ConfigError where activations shall be recomputed in a network whose batch norm would count them twice."""
    if cfg.MODEL.ACT_CHECKPOINT:
        raise ConfigError(
            f"MODEL.ACT_CHECKPOINT: {cfg.MODEL.MODEL_NAME} does not support it, because its batch norm would count "
            "each batch twice. Set it to False"
        )
