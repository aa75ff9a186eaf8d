"""Result files of benchmarks: one JSON file per part, and one small file with all parts of a machine.

A file of a machine has its `name` and description (`machine`), and `parts`: for each part the command, version and
date, and `figures`, {group: {name: [value, unit]}}. A value is a number, or [lowest, highest] where only a range is
known.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement
from slowfast import __version__
from slowfast.errors import UserError
from slowfast.event_driven.kernels import ISA_VARIABLE
from slowfast.utils.files import atomic_write_text
from slowfast.utils.text import plain
from slowfast.utils.text_files import to_json

MACHINE_FILE = "machine.json"  # file in a folder of results
ROOT = Path(__file__).resolve().parents[1]
_DIGITS = 4  # significant digits of a stored value
_LIST = re.compile(r"\[[^][{}]*\]")  # a list without inner lists
# Facts that must be the same for all parts of a machine.
_IDENTITY = ("CPU", "CPU family", "cores", "GPU", "torch")

Number = float | list[float]
Figures = dict[str, dict[str, tuple[Number, str]]]


@dataclass(frozen=True)
class Machine:
    """Results of a machine.

    Args:
        name: Short name, the heading of its column.
        machine: Description: CPU, instruction sets, cores, versions.
        parts: Results of each part, by name: command, version, date and figures.
    """

    name: str
    machine: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def figures(self) -> Figures:
        """Figures of all parts, by group and name."""
        found: Figures = {}
        for part in self.parts.values():
            for group, named in part["figures"].items():
                found.setdefault(group, {}).update({name: (value, unit) for name, (value, unit) in named.items()})
        return found

    @property
    def best_sets(self) -> str:
        """Strongest instruction sets of the CPU, such as "AVX-512, VNNI, BF16", or what the kernels were limited to."""
        if limit := self.machine.get("limits", {}).get(ISA_VARIABLE):
            return str(limit)
        sets: Sequence[str] = self.machine.get("instruction sets", ())
        if any(name.startswith("AMX") for name in sets):
            return "AMX"
        avx512 = [name.removeprefix("AVX512_") for name in sets if name.startswith("AVX512_")]
        if "AVX-512F" in sets:
            return ", ".join(["AVX-512", *avx512])
        return ", ".join(sets) or "unknown instruction sets"

    @property
    def versions(self) -> str:
        """Versions of the package that measured the parts."""
        return ", ".join(dict.fromkeys(part.get("version", "unknown") for part in self.parts.values()))


def version() -> str:
    """Return the version of the package, with the commit of the checkout if there is one."""
    line = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        commit = subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__} ({commit})"


def compact(measurements: Sequence[Measurement | Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Return measurements by group and name with rounded values, as in the file of a machine."""
    figures: dict[str, dict[str, list[Any]]] = {}
    for measurement in measurements:
        plain_form = measurement.as_json() if isinstance(measurement, Measurement) else measurement
        rounded = float(f"{plain_form['value']:.{_DIGITS}g}")
        figures.setdefault(plain_form["group"], {})[plain_form["name"]] = [rounded, plain_form["unit"]]
    return figures


def combine(folder: Path, name: str, parts: Sequence[str]) -> Machine | None:
    """Write the file of a machine from the files of its parts; None if no part has been measured.

    Args:
        folder: Folder with a file PART.json for each part measured so far.
        name: Name of the machine; "" for the one given before, or that of the CPU.
        parts: Names of the parts, in their order.

    Raises:
        UserError: If the parts come from different machines or PyTorch versions.
    """
    read = {part: _read(folder / f"{part}.json") for part in parts if (folder / f"{part}.json").exists()}
    if not read:
        return None
    machines = [results["machine"] for results in read.values()]
    if len({tuple(machine.get(key) for key in _IDENTITY) for machine in machines}) > 1:
        raise UserError(
            f"--out {plain(folder)} has results of several machines or PyTorch versions. Choose another folder, or add "
            "--fresh"
        )
    described = {key: value for key, value in machines[-1].items() if key != "load average before"}
    file = folder / MACHINE_FILE
    combined = Machine(
        name or (read_machine(file).name if file.exists() else described["CPU"]),
        described,
        {
            part: {
                "command": results["command"],
                "version": results["version"],
                "date": results["date"],
                "figures": compact(results["figures"]),
            }
            for part, results in read.items()
        },
    )
    atomic_write_text(file, _dump(combined))
    return combined


def _dump(machine: Machine) -> str:
    """Return the content of the file of a machine, with a line for each figure."""
    text = to_json(vars(machine), indent=1)
    return _LIST.sub(lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def read_machine(path: Path) -> Machine:
    """Read the results of a machine from its file, or from the folder of `benchmark.py all`.

    Raises:
        UserError: If there is no such file or it has another form.
    """
    file = path / MACHINE_FILE if path.is_dir() else path
    content = _read(file)
    if not {"name", "machine", "parts"} <= content.keys():
        raise UserError(f"{plain(file)} is not a result file of a machine. Give a folder written by benchmark.py all")
    return Machine(content["name"], content["machine"], content["parts"])


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{plain(file)}: {error.strerror}. Give a folder written by benchmark.py all") from error
    except ValueError as error:
        raise UserError(f"{plain(file)} is not valid JSON: {error}. Remove it and measure again") from error
    if not isinstance(content, dict):
        raise UserError(f"{plain(file)} is not a result file. Give a folder written by benchmark.py all")
    return content
