"""Documents: the links, configs, keys and commands that they name exist; CITATION.cff has the required fields."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from slowfast.cli.main import COMMANDS as CLI_COMMANDS
from slowfast.config.defaults import get_cfg
from slowfast.config.published_keys import CHECKPOINT_COUNT, CHECKPOINT_SWITCH, is_ignored
from tests.conftest import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README_LINES = 150

# [text](target) and <img src="target">; code blocks are removed before.
LINK = re.compile(r"\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
# configs/K400/NAME.yaml, and names of shipped configs such as K400/NAME; NAME may hold a * for several.
# (other codebases: ./configs/name.yaml, .yml files).
CONFIG_PATH = re.compile(r"(?<!\./)\bconfigs/[\w./*-]+")
FOLDERS = "|".join(sorted(path.name for path in (ROOT / "configs").iterdir() if path.is_dir()))
CONFIG_NAME = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[A-Za-z0-9_*-]+(?:\.yaml)?")
# DATA.PATH_PREFIX, TEST.CHECKPOINT_FILE_PATH; not INSTALL.md, not E.g
KEY = re.compile(r"(?<![\w./-])[A-Z][A-Z0-9_]*(?:\.[A-Z][A-Z0-9_]+)+(?![\w.]*[a-z/])")
# Published keys that are translated to other ones when a file is loaded.
TRANSLATED = {CHECKPOINT_SWITCH, CHECKPOINT_COUNT, "SOLVER.CLIP_GRADIENT"}
MIGRATING = "MIGRATING.md"
NAMES_PUBLISHED_KEYS = (MIGRATING, "CONFIG.md")
READERS_KEYS = {"MYNET.WIDTH", "LION.BETAS"}  # of sections that a user adds
READERS_OWN = ("/run.yaml", "/config.yaml", "FILE.yaml")  # the reader's own configs
COMMANDS = {*CLI_COMMANDS, "COMMAND", "--help"}
CFF_FIELDS = {"cff-version", "message", "title", "authors"}
ARXIV = ("2111.12527", "2109.04454", "2105.15089", "2507.01927", "2504.15371")


def anchors(text: str) -> set[str]:
    """Return the anchors of all headings of a Markdown page, as GitHub makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(1)))
        found.add(next(name for name in names if name not in found))
    return found


def links(text: str) -> Iterator[str]:
    """Yield the targets of all links and images of a page that lead into this repository."""
    for match in LINK.finditer(FENCE.sub("", text)):
        target = match[1] or match[2]
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield target


def broken_links(page: Path) -> list[str]:
    """Return the links of a page whose file or heading does not exist."""
    broken = []
    for target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


def configs_named(text: str) -> set[str]:
    """Return the patterns, relative to configs/, of all configs and folders of configs that a page names."""
    named = {match.rstrip("./").removeprefix("configs/") for match in CONFIG_PATH.findall(text)} - {"", "configs"}
    named |= set(CONFIG_NAME.findall(text))
    return {name if name.endswith((".yaml", ".yml")) or "/" not in name else f"{name}.yaml" for name in named}


def keys_named(text: str) -> set[str]:
    """Return everything in a page that looks like a key of a config section."""
    return set(KEY.findall(text))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every slowfast, run_net.py and other tools' command in the code blocks of a page."""
    for block in FENCE.findall(text):
        if block.startswith("```python"):
            continue
        for line in block.replace("\\\n", " ").splitlines()[1:-1]:
            words = shlex.split(line, comments=True)
            place = next((n for n, word in enumerate(words) if word == "slowfast" or word.startswith("tools/")), None)
            if place is not None and words[0] in {"slowfast", "python", "torchrun"}:
                yield words[place:]


def shipped_config(words: list[str]) -> Path | None:
    """Return the shipped config of a command, None where it has none or names a file of the reader."""
    if "--cfg" not in words:
        return None
    given = words[words.index("--cfg") + 1]
    path = ROOT / "configs" / f"{given.removeprefix('configs/').removesuffix('.yaml')}.yaml"
    return next((file for file in (path, ROOT / given) if file.is_file()), None)


def overrides(words: list[str]) -> list[str]:
    """Return the KEY VALUE pairs that end a command."""
    places = (n for n, word in enumerate(words) if is_key(word) and not words[n - 1].startswith("--"))
    return words[next(places, len(words)) :]


def is_key(key: str) -> bool:
    """Return whether a key is in the config tree."""
    return key in {path for path, _ in get_cfg().keys_by_path()}


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_configs_exist(page: Path) -> None:
    named = configs_named(page.read_text(encoding="utf-8"))
    if page.name == MIGRATING:  # also names configs of other codebases
        named = {name for name in named if not name.endswith(".yml")}
    assert [name for name in sorted(named) if not list((ROOT / "configs").glob(name))] == []


def test_keys_exist(page: Path) -> None:
    unknown = {key for key in keys_named(page.read_text(encoding="utf-8")) if not is_key(key)} - READERS_KEYS
    if page.name in NAMES_PUBLISHED_KEYS:
        unknown = {key for key in unknown if not is_ignored(key) and key not in TRANSLATED}
    assert sorted(unknown) == []


def test_commands_load(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0] == "slowfast":
            assert words[1] in COMMANDS, words
        else:
            assert (ROOT / words[0]).is_file(), words
        if "VALUE" in words:
            continue
        path, cfg = shipped_config(words), get_cfg()
        if path is not None:
            cfg.merge_from_file(path)
        elif "--cfg" in words:
            assert words[words.index("--cfg") + 1].endswith(READERS_OWN), words
        cfg.merge_from_list(overrides(words))


def test_the_searches_find_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page: of `code`, twice\n## Same\n## Same\n[a](page.md#a-page-of-code-twice) [b](#same-1) [c](#none)\n"
        '[d](missing.md) [e](https://example.org/x) <img src="missing.png">\n```\n[f](in_code.md)\n# no heading\n```\n'
        "configs/K400/NONE.yaml `K400/NONE_*` configs/K400/ SSV1/SSV1_MLP_S16 DATA.NONE TRAIN.ENABLE. INSTALL.md\n",
        encoding="utf-8",
    )
    text = page.read_text(encoding="utf-8")
    assert broken_links(page) == ["#none", "missing.md", "missing.png"]
    assert configs_named(text) == {"K400/NONE.yaml", "K400/NONE_*.yaml", "K400", "SSV1/SSV1_MLP_S16.yaml"}
    assert keys_named(text) == {"DATA.NONE", "TRAIN.ENABLE"}
    assert is_key("TRAIN.ENABLE") and not is_key("DATA.NONE")
    page.write_text(
        "```bash\nslowfast test --cfg K400/K400_MLP_S16x4 a.mp4 --class NUM_GPUS \\\n    NUM_GPUS 0 # DATA.X 1\npip x\n"
        "torchrun -n 2 tools/run_net.py --cfg configs/DVS/NONE.yaml TEST.ENABLE True\n```\nslowfast none\n",
        encoding="utf-8",
    )
    first, second = commands(page.read_text(encoding="utf-8"))
    assert first[:3] == ["slowfast", "test", "--cfg"] and overrides(first) == ["NUM_GPUS", "0"]
    assert shipped_config(first) == ROOT / "configs/K400/K400_MLP_S16x4.yaml" and shipped_config(second) is None
    assert overrides(second) == ["TEST.ENABLE", "True"]


def test_the_documents_name_configs_and_keys() -> None:
    texts = [page.read_text(encoding="utf-8") for page in DOCUMENTS]
    assert len(set().union(*map(configs_named, texts))) > 20
    assert len(set().union(*map(keys_named, texts))) > 100


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_every_page_is_linked_from_the_readme() -> None:
    targets = {target.partition("#")[0] for target in links((ROOT / "README.md").read_text(encoding="utf-8"))}
    pages = {str(page.relative_to(ROOT)) for page in DOCUMENTS} - {"README.md"}
    assert pages - targets == set()


def test_the_citation_file() -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert content.keys() >= CFF_FIELDS | {"license", "references"}
    assert content["cff-version"] == "1.2.0" and content["license"] == "Apache-2.0" and content["type"] == "software"
    assert content["authors"] == [{"name": "The slowfast contributors"}]
    references = content["references"]
    assert all({"type", "title", "authors"} <= reference.keys() and reference["authors"] for reference in references)
    assert [reference["url"] for reference in references] == [f"https://arxiv.org/abs/{number}" for number in ARXIV]
