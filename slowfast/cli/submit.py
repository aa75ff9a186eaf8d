"""`slowfast submit`: run trainings and tests as Slurm jobs, using submitit."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slowfast.cli.command import DONE, FAILED, CommandParser, exit_status, integer
from slowfast.cli.setup import load_config
from slowfast.cli.train import RUN, TEST, TRAIN, parse
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError, system_reason
from slowfast.utils.imports import import_extra
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import plain
from slowfast.utils.text_files import from_json, to_json

COMMANDS = {"train": TRAIN, "test": TEST, "run": RUN}
LOGS, JOBS = "slurm", "jobs.jsonl"  # folder in OUTPUT_DIR, and the list of its jobs
SLURM, LOCAL = "slurm", "local"
_POLL = 0.5  # seconds
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?")
_PARAMETER = re.compile(r"([a-z][a-z0-9-]*)=(.+)", re.DOTALL)


class Task:
    """Process of a job that runs `slowfast COMMAND` as one rank.

    submitit pickles it, and calls it in every task of the job.

    Args:
        words: Command line after `slowfast`.
        grace: Seconds to save a checkpoint in after a signal.
    """

    def __init__(self, words: Sequence[str], grace: float) -> None:
        self.words, self.grace = list(words), grace
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the command; CalledProcessError if it fails."""
        line = [sys.executable, "-m", "slowfast", *self.words]
        # Signals to the task's process group must not reach the command; `checkpoint` sends its own.
        self._process = subprocess.Popen(line, env=self._environment(), start_new_session=True)
        if status := self._process.wait():
            raise subprocess.CalledProcessError(status, line)

    @staticmethod
    def _environment() -> dict[str, str]:
        import submitit
        from submitit.helpers import TorchDistributedEnvironment

        job = submitit.JobEnvironment()
        if job.num_tasks > 1:
            # Each process takes the GPU of its local rank by itself.
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        # Makes the command exit with this process and ignore repeated signals, as under torchrun.
        return {**os.environ, "TORCHELASTIC_RUN_ID": job.job_id}

    def checkpoint(self) -> Any:
        """Save a checkpoint and return the job to requeue; submitit calls it before a job is pre-empted."""
        import submitit

        if self._process is not None and not _has_ended(self._process.pid):
            self._process.send_signal(signal.SIGTERM)
            until = time.monotonic() + self.grace
            while not _has_ended(self._process.pid):
                if time.monotonic() > until:
                    show(f"No checkpoint within {self.grace:g} s. The job is resumed from the one before", error=True)
                    break
                time.sleep(_POLL)
        return submitit.helpers.DelayedSubmission(Task(self.words, self.grace))


def _has_ended(process: int) -> bool:
    """Return whether a child process has ended, also in a signal handler that interrupts `Popen.wait`."""
    try:
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def parser() -> CommandParser:
    """Return the parser of the command line."""
    text = (
        "Submit a training or a test as a Slurm job, which is requeued when it is pre-empted.\n\n"
        "  slowfast submit --nodes 4 --gpus 8 --partition gpu --time 2-00:00:00 -- train --cfg K400/K400_MLP_S16x4 \\\n"
        "      OUTPUT_DIR /shared/k400 DATA.PATH_TO_DATA_DIR data_list/k400\n"
        "  slowfast submit --status /shared/k400\n\n"
        f"Logs are in OUTPUT_DIR/{LOGS}. Needs the slurm extra."
    )
    usage = "%(prog)s [options] -- train|test|run --cfg FILE [--import MODULE] [KEY VALUE ...]"
    made = CommandParser("slowfast submit", text, usage, imports=False)
    made.add_argument("--nodes", type=integer(1, 10_000), default=1, metavar="N", help="machines (default: 1)")
    made.add_argument("--gpus", type=integer(0, 64), default=0, metavar="N", help="GPUs, and processes, per node")
    made.add_argument("--processes", type=integer(1, 256), metavar="N", help="processes per node without GPUs")
    made.add_argument("--cpus", type=integer(1, 1024), metavar="N", help="CPU cores per process")
    made.add_argument("--mem", type=integer(1, 100_000), metavar="GB", help="memory per node")
    made.add_argument("--time", type=minutes, default=24 * 60, metavar="TIME", help="[DAYS-]HH:MM:SS or minutes (24 h)")
    made.add_argument("--partition", metavar="NAME", help="partition of the cluster")
    made.add_argument("--account", metavar="NAME", help="account")
    made.add_argument("--name", default="slowfast", metavar="NAME", help="name of the job (default: slowfast)")
    made.add_argument(
        "--slurm", type=parameter, action="append", default=[], metavar="KEY=VALUE", help="additional option of sbatch"
    )
    made.add_argument("--requeues", type=integer(0, 1000), default=100, metavar="N", help="restarts after --time (100)")
    made.add_argument(
        "--grace", type=integer(5, 3600), default=120, metavar="S", help="seconds for saving a checkpoint (120)"
    )
    made.add_argument("--local", action="store_true", help="run on this machine instead, to try the command")
    made.add_argument("--wait", action="store_true", help="print the state of the job until it has ended")
    made.add_argument("--status", type=Path, metavar="FOLDER", help="show the jobs of an OUTPUT_DIR and their logs")
    made.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def minutes(text: str) -> int:
    """Convert a time limit of Slurm to minutes."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{plain(text)} is not a time limit such as 90, 12:00:00 or 2-00:00:00")
    days, first, second, third = (int(part or 0) for part in found.groups())
    whole = first if found[3] is None and found[1] is None else 60 * first + second + (third > 0)
    if found[3] is not None and found[4] is None and found[1] is None:
        whole = first + (second > 0)  # MM:SS
    if not 1 <= (total := 24 * 60 * days + whole) <= 10**6:
        raise ArgumentTypeError(f"{plain(text)} is not between one minute and two years")
    return total


def parameter(text: str) -> tuple[str, str]:
    """Split KEY=VALUE."""
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{plain(text)} is not KEY=VALUE, such as qos=high")
    return found[1], found[2]


def main(arguments: Sequence[str]) -> int:
    """Submit a job, or show those of a folder; return the exit status."""
    return exit_status(lambda: _submit(arguments))


def _submit(arguments: Sequence[str]) -> int:
    chosen = parser().parse(arguments)
    import_extra("submitit", "slurm", "slowfast submit", "use examples/slurm.sbatch")
    words = [word for place, word in enumerate(chosen.words) if (place, word) != (0, "--")]
    if chosen.status is not None:
        return _show_status(chosen.status)
    if not words or words[0] not in COMMANDS:
        given = f"got {plain(words[0])}" if words else "none is given"
        raise UserError(f"slowfast submit needs one of the commands {', '.join(COMMANDS)} after --; {given}")
    if chosen.gpus and chosen.processes:
        raise UserError("--processes is for nodes without GPUs: one process is started per GPU. Remove the option")
    per_node = chosen.gpus or chosen.processes or 1
    cfg = _load(words, chosen.nodes * per_node)
    if chosen.gpus and not cfg.NUM_GPUS:
        raise UserError(f"--gpus is {chosen.gpus} but NUM_GPUS is 0. Set NUM_GPUS {chosen.gpus}, or leave out --gpus")
    folder = Path(cfg.OUTPUT_DIR).absolute() / LOGS
    job = _started(chosen, per_node, folder, words)
    _note(folder, job, words, LOCAL if chosen.local else SLURM)
    show(f"Submitted job {job.job_id}: {chosen.nodes} x {per_node} processes")
    show(f"Logs: {job.paths.stdout}, {job.paths.stderr} (rank 0)")
    show(f"Status: slowfast submit --status {shlex.quote(cfg.OUTPUT_DIR)}")
    return _follow(job) if chosen.wait or chosen.local else DONE


def _load(words: Sequence[str], processes: int) -> ConfigNode:
    """Load and validate the config of the job, so that its errors are reported before it waits in the queue."""
    line = parse(words[1:], COMMANDS[words[0]])
    return load_config(line.cfg, line.overrides, processes, line.modules)


def _started(chosen: argparse.Namespace, per_node: int, folder: Path, words: Sequence[str]) -> Any:
    """Submit the job and return it. Raises UserError if the scheduler rejects it."""
    import submitit

    cluster = LOCAL if chosen.local else SLURM
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=chosen.requeues)
        executor.update_parameters(**_parameters(chosen, per_node))
        with submitit.helpers.clean_env():
            return executor.submit(Task(words, chosen.grace))
    except (RuntimeError, ValueError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"The job was not submitted: {' '.join(str(error).split())[:500]}") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {system_reason(error)}. Choose another OUTPUT_DIR") from error


def _parameters(chosen: argparse.Namespace, per_node: int) -> dict[str, Any]:
    """Return the parameters of submitit; None stands for the default of the cluster."""
    further = dict(chosen.slurm)
    if chosen.account is not None:
        further["account"] = chosen.account
    return {
        "name": chosen.name,
        "nodes": chosen.nodes,
        "tasks_per_node": per_node,
        "gpus_per_node": chosen.gpus or None,
        "cpus_per_task": chosen.cpus,
        "mem_gb": chosen.mem,
        "timeout_min": chosen.time,
        "slurm_partition": chosen.partition,
        "slurm_signal_delay_s": chosen.grace,
        "slurm_additional_parameters": {"requeue": True, **further},
    }


def _note(folder: Path, job: Any, words: Sequence[str], cluster: str) -> None:
    """Add a job to the list of the folder."""
    submitted = time.strftime("%Y-%m-%d %H:%M:%S")
    row = {"job": job.job_id, "cluster": cluster, "submitted": submitted, "command": shlex.join(words)}
    with (folder / JOBS).open("a", encoding="utf-8") as file:
        file.write(to_json(row) + "\n")


def _show_status(output: Path) -> int:
    rows = [[*row.values(), _state(output, row), _log(output, row)] for row in _jobs(output)]
    show_table(_table(rows))
    return DONE


def _table(rows: Sequence[Sequence[object]]) -> str:
    from tabulate import tabulate

    return str(tabulate(rows, ["job", "cluster", "submitted", "command", "state", "log"], disable_numparse=True))


def _jobs(output: Path) -> list[Mapping[str, str]]:
    """Return the jobs of an OUTPUT_DIR, oldest first. Raises UserError if there are none."""
    try:
        lines = (output / LOGS / JOBS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{plain(output)} has no jobs of slowfast submit: {system_reason(error)}") from error
    return [from_json(line) for line in lines]


def _state(output: Path, row: Mapping[str, str]) -> str:
    import submitit

    kind = submitit.LocalJob if row["cluster"] == LOCAL else submitit.SlurmJob
    return str(kind(folder=output / LOGS, job_id=row["job"]).state)


def _log(output: Path, row: Mapping[str, str]) -> Path:
    return output / LOGS / f"{row['job']}_0_log.out"


def _follow(job: Any) -> int:
    """Print the state of a job whenever it changes, until it has ended; return the exit status of the command."""
    import submitit

    state = ""
    while not job.done():
        if state != (state := job.state):
            show(f"job {job.job_id}: {state.lower()}")
        time.sleep(_POLL)
    try:
        ended = "finished" if job.exception() is None else "failed"
    except submitit.core.utils.UncompletedJobError:
        ended = "was stopped"
    show(f"job {job.job_id} {ended}. Logs: {job.paths.stdout}, {job.paths.stderr}")
    return DONE if ended == "finished" else FAILED
