"""`slowfast env`: instruction sets, limits by environment, and the effect of each precision."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from slowfast.cli import environment
from slowfast.cli.main import main
from slowfast.event_driven import kernels as event_kernels
from slowfast.utils import cpu, private_ops

X86 = "flags\t\t: fpu avx2 {}\nmodel name\t: A CPU\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
AMX = "avx_vnni avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16"
KERNEL_FLAGS = b"avx2 fma f16c bmi2 avx512f avx512bw avx512vl avx512dq avx512_vnni avx512_bf16"


def test_all_extras_are_listed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = {
        extra: tuple(sorted(package.partition(">")[0] for package in packages))
        for extra, packages in project["optional-dependencies"].items()
        if extra != "dev"
    }
    assert environment.EXTRAS == declared


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imitates an x86 CPU with these flags, on which oneDNN has some data types."""

    read_text = cpu.Path.read_text

    def imitate(flags: str, bfloat16: bool, float16: bool, kernels: bytes) -> None:
        monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
        # Other files, such as the metadata of packages, are read as before.
        texts = {"/proc/cpuinfo": X86.format(flags)}
        monkeypatch.setattr(cpu.Path, "read_text", lambda path, **kw: texts.get(str(path)) or read_text(path, **kw))
        for dtype, has in ((torch.bfloat16, bfloat16), (torch.float16, float16)):
            monkeypatch.setattr(torch.ops.mkldnn, private_ops.CPU_QUERIES[dtype], lambda has=has: has)
        monkeypatch.setattr(event_kernels, "cpu_description", lambda: kernels)
        monkeypatch.setattr(environment, "find_compiler", lambda: "/usr/bin/c++")
        for variable in cpu.LIMITS:
            monkeypatch.delenv(variable, raising=False)

    return imitate


def test_a_cpu_with_everything(machine: Any) -> None:
    machine(AMX, True, True, KERNEL_FLAGS)
    assert cpu.instruction_sets() == list(cpu.X86_SETS.values())
    assert (cpu.cpu_model(), cpu.cpu_family()) == ("A CPU", "GenuineIntel 6/143")
    assert environment.precision_facts() == {
        "TRAIN.MIXED_PRECISION, bfloat16": "bfloat16",
        "TRAIN.MIXED_PRECISION, float16": "float16",
        "EVENT.PRECISION float32": "float32",
        "EVENT.PRECISION bfloat16": "bfloat16 weights, bfloat16 activations",
        "EVENT.PRECISION int8": "int8 weights, 8-bit activations",
    }


def test_a_cpu_with_avx2_only(machine: Any) -> None:
    machine("", False, False, b"avx2 fma f16c bmi2")
    assert cpu.instruction_sets() == ["AVX2"]
    assert environment.precision_facts() == {
        "TRAIN.MIXED_PRECISION, bfloat16": "float32: this CPU has no bfloat16 matrix multiplication",
        "TRAIN.MIXED_PRECISION, float16": "float32: this CPU has no float16 matrix multiplication",
        "EVENT.PRECISION float32": "float32",
        "EVENT.PRECISION bfloat16": "bfloat16 weights, float32 activations: this CPU has no AVX512_BF16",
        "EVENT.PRECISION int8": (
            "int8 weights of about 7 bits, 8-bit activations: this CPU has no AVX512_VNNI or AVX-VNNI"
        ),
    }


def test_limits_of_the_environment_are_the_reason(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(AMX, False, False, KERNEL_FLAGS)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("SLOWFAST_MAX_CPU_ISA", "avx2")
    facts = environment.precision_facts()
    assert facts["TRAIN.MIXED_PRECISION, bfloat16"] == (
        "float32: ONEDNN_MAX_CPU_ISA=AVX2 excludes the bfloat16 instructions"
    )
    assert facts["EVENT.PRECISION int8"].endswith("activations: SLOWFAST_MAX_CPU_ISA=avx2")
    limited = environment.describe_environment()["CPU"]["limited by"]
    assert "ONEDNN_MAX_CPU_ISA=AVX2 (oneDNN), SLOWFAST_MAX_CPU_ISA=avx2 (compiled kernels" in limited


def test_avx512_without_bfloat16_instructions_converts(machine: Any) -> None:
    machine("avx512f", True, False, KERNEL_FLAGS)
    converted = "bfloat16, converted to float32 in registers: saves memory, not time"
    assert environment.precision_facts()["TRAIN.MIXED_PRECISION, bfloat16"] == converted


def test_without_a_compiler_pytorch_multiplies(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("", False, False, b"avx2")
    monkeypatch.setattr(environment, "find_compiler", lambda: "")
    text = environment.precision_facts()["EVENT.PRECISION int8"]
    assert text == "int8 weights, multiplied in float32 by PyTorch: there is no C++ compiler for the kernels"
    monkeypatch.setattr(environment, "find_compiler", lambda: "")
    described = environment.describe_environment()
    assert described["CPU"]["compiled kernels"].startswith("not available, no C++ compiler: event-driven inference")
    assert described["software"]["C++ compiler"] == "none. Install one (g++) or set CXX"


def test_kernels_that_do_not_compile_give_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("c++ failed: ['no such flag']")

    monkeypatch.setattr(environment, "find_compiler", lambda: "/usr/bin/c++")
    monkeypatch.setattr(environment, "build_library", fail)
    assert "on first use" in environment.describe_environment()["CPU"]["compiled kernels"]
    text = environment.describe_environment(compile_kernels=True)["CPU"]["compiled kernels"]
    assert text.startswith("not available, c++ failed: ['no such flag']: event-driven inference uses PyTorch")


def test_json_and_table_have_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(facts)
    assert len(lines) == sum(1 + len(items) for items in facts.values())


def test_an_unknown_limit_is_a_user_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SLOWFAST_MAX_CPU_ISA", "sse9")
    monkeypatch.setattr(environment, "find_compiler", lambda: "/usr/bin/c++")
    assert main(["env"]) == 2
    assert "SLOWFAST_MAX_CPU_ISA: unknown value 'sse9'" in capsys.readouterr().err
