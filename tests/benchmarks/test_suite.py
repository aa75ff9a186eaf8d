"""`benchmark.py all`: parts in separate processes, resumed and combined; failures do not end other parts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import suite
from benchmarks.main import main
from benchmarks.measure import Measurement
from benchmarks.results import MACHINE_FILE, Machine, combine, compact, read_machine, version
from benchmarks.suite import Part, all_parts, choose_parts
from slowfast.errors import UserError

MACHINE = {"CPU": "A CPU", "instruction sets": ["AVX2"], "cores": 2, "python": "3.11", "torch": "2.13"}


class Runs:
    """Stand-in for the processes: writes the results of each part, unless it is to fail."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.commands = failing, list[list[str]]()

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        file = Path(command[command.index("--json") + 1])
        if file.stem == self.failing:
            return subprocess.CompletedProcess(command, 1)
        figures = [Measurement(file.stem, "time", len(self.commands), "s", 1).as_json()]
        write_part(file, figures)
        return subprocess.CompletedProcess(command, 0)


def write_part(file: Path, figures: list[dict[str, Any]], **machine: object) -> None:
    results = {"machine": {**MACHINE, **machine, "load average before": 1.0}, "command": f"benchmark.py {file.stem}"}
    file.write_text(json.dumps({**results, "version": "0.1", "date": "2026-01-02", "figures": figures}))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(suite.subprocess, "run", runs)
    return runs


def measure(folder: Path, *more: str) -> int:
    return main(["all", "--out", str(folder), "--parts", "load", "events", "test", *more])


def test_parts_run_in_order_and_are_combined(runs: Runs, tmp_path: Path) -> None:
    assert measure(tmp_path / "out", "--name", "A machine", "--repeats", "2") == 0
    assert [command[2] for command in runs.commands] == ["load", "test", "load_1080p", "events"]
    assert all(command[command.index("--repeats") + 1] == "2" for command in runs.commands)
    machine = read_machine(tmp_path / "out")
    assert machine.name == "A machine" and list(machine.parts) == ["load", "test", "load-1080p", "events"]
    assert machine.figures["test"] == {"time": (2.0, "s")} and machine.parts["load"]["command"] == "benchmark.py load"
    assert "load average before" not in machine.machine


def test_what_has_been_measured_is_kept(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.failing = "test"
    assert measure(tmp_path, "--name", "A machine") == 1
    assert "failed: test" in capsys.readouterr().err
    assert list(read_machine(tmp_path).parts) == ["load", "load-1080p", "events"]
    runs.failing = ""
    assert measure(tmp_path) == 0 and read_machine(tmp_path).name == "A machine"
    assert [command[2] for command in runs.commands[4:]] == ["test"]
    assert measure(tmp_path, "--fresh") == 0
    assert [command[2] for command in runs.commands[5:]] == ["load", "test", "load_1080p", "events"]


def test_videos_are_given_to_the_parts_that_read_them(runs: Runs, tmp_path: Path) -> None:
    for name in ("a.mp4", "camera.mp4"):
        (tmp_path / name).touch()
    line = ["all", "--out", str(tmp_path / "out"), "--videos", str(tmp_path / "a.mp4"), "--camera-videos"]
    assert main([*line, str(tmp_path / "camera.mp4"), "--parts", "load", "event_driven", "cameras", "network"]) == 0
    videos = {Path(command[4]).stem: [word for word in command if word.endswith(".mp4")] for command in runs.commands}
    camera = [str(tmp_path / "camera.mp4")]
    assert videos == {
        **dict.fromkeys(("event_driven", "cameras-4", "cameras-8", "cameras-16"), camera),
        **dict.fromkeys(("load", "load-1080p"), [str(tmp_path / "a.mp4")]),
        "network": [],
    }


def test_results_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    write_part(tmp_path / "load.json", [])
    write_part(tmp_path / "test.json", [], CPU="Another CPU")
    with pytest.raises(UserError, match="results of several machines"):
        combine(tmp_path, "", ["load", "test"])
    assert combine(tmp_path, "", ["events"]) is None
    machine = combine(tmp_path, "", ["load"])
    assert machine is not None and machine.name == "A CPU" and (tmp_path / MACHINE_FILE).exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("all", "required: --out"),
        ("all --out {tmp} --parts loda", "--parts loda: no such part. Choices: event_driven, load"),
        ("all --out {tmp} --videos {tmp}/none.mp4", "none.mp4 does not exist"),
        ("tables {tmp}", "machine.json: No such file or directory"),
        ("networks --only NONE", "--only NONE: unknown config."),
        ("load --only EAT_S", "only networks takes it"),
    ],
)
def test_user_errors(line: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.format(tmp=tmp_path).split()) == 2
    assert reason in capsys.readouterr().err


def test_parts() -> None:
    parts = all_parts()
    names = [part.name for part in parts]
    assert len(set(names)) == len(names) and names[0] == "event_driven"
    assert {"networks-K400_MLP_S16x4", "cameras-16", "events", "network"} <= set(names)
    assert {part.name.partition("-")[0] for part in choose_parts(parts, ["networks"])} == {"networks"}
    assert [part.name for part in choose_parts(parts, ["cameras-4"])] == ["cameras-4"]
    part = Part("cameras-4", ("cameras",), 3, suite.CAMERA_VIDEOS, ("EVENT.STREAMS", "4"))
    assert part.command(Path("x.json"), None, [Path("a.mp4")])[2:] == (
        "cameras --json x.json --repeats 3 --videos a.mp4 EVENT.STREAMS 4".split()
    )


def test_values_are_rounded() -> None:
    assert compact([Measurement("g", "n", 1234.5678, "s", 1)]) == {"g": {"n": [1235.0, "s"]}}
    assert version()


@pytest.mark.parametrize(
    ("sets", "best"),
    [
        (["AVX2"], "AVX2"),
        (["AVX2", "AVX-VNNI"], "AVX2, AVX-VNNI"),
        (["AVX2", "AVX-512F", "AVX512_VNNI", "AVX512_BF16"], "AVX-512, VNNI, BF16"),
        (["AVX2", "AVX-512F", "AVX512_VNNI", "AMX_INT8", "AMX_BF16"], "AMX"),
        ([], "unknown instruction sets"),
    ],
)
def test_strongest_instruction_sets(sets: list[str], best: str) -> None:
    assert Machine("m", {"instruction sets": sets}, {}).best_sets == best
    assert Machine("m", {"instruction sets": sets, "limits": {"SLOWFAST_MAX_CPU_ISA": "AVX2"}}, {}).best_sets == "AVX2"
