"""Launching one process per GPU, and the environment variables of torchrun. Imports no PyTorch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from slowfast.errors import UserError
from slowfast.utils.screen import show
from slowfast.utils.signals import STOP_SIGNALS, nothing_to_save

_POLL = 0.1  # seconds
_GRACE = 5.0  # seconds for the other processes to notice on their own that one has failed
_TERMINATION = 30.0  # seconds from SIGTERM to SIGKILL
_RUN_ID = "slowfast"


@dataclass(frozen=True)
class LaunchEnvironment:
    """Rank and number of processes as set by torchrun or :class:`Launcher`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> LaunchEnvironment:
        """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun sets them.

        Raises:
            UserError: If they are not numbers or contradict each other.
        """
        size = environment_number("WORLD_SIZE", 1, least=1)
        if size > 1 and not os.environ.get("RANK"):
            raise UserError(f"WORLD_SIZE is {size} but RANK is not set. Unset WORLD_SIZE, or start with torchrun")
        rank = environment_number("RANK", 0)
        if rank >= size:
            given = "WORLD_SIZE is not set" if not os.environ.get("WORLD_SIZE") else f"WORLD_SIZE is {size}"
            raise UserError(f"RANK is {rank} but {given}. Unset RANK, or start with torchrun")
        local_size = environment_number("LOCAL_WORLD_SIZE", 1, least=1)
        local_rank = environment_number("LOCAL_RANK", 0)
        if os.environ.get("LOCAL_WORLD_SIZE") and local_rank >= local_size:
            raise UserError(
                f"LOCAL_RANK is {local_rank} but LOCAL_WORLD_SIZE is {local_size}. Unset both, or start with torchrun"
            )
        return cls(rank, size, local_rank, local_size)


def environment_number(name: str, default: int, least: int = 0) -> int:
    """Read a number from an environment variable.

    Args:
        name: Name of the variable.
        default: Value if it is unset or empty.
        least: Smallest value.

    Raises:
        UserError: If it is not an integer of at least `least`.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise UserError(f"{name} is {text!r}; it must be a number from {least}. Unset it, or start with torchrun")
    return int(text)


def world_size() -> int:
    """Return the number of processes in the run; 1 without torchrun. Raises UserError like `LaunchEnvironment`."""
    return LaunchEnvironment.from_environment().size


def started_by_launcher() -> bool:
    """Return whether a :class:`Launcher` has started this process, not torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID") == _RUN_ID


def is_main_process() -> bool:
    """Return whether this is rank 0, before the process group exists; True if the environment is inconsistent."""
    try:
        return LaunchEnvironment.from_environment().rank == 0
    except UserError:
        return True


def is_first_of_node() -> bool:
    """Return whether this is the first process of its machine; True if the environment is inconsistent."""
    try:
        return LaunchEnvironment.from_environment().local_rank == 0
    except UserError:
        return True


class Launcher:
    """Launcher that runs a command in several processes of this machine, with torchrun's environment variables.

    SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are forwarded, so that the processes save a checkpoint and exit; a terminal
    sends SIGINT to the whole process group itself. When one process fails, the others are terminated.

    Args:
        count: Number of processes.
        command: Command line; by default the one of this process.
    """

    def __init__(self, count: int, command: list[str] | None = None) -> None:
        self.count = count
        self.command = [sys.executable, *sys.orig_argv[1:]] if command is None else command
        self._processes: list[subprocess.Popen[bytes]] = []
        self._received: signal.Signals | None = None

    def run(self) -> int:
        """Start the processes and wait for them.

        Returns:
            0 if all processes succeeded or were stopped by a signal, else the exit status of the first that failed.
        """
        import torch.distributed as dist  # imported late: reading the environment must not need PyTorch

        # The launcher serves the store on a port chosen by the system, so that no other program can take it in between.
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        with self._forwarding_signals():
            try:
                for rank in range(self.count):
                    environment = os.environ | self._environment(rank, store.port)
                    self._processes.append(subprocess.Popen(self.command, env=environment))
                if self._received is not None:  # received before all processes were started
                    self._send(self._received)
                return self._wait()
            finally:
                self._send(signal.SIGKILL)

    def _environment(self, rank: int, port: int) -> dict[str, str]:
        """Return the environment variables of one process, as torchrun sets them."""
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.count),
            "LOCAL_WORLD_SIZE": str(self.count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": _RUN_ID,
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 connects to the store, too
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }

    @contextmanager
    def _forwarding_signals(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGINT)}
        for number, handler in before.items():
            if (number, handler) != (signal.SIGHUP, signal.SIG_IGN):  # under nohup
                signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        if number in STOP_SIGNALS:
            self._send(number)

    def _send(self, number: int) -> None:
        for process in self._processes:
            process.send_signal(number)  # no effect on a process that has exited

    def _wait(self) -> int:
        """Wait until all processes exit; terminate the others after the first failure."""
        while (failed := self._first_failed()) is None:
            if self._have_ended(within=0.0):
                return 0
            time.sleep(_POLL)
        for seconds, number in ((_GRACE, signal.SIGTERM), (_TERMINATION, signal.SIGKILL)):
            if not self._have_ended(within=seconds):
                self._send(number)
        return self._status(failed)

    def _first_failed(self) -> int | None:
        return next((rank for rank, process in enumerate(self._processes) if process.poll()), None)

    def _have_ended(self, within: float) -> bool:
        until = time.monotonic() + within
        while any(process.poll() is None for process in self._processes):
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL)
        return True

    def _status(self, rank: int) -> int:
        """Return the exit status for a failed process; report the signal that killed it."""
        code = self._processes[rank].returncode
        if code > 0:
            return code
        if self._received is not None and code == -self._received:  # while Python was starting up
            show(nothing_to_save(self._received.name))
            return 0
        show(f"error: rank {rank} was killed by {signal.Signals(-code).name}", error=True)
        return 1
