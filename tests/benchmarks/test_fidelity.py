"""Networks against the logits of their published implementations, and the page that reports them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import fidelity
from slowfast.cli.model_table import read_header
from tests.conftest import ROOT

CASES = fidelity.read_cases()
# The other networks have too many weights to initialize in a test; run the program to compare them.
QUICK = [c for c in CASES if "frames" in c or c["config"].endswith(("CONVMLP_S.yaml", "EAT_TI.yaml", "EVENT2VEC.yaml"))]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: Path(case["config"]).stem)
def test_logits_equal_the_published_ones(case: dict) -> None:
    row = fidelity.compare(case)
    assert row.is_equal, row


def test_another_network_is_noticed() -> None:
    case = next(case for case in CASES if case["config"].endswith("ASLDVS_EVENT2VEC.yaml"))
    changed = case | {"overrides": [*case["overrides"], "EVENT2VEC.HEADS", 8]}
    row = fidelity.compare(changed)
    assert row.equal_parameters and not row.is_equal


def test_the_page_has_a_row_for_every_case_and_all_are_equal() -> None:
    text = (ROOT / "docs/FIDELITY.md").read_text(encoding="utf-8")
    table = text.split(fidelity.BEGIN)[1].split(fidelity.END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1].split()[0] for row in rows] == [Path(case["config"]).stem for case in CASES]
    assert all(float(re.findall(r"[\d.]+e-\d+", row)[-1]) < fidelity.TOLERANCE for row in rows)


def test_the_headers_of_the_configs_agree_with_the_page() -> None:
    text = (ROOT / "docs/FIDELITY.md").read_text(encoding="utf-8")
    for line in (line for line in text.splitlines() if line.startswith("| `")):
        name, difference = line.split("`")[1].split()[0], re.findall(r"[\d.]+e-\d+", line)
        if difference:
            [path] = (ROOT / "configs").rglob(f"{name}.yaml")
            verified = read_header(path).verified
            wording = (
                r"logits within ([\d.]+e-\d+) of a transcription"
                if "transcribed" in line
                else r"logits within (\S+?)(;|$)"
            )
            stated = re.match(wording, verified)
            assert stated and float(difference[-1]) <= float(stated[1]), (name, verified)
