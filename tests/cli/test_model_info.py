"""Table of models: sizes, headers and docs/MODEL_ZOO.md against computed values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slowfast.cli.model_info import BEGIN, END, check_file, main
from slowfast.cli.model_table import ModelRow, describe_all, markdown_table, published_configs, read_header
from slowfast.cli.setup import load_config
from slowfast.config.parse import configs_folder
from slowfast.errors import UserError
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CONFIGS = configs_folder()

# Folders of configs without published weights.
RECIPES = ("Demo", "Finetune", "UCF101", "HMDB51")
# Exact numbers of parameters, where a published checkpoint tells them.
EXACT = {
    "CONVMLP_S": 9_022_920,
    "EAT_TI": 5_719_912,
    "EAT_TI_DIST": 5_719_912 + 192 + 193_000,  # one more query and head
    "EVMLP": 38_427_560,
    "EVMLP_DIST": 38_427_560,
}
HEADER = """# Net-S, 8 x 8, Data-1 (1.2 M parameters, 3.4 GMACs an image).
# Expected: top-1 50.6 % (published).
# Weights: https://host/owner/net
# License of the weights: MIT
# Verified here: logits, 1e-7
"""


@pytest.fixture(scope="module")
def rows() -> dict[str, ModelRow]:
    return {row.config: row for row in describe_all(published_configs())}


def test_every_setting_is_in_the_table() -> None:
    stems = {path.stem for path in CONFIGS.rglob("*.yaml") if not path.name.startswith("Base-")}
    others = {path.stem for folder in RECIPES for path in (CONFIGS / folder).glob("*.yaml")}
    assert {path.stem for path in published_configs()} == stems - others


@pytest.mark.extensive
def test_sizes_are_those_that_the_headers_give(rows: dict[str, ModelRow]) -> None:
    for row in rows.values():
        rounding = 0.05 if row.header.millions >= 1 else 0.0005  # one or three decimal places
        assert row.parameters / 1e6 == pytest.approx(row.header.millions, abs=rounding), row.config
        assert row.macs / 1e9 == pytest.approx(row.header.gmacs, rel=0.02), row.config
    assert {name: rows[name].parameters for name in EXACT} == EXACT


@pytest.mark.parametrize("path", published_configs(), ids=lambda path: path.stem)
def test_headers_name_the_views_of_the_config(path: Path) -> None:
    words = re.search(r"Expected: top-1 .* with (\d) views? x (\d) crops?", path.read_text())
    test = load_config(path).TEST
    if words:
        assert (int(words[1]), int(words[2])) == (test.NUM_ENSEMBLE_VIEWS, test.NUM_SPATIAL_CROPS)
    else:
        assert path.parent.name in ("ImageNet", "DVS") or "Expected: unknown" in path.read_text()


@pytest.mark.extensive
def test_the_model_zoo_page_has_this_table(rows: dict[str, ModelRow]) -> None:
    check_file(ROOT / "docs/MODEL_ZOO.md", list(rows.values()))


def test_published_accuracies_with_their_views(rows: dict[str, ModelRow]) -> None:
    table = markdown_table(list(rows.values()))
    for cells in (
        "`K400_MLP_S16x4` | MorphMLP-S | 16 x 224 x 224 | 47.0 M | 66.2 | 78.7 % (4 x 1) | [MorphMLP](https://",
        "`SSV2_MLP_B32` | MorphMLP-B | 32 x 224 x 224 | 68.3 M | 196 | 70.1 % (1 x 3) |",
        "`EAT_TI_384` | EAT-Ti | 384 x 384 | 5.8 M | 3.48 | 75.8 % |",
        "`MORPHMLP_S` | MorphMLP-S (image) | 224 x 224 | 40.5 M | 7.13 | - |",
    ):
        assert table.count(f"| {cells}") == 1


def test_headers(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(HEADER + "TRAIN: {}\n# Weights: elsewhere\n")
    header = read_header(path)
    assert (header.network, header.dataset, header.millions, header.gmacs) == ("Net-S", "Data-1", 1.2, 3.4)
    assert (header.top1, header.weights, header.license) == ("50.6", "https://host/owner/net", "MIT")
    path.write_text(HEADER.replace("top-1 50.6 % (published)", "unknown"))
    assert read_header(path).top1 == ""


@pytest.mark.parametrize(
    ("line", "instead", "problem"),
    [
        (0, "# Net-S (1.2 M parameters)", "the first line must be"),
        (1, "# Expected: a lot", "must contain top-1 N %, or unknown"),
        (2, "#", "need one line # Weights: ..."),
        (3, "# Weights: twice", "need one line # Weights: ..."),
        (4, "# Verified here:", "need one line # Verified here: ..."),
    ],
)
def test_what_a_header_lacks_is_named(tmp_path: Path, line: int, instead: str, problem: str) -> None:
    lines = HEADER.splitlines()
    lines[line] = instead
    (tmp_path / "net.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=re.escape(problem)) as caught:
        read_header(tmp_path / "net.yaml")
    assert "net.yaml" in str(caught.value)


def test_check_and_write(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [CONFIGS / "ImageNet" / "EVMLP.yaml"]
    monkeypatch.setattr("slowfast.cli.model_table.published_configs", lambda: settings)
    file = tmp_path / "page.md"
    file.write_text(f"a - b\n{BEGIN}\n-\n{END}\nc - d\n")
    assert main(["--check", str(file)]) == 2
    assert "out of date" in capsys.readouterr().err
    assert main(["--write", str(file)]) == 0 == main(["--check", str(file)])
    text = file.read_text()
    assert text.startswith(f"a - b\n{BEGIN}\n| config |") and text.endswith(f"{END}\nc - d\n")
    file.write_text(text.replace("38.4 M", "38.5 M"))
    capsys.readouterr()
    assert main(["--check", str(file)]) == 2
    message = capsys.readouterr().err
    last = message.splitlines()[-1]  # on a slow machine, progress messages may precede it
    assert last.startswith("error: ") and "`EVMLP`" in last and "38.4 M" in last
    file.write_text("no table")
    assert main(["--check", str(file)]) == 2 == main(["--check", str(tmp_path / "none")])


def test_the_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", str(CONFIGS / "ImageNet" / "EVMLP.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "38.4 M" in printed and "1.03" in printed and "`" not in printed
    assert main(["--cfg", str(CONFIGS / "none.yaml")]) == 2


def test_parameters_of_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "ImageNet/EVMLP", "--layers", "2"]) == 0
    out = capsys.readouterr().out
    assert "EVMLP\n" in out and re.search(r"\| *blks\.0 +\| 0\.2M +\|", out) and "blks.0.2" not in out
    for line in (["--layers", "2"], ["--cfg", "ImageNet/EVMLP", "--layers", "0"]):
        assert main(line) == 2
        assert "--layers" in capsys.readouterr().err
