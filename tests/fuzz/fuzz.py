"""Damage inputs of every kind and count failures.

    python tests/fuzz/fuzz.py                          # 2,000 inputs; the table below
    python tests/fuzz/fuzz.py --inputs 100 --kinds videos --seed 7
    python tests/fuzz/fuzz.py --signals 20             # stop runs at random moments as well (some 10 s each)

Each input is one seeded damage of one file, so a number of the table can be had again with the same seed. Inputs are
read in a child process, which may die or hang without ending this one. The exit status is 1 if anything but "used" and
"refused" was counted; what went wrong is listed, and its input is kept in --keep.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tabulate import tabulate

from tests.fuzz.kinds import KINDS, REFUSED, USED, WrongValue

CRASH, HANG, WRONG = "crashes", "hangs", "wrong values"
COLUMNS = (USED, REFUSED, CRASH, HANG, WRONG)
TIME_LIMIT = 60.0  # seconds of one input
MEMORY_LIMIT = 12 * 2**30  # bytes of address space of a child process


@dataclass
class Outcome:
    """Results of the inputs of one kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of inputs."""
        return sum(self.counts.values())

    def row(self) -> list[object]:
        """Return the row of the table."""
        return [self.kind, self.total, *(self.counts[column] for column in COLUMNS)]


def _serve(kind: str, pipe: Connection) -> None:
    """Child process: check inputs until the pipe closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the image libraries' own messages
    checker = KINDS[kind]()
    while True:
        try:
            path, original = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((checker.check(path, original), ""))
        except WrongValue as error:
            pipe.send((WRONG, str(error)))
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            pipe.send((CRASH, f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"))


class Child:
    """A process that checks inputs of one kind; replaced when it dies or hangs."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self.kind, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def check(self, path: Path, original: Path) -> tuple[str, str]:
        """Return the column in which an input is counted, and what went wrong."""
        self._pipe.send((path, original))
        if not self._pipe.poll(TIME_LIMIT):
            self.close()
            self._start()
            return HANG, f"no result in {TIME_LIMIT:g} s"
        try:
            column, text = self._pipe.recv()
            return column, text
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._start()
            return CRASH, f"the process died (exit code {code})"

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.kill()
        self._process.join()


def fuzz(kind: str, inputs: int, seed: int, keep: Path | None = None) -> Outcome:
    """Damage `inputs` files of a kind, one after the other."""
    outcome = Outcome(kind)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        (folder / "whole").mkdir()
        checker = KINDS[kind]()
        originals = checker.make(folder / "whole")
        child = Child(kind)
        try:
            for number in range(inputs):
                rng = np.random.default_rng([seed, number])
                original = originals[number % len(originals)]
                mutation = checker.mutations[int(rng.integers(len(checker.mutations)))]
                path = folder / f"{number:05d}_{mutation.__name__}_{original.name}"
                path.write_bytes(mutation(original.read_bytes(), rng))
                column, text = child.check(path, original)
                outcome.counts[column] += 1
                if text:
                    outcome.failures.append(f"{path.name}: {column}: {text}")
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, keep)
                path.unlink()
        finally:
            child.close()
    return outcome


def main(arguments: list[str]) -> int:
    """Run the program; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="inputs of all kinds together (default %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that caused a failure")
    parser.add_argument("--signals", type=int, default=0, help="runs to stop with a signal (default %(default)s)")
    chosen = parser.parse_args(arguments)
    share = -(-chosen.inputs // len(chosen.kinds))
    outcomes = [fuzz(kind, share, chosen.seed, chosen.keep) for kind in chosen.kinds if share]
    if chosen.signals:
        from tests.fuzz.signals import stop_runs

        outcomes.append(stop_runs(chosen.signals, chosen.seed))
    print(tabulate([outcome.row() for outcome in outcomes], ["kind", "inputs", *COLUMNS]))
    failures = [line for outcome in outcomes for line in outcome.failures]
    print("\n".join(failures))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
