"""Config reference page: up to date, complete, with working examples."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from slowfast.config import published_keys
from slowfast.config.defaults import get_cfg
from slowfast.config.key import Key
from slowfast.config.keys import KEYS, SECTIONS
from slowfast.config.reference import _allowed, _row
from slowfast.config.rules import Choices, Range

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "CONFIG.md"
WRITE = "python -m slowfast.config.reference --write docs/CONFIG.md"


def test_the_page_is_current(tmp_path: Path) -> None:
    # In a separate process, since other tests register networks and datasets.
    written = tmp_path / "CONFIG.md"
    line = [sys.executable, "-m", "slowfast.config.reference", "--write", str(written)]
    subprocess.run(line, cwd=ROOT, check=True)
    assert written.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), f"out of date; run {WRITE}"


def test_every_key_and_every_ignored_key_has_a_place() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `([A-Z0-9_.]+)` \| `", page, re.MULTILINE)[: len(KEYS)] == [
        section.full_name(name) for section in SECTIONS for name in section.keys
    ]
    for key in published_keys.IGNORED_KEYS:
        assert f"`{key.rpartition('.')[2]}`" in page
    for section in published_keys.IGNORED_SECTIONS:
        assert f"`{section}`" in page


def test_the_links_of_the_contents_lead_to_headings() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert len(links) == len(SECTIONS) and set(links) <= anchors


def test_the_python_examples_run(monkeypatch: pytest.MonkeyPatch, restored_keys: None) -> None:
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), {})
    assert get_cfg().MYNET.WIDTH == 64


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        (Key(True, "A."), "True, False"),
        (Key(False, "A.", rule=Range(0, 9), type=bool | int), "True, False, or from 0 to 9"),
        (Key([], "A.", type=list[str]), "list of strings"),
        (Key([1, 2], "A.", rule=Range(1, 10**9), length=2), "2 values from 1 to 10^9"),
        (Key([1], "A.", rule=Range(0, 1, below=True)), "list of values at least 0 and below 1"),
        (Key("", "A.", rule=Choices("", "a")), '"", a'),
        (Key(0, "A.", rule=Range(0, 2**63 - 1)), "from 0 to 2^63 - 1"),
    ],
)
def test_allowed_values_in_words(key: Key, allowed: str) -> None:
    assert _allowed(key) == allowed


def test_what_markdown_would_interpret_is_escaped() -> None:
    row = _row("A.KEY", Key("", "Patterns such as <name>.* or a|b."))
    assert row == r'| `A.KEY` | `""` |  | string | Patterns such as \<name>.\* or a\|b. |'
