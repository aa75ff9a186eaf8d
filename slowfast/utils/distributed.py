"""Processes of one run: who am I, how many are we, and the few things that we exchange.

torchrun starts the processes; gradients go over NCCL (GPUs) or Gloo (CPUs), everything else over Gloo.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from slowfast.errors import ToldElsewhere, UserError, system_reason
from slowfast.utils.launch import LaunchedAs, environment_number

Result = TypeVar("Result")
# Seconds that a process waits for the others: one may draw figures or write a checkpoint meanwhile.
RESPONSE_TIMEOUT = 600.0
_NAME_TIMEOUT = 30.0  # seconds that MASTER_ADDR may be unknown
_POLL = 0.1


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


def _check_meeting_point(size: int, timeout: float) -> None:
    if not os.environ.get("MASTER_ADDR"):
        raise UserError(f"WORLD_SIZE is {size} but MASTER_ADDR is not set. Unset WORLD_SIZE, or start with torchrun")
    if not os.environ.get("MASTER_PORT"):
        raise UserError(f"WORLD_SIZE is {size} but MASTER_PORT is not set. Unset WORLD_SIZE, or start with torchrun")
    if not 1 <= environment_number("MASTER_PORT", 0) <= 65535:
        raise UserError(f"MASTER_PORT is {os.environ['MASTER_PORT']!r}; it must be a number from 1 to 65535")
    _wait_for_name(os.environ["MASTER_ADDR"], min(timeout, _NAME_TIMEOUT))


def _wait_for_name(host: str, seconds: float) -> None:
    """Wait until a host is known: a cluster may start its name service and its processes together."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() >= until:
                raise UserError(
                    f"MASTER_ADDR is {host!r}, which is not a known host: {system_reason(error)}"
                ) from error
        time.sleep(1)


def usable_gpus(num_gpus: int) -> int:
    """How many of the wanted GPUs this machine has."""
    return min(num_gpus, torch.cuda.device_count()) if torch.cuda.is_available() else 0


def response_timeout(loader_timeout: float) -> float:
    """Return how long processes wait for each other: longer than a loader may wait for its data (seconds)."""
    return max(RESPONSE_TIMEOUT, 2 * loader_timeout)


def join(num_gpus: int, timeout: float | None = None) -> World:
    """Join the other processes of the run.

    Under torchrun each process takes the GPU of its local rank, also where num_gpus (unless 0) is less than there are
    processes; without enough GPUs all work on the CPU.

    Args:
        num_gpus: NUM_GPUS.
        timeout: Seconds that a process waits for the others, at the start and in every exchange; None is
            RESPONSE_TIMEOUT.

    Raises:
        UserError: If the environment makes no sense, or the processes cannot meet.
    """
    launched = LaunchedAs.from_environment()
    gpus = usable_gpus(max(num_gpus, launched.local_size) if num_gpus else 0)
    on_gpu = gpus > 0 and gpus >= launched.local_size
    device = torch.device("cuda", launched.local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if launched.size == 1:
        return World(device=device)
    timeout = RESPONSE_TIMEOUT if timeout is None else timeout
    _check_meeting_point(launched.size, timeout)
    limit = timedelta(seconds=timeout)
    try:
        store = _meet(limit)
        backend = "nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=launched.rank, world_size=launched.size, timeout=limit)
        gloo = dist.new_group(backend="gloo", timeout=limit) if on_gpu else dist.group.WORLD
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(_why_not_met(error, launched, timeout)) from error
    return World(rank=launched.rank, size=launched.size, device=device, gloo=gloo)


def _meet(limit: timedelta) -> dist.Store:
    """Wait until all processes are there, in a thread: a signal must find the main one able to handle it."""
    found: list[dist.Store | BaseException] = []

    def wait() -> None:
        try:
            found.append(next(iter(dist.rendezvous("env://", timeout=limit)))[0])
        except BaseException as error:  # raised in the main thread
            found.append(error)

    thread = threading.Thread(target=wait, name="meeting", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL)
    [store] = found
    if isinstance(store, BaseException):
        raise store
    return dist.PrefixStore("slowfast", store)


def _why_not_met(error: Exception, launched: LaunchedAs, timeout: float) -> str:
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    text = " ".join(str(error).split())
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return (
            f"MASTER_PORT {os.environ.get('MASTER_PORT')} is in use by another process. Choose a free port, or start "
            "with torchrun --standalone"
        )
    if "imed out" in text or "imeout" in text:
        return (
            f"WORLD_SIZE is {launched.size} but not all processes met at {where} within {timeout:g} s. Start all of "
            "them, or unset RANK and WORLD_SIZE"
        )
    return f"The {launched.size} processes cannot meet at MASTER_ADDR:MASTER_PORT {where}: {text[:300]}"


class NoResponse(RuntimeError):
    """Another process of the run did not answer in time, or has ended."""


@contextmanager
def other_processes_named(world: World, timeout: float) -> Iterator[None]:
    """Turn errors of the exchange between processes into NoResponse, which says what to look for."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if world.size == 1 or isinstance(error, NoResponse):
            raise
        if "imed out" in text or "imeout" in text:
            what = f"did not respond for {timeout:g} s (at least twice DATA_LOADER.TIMEOUT): it is stopped or hangs"
        elif any(words in text for words in ("onnection closed", "onnection reset", "roken pipe", "emote process")):
            what = "has ended; its own error is above"
        else:
            raise
        raise NoResponse(f"rank {world.rank}: another of the {world.size} processes {what}") from error


def leave(world: World) -> None:
    """Take leave of the other processes at the end of a run that went well."""
    if world.size > 1:
        dist.destroy_process_group()


def gpus_to_launch_on(num_gpus: int) -> int:
    """How many processes are still to be started, one a GPU; 0 where one is enough or torchrun did it."""
    gpus = usable_gpus(num_gpus)
    return 0 if os.environ.get("RANK") or gpus < 2 else gpus
