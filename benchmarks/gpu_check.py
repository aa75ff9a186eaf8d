#!/usr/bin/env python3
"""Run the tests and benchmarks that need a GPU, most important first, within a time limit.

python benchmarks/gpu_check.py --out gpu_check --seconds 500
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.processes import Part, run_part, share_of_time
from benchmarks.gpu.report import DONE, FAILED, RESULTS, add_to_report, part_report, read_rows

# In the order in which they run.
PARTS = {
    part.name: part
    for part in (
        Part("machine", "Machine", 3, "machine:describe", with_table=False),
        Part("tests", "Tests marked gpu", 20, "marked_tests:run_marked", with_table=False),
        Part("morphmlp", "MorphMLP-S16 (on a CPU: the demo)", 13, "networks:measure_main"),
        Part("event_driven", "Event-driven inference of evMLP", 20, "event_driven:measure"),
        Part("ddp", "DistributedDataParallel in one process", 6, "ddp:measure"),
        Part("training", "End-to-end training", 12, "training:measure"),
        Part("networks", "All networks", 18, "networks:measure_all"),
        Part("compile", "torch.compile", 12, "networks:measure_compiled"),
    )
}
EPILOG = f"""\
parts, in their order: {", ".join(PARTS)}

Results are written to DIR as soon as they are available: {RESULTS} (one line per case), report.txt (the tables, also
printed) and errors.txt (tracebacks). Each part runs in its own process; cases that fail or run out of memory do not end
the others. Without a GPU everything runs on the CPU with small sizes. Exit status: 0, or 1 if a case failed.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--seconds", type=float, default=500.0, metavar="N", help="time limit of the whole check (default %(default)g)"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="run only these parts"
    )
    parser.add_argument("--run-part", choices=PARTS, help=argparse.SUPPRESS)  # used for the process of a part
    chosen = parser.parse_args(arguments)
    if not chosen.seconds > 0:
        parser.error(f"--seconds {chosen.seconds:g}: must be greater than 0")
    if chosen.run_part is None and (chosen.out / RESULTS).exists():
        parser.error(f"--out {chosen.out}: already contains results. Choose another folder")
    return chosen


def check(folder: Path, seconds: float, names: Sequence[str]) -> int:
    """Run parts one after another and report each as soon as it is done.

    Args:
        folder: Folder for the results, created here.
        seconds: Time limit of all parts together.
        names: Parts to run, in any order.

    Returns:
        0, or 1 if a case failed.
    """
    end = time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part for name, part in PARTS.items() if name in names]
    for place, part in enumerate(parts):
        start = time.monotonic()
        left = end - start
        run_part(folder, part, share_of_time(parts[place:], left), left, lambda p, s: _command(folder, p, s))
        _report(folder, part, time.monotonic() - start)
    return int(any(row["status"] == FAILED for row in read_rows(folder)))


def _report(folder: Path, part: Part, seconds: float) -> None:
    rows = read_rows(folder, part.name)
    summary = next((row.pop("summary") for row in rows if row["status"] == DONE and "summary" in row), None)
    if summary is not None:
        add_to_report(folder, summary)  # describes the machine, above its table
    add_to_report(folder, part_report(part.title, rows, seconds, part.with_table))


def _command(folder: Path, part: Part, seconds: float) -> list[str]:
    options = ["--out", str(folder), "--seconds", f"{max(seconds, 0.1):.1f}", "--run-part", part.name]
    return [sys.executable, str(Path(__file__).resolve()), *options]


def run_in_this_process(folder: Path, part: Part, seconds: float) -> int:
    """Run the cases of a part, on the GPU if there is one.

    Imports are late, so that a missing package ends only the parts that need it.
    """
    import torch

    from benchmarks.gpu.cases import Cases, DeviceLost, first_line

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    cases = Cases(folder, part.name, device, seconds)
    module, function = part.function.split(":")
    try:
        run: Callable[[Cases], None] = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)
        run(cases)
    except ModuleNotFoundError as error:
        cases.skip("all", f"needs the package {error.name}, which is not installed")
    except DeviceLost as error:
        print(f"{first_line(error)}. Resuming the part in a new process")
        return 1
    return 0


def main(arguments: Sequence[str]) -> int:
    """Check this machine, or run one part of the check, and return the exit status."""
    chosen = parse(arguments)
    if chosen.run_part is not None:
        return run_in_this_process(chosen.out, PARTS[chosen.run_part], chosen.seconds)
    return check(chosen.out.resolve(), chosen.seconds, chosen.parts)


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)  # raise, so that child processes are ended as well


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
