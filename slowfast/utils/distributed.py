"""Distributed runs: setup, teardown and collective operations on small values.

Gradients are reduced over NCCL on GPUs and over Gloo on CPUs, everything else over Gloo.
"""

from __future__ import annotations

import gc
import os
import re
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

from slowfast.errors import LostProcessError, ReportedByRankZero, UserError, system_reason
from slowfast.utils.launch import LaunchEnvironment, environment_number
from slowfast.utils.nodes import choose_interface

Result = TypeVar("Result")
# Seconds that a process waits for the others: rank 0 may be drawing plots or writing a checkpoint.
RESPONSE_TIMEOUT = 600.0
_HOST_TIMEOUT = 30.0  # seconds until MASTER_ADDR must resolve
_POLL = 0.1


@dataclass(frozen=True)
class World:
    """Process group of a run, seen from one of its processes.

    Attributes:
        rank: Rank of this process.
        size: Number of processes.
        device: Device of this process.
        gloo: Process group on the CPU, for small values that must not synchronize a GPU.
        nodes: Number of machines.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    gloo: Any = None
    nodes: int = 1

    @property
    def is_main(self) -> bool:
        """True in the process that writes files and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in any process."""
        if self.size == 1:
            return flag
        tensor = torch.tensor([int(flag)])
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.gloo)
        return bool(tensor.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of a small tensor over all processes, in float64 on the CPU."""
        values = values.detach().double().cpu()
        if self.size > 1:
            dist.all_reduce(values, group=self.gloo)
            values /= self.size
        return values

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """Return the concatenated items of all processes in rank order, the same list in each process."""
        if self.size == 1:
            return list(items)
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        with _without_gc():
            dist.all_gather_object(parts, list(items), group=self.gloo)
        return [item for part in parts for item in part]

    def gather_to_main(self, items: Sequence[Any]) -> list[Any]:
        """Return the concatenated items of all processes in rank order in rank 0, nothing in the others."""
        if self.size == 1:
            return list(items)
        parts: list[list[Any]] | None = [[] for _ in range(self.size)] if self.is_main else None
        with _without_gc():
            dist.gather_object(list(items), parts, dst=0, group=self.gloo)
        return [item for part in parts or () for item in part]

    def from_main(self, value: Result) -> Result:
        """Return the value of rank 0 in every process."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0, group=self.gloo)
        return values[0]

    def run_or_raise_everywhere(self, work: Callable[[], Result]) -> Result:
        """Run a function in every process and return its result; a UserError in any process is raised in all.

        Args:
            work: Function that all processes call.

        Raises:
            UserError: In rank 0, with the messages of all processes.
            ReportedByRankZero: In the other processes.
        """
        if self.size == 1:
            return work()
        result, messages = [], []
        try:
            result.append(work())
        except UserError as error:
            messages.append((socket.gethostname(), str(error)))
        if messages := self.gather(messages):
            raise (UserError if self.is_main else ReportedByRankZero)(self._joined(messages))
        return result[0]

    def _joined(self, messages: Sequence[tuple[str, str]]) -> str:
        """Return the distinct messages, with host names if only some processes of a multi-node run have one."""
        texts = dict.fromkeys(text for _, text in messages)
        if self.nodes > 1 and len(messages) < self.size:
            hosts = {text: dict.fromkeys(host for host, one in messages if one == text) for text in texts}
            return "; ".join(f"{', '.join(hosts[text])}: {text}" for text in texts)
        return "; ".join(texts)

    def barrier(self) -> None:
        """Block until all processes get here."""
        if self.size > 1:
            dist.barrier(group=self.gloo)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Suspend the garbage collector, which scans all objects repeatedly while many are unpickled."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_rendezvous(size: int, timeout: float) -> None:
    if not os.environ.get("MASTER_ADDR"):
        raise UserError(f"WORLD_SIZE is {size} but MASTER_ADDR is not set. Unset WORLD_SIZE, or start with torchrun")
    if not os.environ.get("MASTER_PORT"):
        raise UserError(f"WORLD_SIZE is {size} but MASTER_PORT is not set. Unset WORLD_SIZE, or start with torchrun")
    if not 1 <= environment_number("MASTER_PORT", 0) <= 65535:
        raise UserError(f"MASTER_PORT is {os.environ['MASTER_PORT']!r}; it must be a number from 1 to 65535")
    _wait_for_host(os.environ["MASTER_ADDR"], min(timeout, _HOST_TIMEOUT))


def _wait_for_host(host: str, seconds: float) -> None:
    """Wait until a host name resolves: a cluster may start its name service and the processes at the same time."""
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
    """Return how many of `num_gpus` GPUs are available."""
    return min(num_gpus, torch.cuda.device_count()) if torch.cuda.is_available() else 0


def response_timeout(dist_timeout: float, loader_timeout: float) -> float:
    """Return the timeout (seconds) of exchanges between processes.

    Args:
        dist_timeout: DIST_TIMEOUT; 0 for RESPONSE_TIMEOUT, or longer if a loader may wait longer for its data.
        loader_timeout: DATA_LOADER.TIMEOUT.
    """
    return dist_timeout or max(RESPONSE_TIMEOUT, 2 * loader_timeout)


def init_distributed(num_gpus: int, timeout: float | None = None) -> World:
    """Initialize the process group of the run.

    Each process takes the GPU of its local rank, even if `num_gpus` is smaller than the number of processes; with
    `num_gpus` 0 or too few GPUs all processes run on the CPU.

    Args:
        num_gpus: NUM_GPUS.
        timeout: Seconds to wait for the other processes, at the start and in every exchange. Defaults to
            RESPONSE_TIMEOUT.

    Raises:
        UserError: If the environment variables are inconsistent or the processes cannot connect.
    """
    launched = LaunchEnvironment.from_environment()
    gpus = usable_gpus(max(num_gpus, launched.local_size) if num_gpus else 0)
    on_gpu = gpus > 0 and gpus >= launched.local_size
    device = torch.device("cuda", launched.local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if launched.size == 1:
        return World(device=device)
    timeout = RESPONSE_TIMEOUT if timeout is None else timeout
    _check_rendezvous(launched.size, timeout)
    nodes = -(-launched.size // launched.local_size)
    if nodes > 1:
        choose_interface(os.environ["MASTER_ADDR"])
    limit = timedelta(seconds=timeout)
    try:
        store = _connect_store(limit)
        backend = "nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=launched.rank, world_size=launched.size, timeout=limit)
        gloo = dist.new_group(backend="gloo", timeout=limit) if on_gpu else dist.group.WORLD
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(_connection_error(error, launched, timeout)) from error
    return World(launched.rank, launched.size, device, gloo, nodes)


def _connect_store(limit: timedelta) -> dist.Store:
    """Connect to the store in a thread, so that the main thread can handle signals meanwhile."""
    found: list[dist.Store | BaseException] = []

    def wait() -> None:
        try:
            found.append(next(iter(dist.rendezvous("env://", timeout=limit)))[0])
        except BaseException as error:  # re-raised in the main thread
            found.append(error)

    thread = threading.Thread(target=wait, name="rendezvous", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL)
    [store] = found
    if isinstance(store, BaseException):
        raise store
    return dist.PrefixStore("slowfast", store)


def _connection_error(error: Exception, launched: LaunchEnvironment, timeout: float) -> str:
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    text = " ".join(str(error).split())
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return (
            f"MASTER_PORT {os.environ.get('MASTER_PORT')} is in use by another process. Choose a free port, or start "
            "with torchrun --standalone"
        )
    if "imed out" in text or "imeout" in text:
        return (
            f"WORLD_SIZE is {launched.size} but not all processes connected to {where} within {timeout:g} s. Start "
            "all of them, or unset RANK and WORLD_SIZE"
        )
    return f"The {launched.size} processes cannot connect to MASTER_ADDR:MASTER_PORT {where}: {text[:300]}"


# Address of the other end in an error of Gloo.
_PEER = re.compile(r"\[([0-9a-fA-F.:]+)\]:\d+")


@contextmanager
def explain_lost_processes(world: World, timeout: float) -> Iterator[None]:
    """Turn errors of collective operations into LostProcessError, which names the likely cause."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if world.size == 1 or isinstance(error, LostProcessError):
            raise
        peer = _PEER.search(text) if world.nodes > 1 else None
        who = f"another of the {world.size} processes" + (f" (at {peer[1]})" if peer else "")
        if "imed out" in text or "imeout" in text:
            cause = "it is suspended or hangs" + (", or the network is interrupted" if world.nodes > 1 else "")
            what = f"did not respond for {timeout:g} s (DIST_TIMEOUT): {cause}"
        elif any(words in text for words in ("onnection closed", "onnection reset", "roken pipe", "emote process")):
            what = "exited; see its own error " + ("in the output of its node" if world.nodes > 1 else "above")
        else:
            raise
        raise LostProcessError(f"rank {world.rank}: {who} {what}") from error


def shut_down_distributed(world: World) -> None:
    """Destroy the process group at the end of a successful run, after which `world` cannot be used."""
    if world.size > 1:
        dist.destroy_process_group()
        # The last reference: without it Gloo's threads end. One that still runs when Python ends may abort the process.
        object.__setattr__(world, "gloo", None)


def processes_to_launch(num_gpus: int, wanted: int = 0) -> int:
    """Return how many processes to start; 0 if one is enough or they have been started.

    Args:
        num_gpus: NUM_GPUS, with one process for each.
        wanted: Number of processes that the user wants; 0 for one per GPU.
    """
    count = wanted or usable_gpus(num_gpus)
    return 0 if os.environ.get("RANK") or count < 2 else count
