"""SyncBatchNorm of two Gloo processes against BatchNorm of their joint batch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from slowfast.models.sync_batchnorm import SyncBatchNorm

SPLIT = (2, 3)  # clips of each process: unequal on purpose
MOMENTA = (0.1, None)


def joint_batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return 50 + torch.randn(sum(SPLIT), 4, 2, 3, 3, generator=rng), torch.randn(sum(SPLIT), 4, 2, 3, 3, generator=rng)


def run(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two training passes and one evaluation, so that the running statistics are seen too."""
    x = x.clone().requires_grad_()
    layer.train()
    layer(2 * x.detach())
    out = layer(x)
    (out * g).sum().backward()
    state = {key: value.detach().clone() for key, value in layer.state_dict().items()}
    grads = {"grad": x.grad, "grad_weight": layer.weight.grad, "grad_bias": layer.bias.grad}
    return state | grads | {"out": out.detach(), "eval": layer.eval()(x).detach()}


def make(kind: type[nn.BatchNorm3d], momentum: float | None) -> nn.BatchNorm3d:
    layer = kind(4, momentum=momentum)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1, 2, 3]))
        layer.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    return layer


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, g = (part.split(SPLIT)[rank] for part in joint_batch())
    torch.save([run(make(SyncBatchNorm, momentum), x, g) for momentum in MOMENTA], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_the_joint_batch(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    both = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    for momentum, found in zip(MOMENTA, both, strict=True):
        want = run(make(nn.BatchNorm3d, momentum), *joint_batch())
        close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
        for key in ("out", "eval", "grad"):
            close(torch.cat([f[key] for f in found]), want[key])
        for key in ("grad_weight", "grad_bias"):  # of each process's own clips; DDP joins them
            close(found[0][key] + found[1][key], want[key])
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            close(found[0][key], want[key])
            close(found[1][key], want[key])


def test_alone_it_is_batch_norm() -> None:
    x, g = joint_batch()
    want, found = run(make(nn.BatchNorm3d, 0.1), x, g), run(make(SyncBatchNorm, 0.1), x, g)
    assert want.keys() == found.keys() and all(torch.equal(want[key], found[key]) for key in want)
