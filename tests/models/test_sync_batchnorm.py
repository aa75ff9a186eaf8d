"""SyncBatchNorm of two Gloo processes against BatchNorm of their joint batch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from slowfast.models.sync_batchnorm import SyncBatchNorm, SyncBatchNorm2d

SPLIT = (2, 3)  # clips of each process: unequal on purpose
MOMENTA = (0.1, None)
# Synchronized kind -> torch's, and the dimensions of its input.
KINDS = {SyncBatchNorm: (nn.BatchNorm3d, 5), SyncBatchNorm2d: (nn.BatchNorm2d, 4)}
CASES = [(kind, momentum) for kind in KINDS for momentum in MOMENTA]


def joint_batch(dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    shape = (sum(SPLIT), 4, 2, 3, 3)[:dims]
    return 50 + torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)


def run(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two training passes and one in evaluation mode, so that the running statistics are compared, too."""
    x = x.clone().requires_grad_()
    layer.train()
    layer(2 * x.detach())
    out = layer(x)
    (out * g).sum().backward()
    state = {key: value.detach().clone() for key, value in layer.state_dict().items()}
    grads = {"grad": x.grad, "grad_weight": layer.weight.grad, "grad_bias": layer.bias.grad}
    return state | grads | {"out": out.detach(), "eval": layer.eval()(x).detach()}


def make(kind: type[nn.Module], momentum: float | None) -> nn.Module:
    layer = kind(4, momentum=momentum)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1, 2, 3]))
        layer.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    return layer


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = []
    for kind, momentum in CASES:
        x, g = (part.split(SPLIT)[rank] for part in joint_batch(KINDS[kind][1]))
        results.append(run(make(kind, momentum), x, g))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_the_joint_batch(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    both = zip(*(torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)), strict=True)
    for (kind, momentum), found in zip(CASES, both, strict=True):
        plain, dims = KINDS[kind]
        want = run(make(plain, momentum), *joint_batch(dims))
        close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
        for key in ("out", "eval", "grad"):
            close(torch.cat([f[key] for f in found]), want[key])
        for key in ("grad_weight", "grad_bias"):  # of each process's own clips; DDP joins them
            close(found[0][key] + found[1][key], want[key])
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            close(found[0][key], want[key])
            close(found[1][key], want[key])


@pytest.mark.parametrize("kind", KINDS)
def test_alone_it_is_batch_norm(kind: type[nn.Module]) -> None:
    plain, dims = KINDS[kind]
    x, g = joint_batch(dims)
    want, found = run(make(plain, 0.1), x, g), run(make(kind, 0.1), x, g)
    assert want.keys() == found.keys() and all(torch.equal(want[key], found[key]) for key in want)
