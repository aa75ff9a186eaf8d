"""Disturb trainings on two machines, and compare the final weights with those of an undisturbed run.

    python tests/fuzz/nodes.py                  # all of DISTURBANCES; needs root and iproute2, some minutes
    python tests/fuzz/nodes.py cable killed     # some of them

The machines are network namespaces of this one, see tests/two_nodes.py. Each disturbance comes when the third epoch has
begun. A run that it ends is started again with the same command. The exit status is 1 if a run hangs, ends without its
cause, or ends with other weights.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil
import torch
from tabulate import tabulate

from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.engine.checkpoints import find_last, read_checkpoint
from tests.conftest import tiny_settings
from tests.two_nodes import Node, missing, two_nodes

TIMEOUT = 40  # DIST_TIMEOUT, seconds
TIME_LIMIT = 420.0  # seconds of a run
STEPS = 5  # after which the disturbance comes
Processes = list[subprocess.Popen[bytes]]


class Trial:
    """Training on two nodes.

    Args:
        folder: Folder of the trial.
        data: Folder of the dataset.
        nodes: The machines.
    """

    def __init__(self, folder: Path, data: Path, nodes: tuple[Node, Node]) -> None:
        self.folder, self.nodes, self.output = folder, nodes, folder / "out"
        self.settings = [
            *tiny_settings(data, self.output),
            *("DATA_LOADER.NUM_WORKERS", 0, "DIST_TIMEOUT", TIMEOUT, "SOLVER.MAX_EPOCH", 12, "TRAIN.EVAL_PERIOD", 6),
            *("TEST.ENABLE", False),
        ]
        self.processes: Processes = []
        self.starts = 0

    def start(self, number: int, *more: object) -> None:
        """Start one node, 0 or 1, with further settings."""
        options = () if self.folder.name in WITHOUT_RESTARTS else ("--max_restarts=3",)
        process = self.nodes[number].train([*self.settings, *more], self.log(number), *options)
        self.processes[number : number + 1] = [process]

    def log(self, number: int) -> Path:
        """Return the output of a node."""
        return self.folder / f"node{number + 1}.log"

    def wait_for_steps(self) -> None:
        """Wait until the first epochs are over."""
        log, until = self.output / "metrics.jsonl", time.monotonic() + TIME_LIMIT
        while not log.exists() or log.read_text().count('"train"') < STEPS:
            if time.monotonic() > until or any(process.poll() is not None for process in self.processes):
                raise RuntimeError(f"the training did not begin: {self.log(0).read_text()[-2000:]}")
            time.sleep(0.05)

    def wait(self) -> list[int]:
        """Return the exit statuses of both nodes; RuntimeError if they do not end."""
        until = time.monotonic() + TIME_LIMIT
        try:
            return [process.wait(max(until - time.monotonic(), 0.1)) for process in self.processes]
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no end within {TIME_LIMIT:g} s") from None

    def wait_for_causes(self) -> list[int]:
        """Wait until both training processes have ended with an error, then end torchrun, which waits for minutes."""
        until = time.monotonic() + TIME_LIMIT
        while not all("\nerror: " in self.log(number).read_text() for number in (0, 1)):
            if time.monotonic() > until:
                raise RuntimeError(f"no error within {TIME_LIMIT:g} s")
            time.sleep(0.1)
        for node in self.nodes:
            node.cut_power()
        return self.wait()

    def causes(self) -> list[str]:
        """Return the error lines of both nodes."""
        lines = [line for number in (0, 1) for line in self.log(number).read_text().splitlines()]
        return list(dict.fromkeys(line for line in lines if line.startswith("error: ")))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the final weights."""
        path = find_last(self.output)
        assert path is not None and path.name == "checkpoint_epoch_00012.pyth", path
        found: dict[str, torch.Tensor] = read_checkpoint(path)["model_state"]
        return found


def killed(trial: Trial) -> None:
    """The second node loses power and comes back."""
    trial.nodes[1].cut_power()
    time.sleep(2)
    trial.start(1)


def host_killed(trial: Trial) -> None:
    """The node that hosts the rendezvous loses power."""
    trial.nodes[0].cut_power()


def rank_killed(trial: Trial) -> None:
    """A training process is killed; torchrun keeps running."""
    for number in trial.nodes[1].processes():
        process = psutil.Process(number)
        if any(word.endswith("run_net.py") for word in process.cmdline()) and "RANK" in process.environ():
            process.kill()
            return


def slow(trial: Trial) -> None:
    """The second node computes only a third of the time."""
    until = time.monotonic() + 15
    while time.monotonic() < until:
        for number, seconds in ((signal.SIGSTOP, 0.4), (signal.SIGCONT, 0.2)):
            for process in trial.nodes[1].processes():
                os.kill(process, number)
            time.sleep(seconds)


def cable(trial: Trial) -> None:
    """The cable is cut, and restored only when the run has ended; without restarts, which would wait for the node."""
    trial.nodes[1].link(up=False)


def cable_for_long(trial: Trial) -> None:
    """The cable is restored after the run has noticed; torchrun restarts it."""
    trial.nodes[1].link(up=False)
    time.sleep(TIMEOUT + 20)
    trial.nodes[1].link(up=True)


def cable_briefly(trial: Trial) -> None:
    """The cable is cut for five seconds."""
    trial.nodes[1].link(up=False)
    time.sleep(5)
    trial.nodes[1].link(up=True)


def preempted(trial: Trial) -> None:
    """The second node gets SIGTERM, as from a scheduler."""
    trial.processes[1].send_signal(signal.SIGTERM)


DISTURBANCES: dict[str, Callable[[Trial], None]] = {
    one.__name__: one
    for one in (killed, host_killed, rank_killed, slow, cable, cable_briefly, cable_for_long, preempted)
}


def loopback_names(trial: Trial) -> None:
    """Nothing, on machines whose names resolve to loopback addresses on themselves."""


DISTURBANCES["loopback_names"] = loopback_names
# Settings of the second node for which the run must be rejected.
REFUSED = {
    "other_config": ["SOLVER.BASE_LR", 0.5],
    "other_index": ["DATA.PATH_TO_DATA_DIR", "{folder}/less"],
    "own_output": ["OUTPUT_DIR", "{folder}/elsewhere"],
    "no_data": ["DATA.PATH_TO_DATA_DIR", "{folder}/nowhere"],
}


WITHOUT_RESTARTS = {"cable", *REFUSED}


def disturb(trial: Trial, disturbance: Callable[[Trial], None] | None) -> list[object]:
    """Run a trial to its end; return how it ended first, after how many seconds, and the causes."""
    for number in (0, 1):
        trial.start(number)
    began = time.monotonic()
    if disturbance is not None:
        trial.wait_for_steps()
        began = time.monotonic()
        disturbance(trial)
    statuses = trial.wait_for_causes() if disturbance is cable else trial.wait()
    seconds, again = time.monotonic() - began, 0
    while not (trial.output / "checkpoints" / "checkpoint_epoch_00012.pyth").exists():
        again += 1
        trial.nodes[1].link(up=True)
        for number in (0, 1):
            trial.start(number)
        if any(trial.wait()) or again > 2:
            raise RuntimeError(f"not resumed: {trial.log(0).read_text()[-2000:]}")
    return [statuses, f"{seconds:.0f} s", again, "; ".join(trial.causes())]


def refuse(trial: Trial, settings: Sequence[object]) -> list[object]:
    """Start a trial whose second node has other settings."""
    less = trial.folder / "less"
    less.mkdir()
    data = Path(str(trial.settings[1]))
    for split in ("train", "val", "test"):
        lines = (data / f"{split}.csv").read_text().splitlines(keepends=True)
        (less / f"{split}.csv").write_text("".join(lines[:-1] if split == "val" else lines))
    began = time.monotonic()
    trial.start(0)
    trial.start(1, *(str(word).format(folder=trial.folder) for word in settings))
    statuses = trial.wait()
    if 0 in statuses or len(trial.causes()) != 1:
        raise RuntimeError(f"{statuses}: {trial.causes()}")
    return [statuses, f"{time.monotonic() - began:.0f} s", 0, trial.causes()[0]]


def main(names: Sequence[str]) -> int:
    """Run the disturbances; return the exit status."""
    if reason := missing():
        print(reason)
        return 1
    wanted: dict[str, torch.Tensor] = {}
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="nodes-") as place:
        data = Path(place, "data")
        build(data, DemoSettings(format="kinetics", train=16, val=8, test=8, size=32, frames=24), workers=1)
        for name in ("undisturbed", *(names or (*DISTURBANCES, *REFUSED))):
            folder = Path(place, name)
            folder.mkdir()
            with two_nodes(folder, loopback=name == "loopback_names") as nodes:
                trial = Trial(folder, data, nodes)
                try:
                    row = refuse(trial, REFUSED[name]) if name in REFUSED else disturb(trial, DISTURBANCES.get(name))
                    if name not in REFUSED:
                        weights = trial.weights()
                        wanted = wanted or weights
                        row.append("same" if all(torch.equal(weights[key], wanted[key]) for key in wanted) else "OTHER")
                        failed |= row[-1] == "OTHER"
                except RuntimeError as error:
                    failed, row = True, [str(error)]
            rows.append([name, *row])
            print(rows[-1], flush=True)
    print(tabulate(rows, ["disturbance", "exit statuses", "until", "started again", "causes", "weights"]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
