"""Two machines on one: network namespaces joined by a virtual cable, each with its own host name."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, environment

PORT = 29500
# Each node has its own hosts file and host name.
_ENTER = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'


def missing() -> str:
    """Return why namespaces cannot be created here; empty if they can."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "mount", "hostname"))):
        return "network namespaces need root and iproute2"
    name = f"probe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode == 0:
        entered = ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "true"]
        made = subprocess.run(entered, capture_output=True, text=True)
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made.stderr.strip() and f"network namespaces are not allowed: {made.stderr.strip()}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Node:
    """Machine.

    Attributes:
        space: Name of its network namespace.
        name: Host name.
        address: Address in the network of the two.
        hosts: Its /etc/hosts.
    """

    space: str
    name: str
    address: str
    hosts: Path

    def start(self, line: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command in its own session; its output is appended to a file."""
        enter = ["ip", "netns", "exec", self.space, "unshare", "--mount", "--uts"]
        with log.open("ab") as file:
            return subprocess.Popen(
                [*enter, "sh", "-ec", _ENTER, "sh", self.name, str(self.hosts), *line],
                env={**environment(), **(env or {})},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def train(self, settings: Sequence[object], log: Path, *options: str) -> subprocess.Popen[bytes]:
        """Start torchrun for one process of two nodes, as docs/MULTI_NODE.md says; node1 hosts the rendezvous."""
        line = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", *options]
        line += ["--rdzv_backend=c10d", f"--rdzv_endpoint=node1:{PORT}"]
        script = [str(ROOT / "tools" / "run_net.py"), "--cfg", str(ROOT / "tests" / "empty.yaml")]
        return self.start([*line, *script, *map(str, settings)], log, {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"})

    def processes(self) -> list[int]:
        """Return the numbers of all processes of the machine."""
        done = subprocess.run(["ip", "netns", "pids", self.space], check=True, capture_output=True, text=True)
        return [int(number) for number in done.stdout.split()]

    def cut_power(self) -> None:
        """Kill all processes of the machine."""
        for number in self.processes():
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def link(self, up: bool) -> None:
        """Connect or disconnect the cable."""
        _ip("-n", self.space, "link", "set", "eth0", "up" if up else "down")


@contextmanager
def two_nodes(folder: Path, loopback: bool = False) -> Iterator[tuple[Node, Node]]:
    """Make two machines, and remove them with all of their processes.

    Args:
        folder: Folder for their name service.
        loopback: Whether the name of a machine resolves to a loopback address on itself, as on Debian.
    """
    nodes = []
    for number in (1, 2):
        name, address = f"node{number}", f"10.77.0.{number}"
        hosts = folder / f"hosts{number}"
        own = f"127.0.1.1 {name}\n" if loopback else ""
        hosts.write_text(f"127.0.0.1 localhost\n{own}10.77.0.1 node1\n10.77.0.2 node2\n")
        nodes.append(Node(f"n{os.getpid()}-{number}", name, address, hosts))
    try:
        for node in nodes:
            _ip("netns", "add", node.space)
            _ip("-n", node.space, "link", "set", "lo", "up")
        first, second = nodes
        _ip("-n", first.space, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second.space)
        for node in nodes:
            _ip("-n", node.space, "addr", "add", f"{node.address}/24", "dev", "eth0")
            node.link(up=True)
        yield first, second
    finally:
        for node in nodes:
            if Path("/run/netns", node.space).exists():
                node.cut_power()
                _ip("netns", "del", node.space)
