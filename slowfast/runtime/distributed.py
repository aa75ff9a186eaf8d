"""Processes of one run: who am I, how many are we, and the few things that we exchange.

torchrun starts the processes; gradients go over NCCL (GPUs) or Gloo (CPUs), everything else over Gloo.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from slowfast.errors import ToldElsewhere, UserError

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    gloo: Any = None  # a group on CPUs, for small things that must not make a GPU wait

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the screen."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        tensor = torch.tensor([int(flag)])
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.gloo)
        return bool(tensor.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over processes of a small tensor; on the CPU, in float64."""
        values = values.detach().double().cpu()
        if self.size > 1:
            dist.all_reduce(values, group=self.gloo)
            values /= self.size
        return values

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """The items of all processes in the order of their ranks; the same list everywhere."""
        if self.size == 1:
            return list(items)
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, list(items), group=self.gloo)
        return [item for part in parts for item in part]

    def agreed(self, work: Callable[[], Result]) -> Result:
        """What work that every process does gives. Where it raises UserError in any, all raise; the main one tells."""
        if self.size == 1:
            return work()
        result, mistakes = [], []
        try:
            result.append(work())
        except UserError as error:
            mistakes.append(str(error))
        if mistakes := self.gather(mistakes):
            raise (UserError if self.is_main else ToldElsewhere)("; ".join(dict.fromkeys(mistakes)))
        return result[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier(group=self.gloo)


def world_size() -> int:
    """The number of processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the first process of the run, known before `join`."""
    return int(os.environ.get("RANK", "0")) == 0


def usable_gpus(num_gpus: int) -> int:
    """How many of the wanted GPUs this machine has."""
    return min(num_gpus, torch.cuda.device_count()) if torch.cuda.is_available() else 0


def join(num_gpus: int) -> World:
    """Join the other processes of the run.

    Under torchrun each process takes the GPU of its local rank, also where num_gpus (unless 0) is less than there are
    processes; without enough GPUs all work on the CPU.
    """
    size, rank = world_size(), int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = usable_gpus(max(num_gpus, local_size) if num_gpus else 0)
    on_gpu = gpus > 0 and gpus >= local_size
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if size == 1:
        return World(device=device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    gloo = dist.new_group(backend="gloo") if on_gpu else dist.group.WORLD
    return World(rank=rank, size=size, device=device, gloo=gloo)


def leave(world: World) -> None:
    """Take leave of the other processes at the end of a run that went well."""
    if world.size > 1:
        dist.destroy_process_group()


def gpus_to_launch_on(num_gpus: int) -> int:
    """How many processes are still to be started, one a GPU; 0 where one is enough or torchrun did it."""
    gpus = usable_gpus(num_gpus)
    return 0 if "RANK" in os.environ or gpus < 2 else gpus


def launch_on(gpus: int) -> None:
    """Replace this process by one per GPU."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"]
    os.execv(sys.executable, [*torchrun, *sys.argv])
