"""Multi-node runs: required agreement, and the network interface between nodes."""

from __future__ import annotations

import os
import socket
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from slowfast.errors import ConfigError
from slowfast.utils import nodes
from slowfast.utils.distributed import World
from tests.conftest import ROOT, command, environment, tiny_settings
from tests.warm_start import run_script

HERE = socket.gethostname()


# In the process of rank 1: the code that it runs before.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("differs", "message"),
    [
        (
            "sys.argv += ['SOLVER.BASE_LR', '0.5', 'DATA_LOADER.PIN_MEMORY', 'False', 'LOG_PERIOD', '7']",
            f"The processes differ in their configs: LOG_PERIOD is 7 on {HERE} (rank 1), 1 on {HERE} (rank 0); "
            f"SOLVER.BASE_LR is 0.5 on {HERE} (rank 1), 0.001 on {HERE} (rank 0). Start the same command on all nodes",
        ),
        (
            "nodes.code_version = lambda: 'slowfast 0.0.1'",
            f"{HERE} (rank 1) runs slowfast 0.0.1, but {HERE} (rank 0) runs slowfast ",
        ),
        (
            "sys.argv += ['OUTPUT_DIR', sys.argv[-1] + '-own']",
            f"{HERE}: OUTPUT_DIR FOLDER-own is not the folder that rank 0 writes to. Choose a folder on a disk that ",
        ),
        (
            "sys.argv += ['DATA.PATH_TO_DATA_DIR', sys.argv[-1] + '-data']",
            "The processes differ in the number of videos: validation is 1",
        ),
        ("sys.argv += ['DATA.PATH_TO_DATA_DIR', '/nowhere']", f"{HERE}: /nowhere"),
        ("sys.argv += ['SOLVER.BASE_LR', 'x']", "overrides: SOLVER.BASE_LR: expected a number"),
    ],
    ids=["config", "code", "folder", "index", "no index", "own error"],
)
def test_nodes_must_agree(kinetics_folder: Path, tmp_path: Path, differs: str, message: str) -> None:
    output = tmp_path / "out"
    Path(f"{output}-data").mkdir()
    for split in ("train", "val", "test"):
        text = (kinetics_folder / f"{split}.csv").read_text()
        Path(f"{output}-data", f"{split}.csv").write_text(text.splitlines()[0] + "\n" if split == "val" else text)
    script = tmp_path / "node.py"
    script.write_text(
        "import os, runpy, sys\n"
        "os.environ.update(LOCAL_RANK='0', LOCAL_WORLD_SIZE='1')\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from slowfast.utils import nodes\n"
        "nodes._SHARED_WITHIN = 2.0\n"
        f"if os.environ['RANK'] == '1':\n    {differs}\n"
        f"runpy.run_path({str(ROOT / 'tools' / 'run_net.py')!r}, run_name='__main__')\n"
    )
    wait = "3" if "'x'" in differs else "60"  # for the other node, which does not come
    words = [*command(tiny_settings(kinetics_folder, output))[2:], "DIST_TIMEOUT", wait, "OUTPUT_DIR", str(output)]
    done = run_script(script, words, environment(), timeout=240, processes=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if "'x'" in differs:  # the other node waits for it
        assert "not all processes connected" in errors.pop(0)
    assert done.returncode == 2 and len(errors) == 1, done.stderr
    assert errors[0].startswith(f"error: {message.replace('FOLDER', str(output))}")
    assert "Traceback" not in done.stderr and not output.exists()


def test_one_node_has_nothing_to_compare() -> None:
    nodes.check_same_code(World())
    nodes.check_same_settings(World(), "x", {}, "")
    nodes.check_shared_folder(World(), Path("/nowhere"))


def test_the_processes_of_one_node_are_compared() -> None:
    class Two(World):
        """Rank 0 of two processes; the other one found fewer videos."""

        def gather(self, values: list[Any]) -> list[Any]:
            return [*values, "another digest" if isinstance(values[0], str) else ({"train": "3"}, "there (rank 1)")]

        def run_or_raise_everywhere(self, work: Callable[[], Any]) -> Any:
            return work()

    with pytest.raises(
        ConfigError, match=r"number of videos: train is 3 on there \(rank 1\), 4 on .* \(rank 0\). Same"
    ):
        nodes.check_same_settings(Two(size=2), "the number of videos", {"train": 4}, "Same")


def test_the_interface_is_the_one_that_leads_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name of the machine resolves to a loopback address, as on Debian."""
    address = namedtuple("address", "family address")
    interfaces = {"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"], "eth1": ["10.1.0.1", "10.1.0.2"], "down": ["10.2.0.1"]}
    found = {name: [address(socket.AF_INET, one) for one in those] for name, those in interfaces.items()}
    up = {name: SimpleNamespace(isup=name != "down") for name in interfaces}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: up)
    resolved = {socket.gethostname(): "127.0.1.1"}
    monkeypatch.setattr(nodes, "_resolve", resolved.get)

    def chosen(towards: str | None, given: str = "") -> str:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)
        monkeypatch.setattr(nodes, "_address_towards", lambda host: towards)
        nodes.choose_interface("node1")
        return os.environ["GLOO_SOCKET_IFNAME"]

    assert (chosen("10.0.0.1"), chosen("10.1.0.2"), chosen("10.2.0.1")) == ("eth0", "eth1", "")
    assert chosen("10.0.0.1", given="eth1") == "eth1"
    assert chosen(None) == ""  # two are up
    del found["eth1"]
    assert chosen(None) == "eth0"
    resolved[socket.gethostname()] = "10.0.0.1"
    assert chosen("10.0.0.1") == ""  # Gloo finds it


def test_the_address_towards_a_host() -> None:
    assert nodes._address_towards("localhost") is None and nodes._address_towards("no.such.host.invalid") is None


@pytest.mark.parametrize(("count", "waits"), [("0", True), ("3", False)])
def test_a_restart_is_waited_for(monkeypatch: pytest.MonkeyPatch, count: str, waits: bool) -> None:
    told: list[int] = []
    monkeypatch.setattr(nodes, "_LOST_AFTER", 0.2)
    values = {"GROUP_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": count}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    asked: list[int] = []
    nodes.wait_for_restart(lambda: bool(asked.append(1)), lambda: told.append(1))
    assert (bool(told), bool(asked)) == (waits, waits)
    nodes.wait_for_restart(lambda: True, lambda: told.append(1))
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    before = len(told)
    nodes.wait_for_restart(lambda: False, lambda: told.append(1))
    assert len(told) == before
