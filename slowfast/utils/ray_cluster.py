"""Parallel work on the nodes of a Ray cluster; parts that are lost with a node run again on another one."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, TypeVar

from slowfast import __version__
from slowfast.errors import UserError, system_reason
from slowfast.utils.imports import import_extra, import_user_modules, imported_modules
from slowfast.utils.logging import get_logger
from slowfast.utils.signals import STOP_SIGNALS
from slowfast.utils.text import plain

Part = TypeVar("Part")
Result = TypeVar("Result")

LOCAL, RAY = ENGINES = ("local", "ray")  # processes of this machine, or the nodes of a cluster
ADDRESS = "RAY_ADDRESS"
_RETRIES = 3  # runs of a part after its node was lost
_POLL = 0.5  # seconds
_AHEAD = 2  # parts in the queue of the cluster for each that can run


class RayCluster:
    """Connection to a Ray cluster; use `connect`.

    Args:
        ray: The package.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    @classmethod
    @contextmanager
    def connect(cls) -> Iterator[RayCluster]:
        """Connect to the cluster at RAY_ADDRESS, else to one on this machine, which is started if there is none.

        Raises:
            UserError: If the package is missing, there is no cluster at the address, or one of its nodes does not have
                this version of slowfast.
        """
        ray = import_extra("ray", "ray", "ENGINE ray", "set ENGINE local")
        try:
            _initialize(ray)
            cluster = cls(ray)
            cluster._check_nodes()
            nodes = [node for node in _call(ray.nodes) if node["Alive"]]
            get_logger().info(f"Ray: {len(nodes)} node(s), {cluster.slots(1, 0)} CPUs")
            yield cluster
        finally:
            _call(ray.shutdown)

    def slots(self, cpus: int, gpus: int) -> int:
        """Return the number of parts that can run at the same time, at least 1.

        Args:
            cpus: CPUs of a part.
            gpus: GPUs of a part.
        """
        resources = _call(self._ray.cluster_resources)
        slots = int(resources.get("CPU", 0)) // cpus
        return max(min(slots, int(resources.get("GPU", 0)) // gpus) if gpus else slots, 1)

    def map(
        self,
        function: Callable[[Part], Result],
        parts: Sequence[Part],
        cpus: int = 1,
        gpus: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Result]]:
        """Yield the position and the result of each part, in order of completion.

        An exception of the function is raised here. If the work ends early, disconnecting from the cluster ends the
        parts that still run. They are not canceled: a part that ends at the same moment would abort this process
        (`Check failed: it != submissible_tasks_.end()` in Ray 2.60).

        Args:
            function: Picklable function of a part, which may be run again.
            parts: Picklable parts.
            cpus: CPUs that a part needs.
            gpus: GPUs that a part needs.
            stopped: Whether to end early; parts that still run are lost.

        Raises:
            UserError: If a part was lost several times in a row.
        """
        ray, modules, folder = self._ray, imported_modules(), os.getcwd()

        def run(part: Part) -> Result:
            _enter(folder)
            import_user_modules(modules)
            return function(part)

        task = ray.remote(max_retries=_RETRIES, num_cpus=cpus, num_gpus=gpus)(run)
        waiting, running = iter(enumerate(parts)), dict[Any, int]()
        limit = _AHEAD * self.slots(cpus, gpus)
        while True:
            while len(running) < limit and (following := next(waiting, None)) is not None:
                running[_call(task.remote, following[1])] = following[0]
            if not running:
                return
            ended, _ = _call(ray.wait, list(running), timeout=_POLL)
            if stopped():
                return
            for done in ended:
                yield running.pop(done), self._result(done)

    def _result(self, done: Any) -> Any:
        errors = import_module("ray.exceptions")
        try:
            return _call(self._ray.get, done)
        except errors.RayTaskError as error:
            raise error.cause from error
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        ) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"Ray: a part was lost {_RETRIES + 1} times ({reason[:200]}). Check the memory of the nodes, then run "
                "this again"
            ) from error

    def _check_nodes(self) -> None:
        """Raise UserError unless all nodes have this version of slowfast."""
        ray = self._ray
        strategies = import_module("ray.util.scheduling_strategies")

        # Functions in functions are sent to the nodes by value, so that a node without the package can run this one.
        def found_version() -> str:
            try:
                return str(import_module("slowfast").__version__)
            except ImportError as error:
                return f"no version ({error})"

        task = ray.remote(num_cpus=0)(found_version)
        for node in _call(ray.nodes):
            if not node["Alive"]:
                continue
            strategy = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            found = _call(task.options(scheduling_strategy=strategy).remote)
            while not _call(ray.wait, [found], timeout=_POLL)[0]:
                pass
            version = _call(ray.get, found)
            if version != __version__:
                raise UserError(
                    f"Ray: node {node['NodeManagerHostname']} has {plain(version)} of slowfast, not {__version__}. "
                    "Install the same version on all nodes"
                )


def _enter(folder: str) -> None:
    """Make relative paths those of the command; UserError if this node does not see its files."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"Ray: node {socket.gethostname()} has no folder {plain(folder)} ({system_reason(error)}). All nodes must "
            "see the same files at the same paths"
        ) from error


def _initialize(ray: Any) -> None:
    """Connect to a cluster or start one on this machine."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get(ADDRESS)
    with _deferred_signals():
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError as error:
            if address:
                raise UserError(
                    f"Ray: no cluster at {ADDRESS} {plain(address)}. Start it with `ray start --head`, or unset "
                    f"{ADDRESS}"
                ) from error
            ray.init(include_dashboard=False, **quiet)


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function of Ray and return its result; signals act after it."""
    with _deferred_signals():
        return function(*args, **options)


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Defer Ctrl-C and the signals that stop a run until the end of the block; a second one acts immediately.

    If the handler of a signal raises an exception at some points of ray.init and ray.shutdown, they never return; other
    functions raise SystemError instead (seen with Ray 2.60). ray.init also replaces the handler of SIGTERM by one that
    exits with status 15.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    numbers = (signal.SIGINT, *STOP_SIGNALS) if threading.current_thread() is threading.main_thread() else ()
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not None}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, receive)
    try:
        yield
    except SystemExit as error:
        if error.code != signal.SIGTERM:
            raise
        received.append(signal.SIGTERM)
    finally:
        restore()
        if received:
            signal.raise_signal(received[0])
