"""Multi-node runs: network interface, checks that code, config and folders agree, and lost nodes.

A node is a machine of the run. torchrun starts its processes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

import slowfast
from slowfast.errors import ConfigError, UserError

if TYPE_CHECKING:
    from slowfast.utils.distributed import World

_INTERFACE = "GLOO_SOCKET_IFNAME"
# Seconds for a new file to appear on the other nodes: network file systems keep folder listings for a while.
_SHARED_WITHIN = 30.0
# Seconds until torchrun counts a silent node as lost, by default, and one more of its heartbeats.
_LOST_AFTER = 20.0
_POLL = 0.1
_MISSING = "unset"
_SHOWN = 5  # differing keys listed in a message


def choose_interface(host: str) -> None:
    """Have Gloo use the network interface that leads to a host, unless GLOO_SOCKET_IFNAME is set.

    By default, Gloo uses the address that the host name of this machine resolves to. On some systems /etc/hosts maps it
    to a loopback address, which no other machine can connect to. If the host is this machine, the interface that is up
    is used if there is only one; with several, the user has to choose.

    Args:
        host: Name or address of the machine of rank 0 (MASTER_ADDR).
    """
    if os.environ.get(_INTERFACE) or not _is_loopback(_resolve(socket.gethostname())):
        return
    own = _address_towards(host)
    stats = psutil.net_if_stats()
    names = [
        name
        for name, found in psutil.net_if_addrs().items()
        if name in stats
        and stats[name].isup
        and any(
            one.family == socket.AF_INET and not _is_loopback(one.address) and own in (one.address, None)
            for one in found
        )
    ]
    if len(names) == 1:
        os.environ[_INTERFACE] = names[0]


def _address_towards(host: str) -> str | None:
    """Return the address of this machine in the network of a host; None if the host is this machine or unknown."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            own = str(probe.getsockname()[0])
    except OSError:
        return None  # connecting to the others reports it
    return None if _is_loopback(own) else own


def _resolve(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError:
        return ""


def _is_loopback(address: str) -> bool:
    return not address or address.startswith("127.") or address == "::1"


def code_version() -> str:
    """Return the versions of this package and of PyTorch, and a digest of the source files of the package."""
    folder, digest = Path(slowfast.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return f"slowfast {slowfast.__version__} ({digest.hexdigest()[:12]}), PyTorch {torch.__version__}"


def check_same_code(world: World) -> None:
    """Check that all nodes run the same code.

    Raises:
        UserError: In every process, if one of them runs other code than rank 0.
    """
    if world.nodes == 1:
        return
    found = world.gather([(code_version(), _place(world))])
    other = next((one for one in found if one[0] != found[0][0]), None)
    if other is not None:
        text = f"{other[1]} runs {other[0]}, but {found[0][1]} runs {found[0][0]}. Install the same code on all nodes"
        world.run_or_raise_everywhere(lambda: _refuse(UserError, text))


def check_same_settings(world: World, what: str, settings: Mapping[str, object], advice: str) -> None:
    """Check that settings have the same values in all processes.

    Args:
        world: Processes of the run.
        what: Description of the settings, for the message.
        settings: Value by name; its text is compared and must not contain secrets.
        advice: Advice that ends the message.

    Raises:
        ConfigError: In every process, with the first one that differs from rank 0.
    """
    if world.size == 1:
        return
    texts = {name: str(value) for name, value in settings.items()}
    digests = world.gather([hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()])
    if len(set(digests)) == 1:
        return
    (first, place), *others = world.gather([(texts, _place(world))])
    other, elsewhere = next(one for one in others if one[0] != first)
    names = [name for name in sorted({*first, *other}) if first.get(name) != other.get(name)]
    shown = "; ".join(
        f"{name} is {other.get(name, _MISSING)} on {elsewhere}, {first.get(name, _MISSING)} on {place}"
        for name in names[:_SHOWN]
    )
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    world.run_or_raise_everywhere(
        lambda: _refuse(ConfigError, f"The processes differ in {what}: {shown}{more}. {advice}")
    )


def _refuse(kind: type[UserError], text: str) -> None:
    raise kind(text)


def _place(world: World) -> str:
    return f"{socket.gethostname()} (rank {world.rank})"


def check_shared_folder(world: World, folder: Path) -> None:
    """Check that OUTPUT_DIR is the same folder on all nodes; it must exist on that of rank 0.

    Every process reads the checkpoints in it, and after a restart another node may be the one that writes them.

    Raises:
        ConfigError: In every process, if a node does not see a file that rank 0 creates.
    """
    if world.nodes == 1:
        return
    [name, *_] = world.gather([f".shared-{uuid.uuid4().hex}"])
    mark = folder / name
    try:
        world.run_or_raise_everywhere(lambda: _create(mark) if world.is_main else None)
        world.run_or_raise_everywhere(lambda: _wait_for(mark, folder))
    finally:
        if world.is_main:
            mark.unlink(missing_ok=True)


def _create(mark: Path) -> None:
    try:
        mark.touch()
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {mark.parent} is not writable: {error.strerror}") from error


def _wait_for(mark: Path, folder: Path) -> None:
    until = time.monotonic() + _SHARED_WITHIN
    while not mark.exists():
        if time.monotonic() >= until:
            raise ConfigError(
                f"OUTPUT_DIR {folder} is not the folder that rank 0 writes to. Choose a folder on a disk that all "
                "nodes share"
            )
        time.sleep(_POLL)


def wait_for_restart(stopped: Callable[[], bool], notify: Callable[[], None]) -> None:
    """After a node was lost, wait until torchrun has noticed it, if torchrun will restart this process.

    torchrun does not notice a lost node at once. A process that exits before is restarted together with the lost one,
    which never happens.

    Args:
        stopped: Returns whether this process should exit now: torchrun ends it when the node is back.
        notify: Called before the wait.
    """
    left = _number("TORCHELASTIC_MAX_RESTARTS") - _number("TORCHELASTIC_RESTART_COUNT")
    if left <= 0 or _number("GROUP_WORLD_SIZE") < 2:
        return
    notify()
    until = time.monotonic() + _LOST_AFTER
    while time.monotonic() < until and not stopped():
        time.sleep(_POLL)


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0
