"""Config reference page, generated from the declarations of the keys.

``python -m slowfast.config.reference`` prints the page, ``--write docs/CONFIG.md`` updates it.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slowfast.config import published_keys
from slowfast.config.key import ORIGINS, Key, Section
from slowfast.config.keys import SECTIONS
from slowfast.config.parse import MAX_BASES
from slowfast.config.rules import RegistryNames
from slowfast.utils.text_files import to_json

INTRODUCTION = """\
# Config reference

<!-- Generated: python -m slowfast.config.reference --write docs/CONFIG.md -->

A config is a tree of typed keys. A YAML file sets those that differ from their defaults, and `KEY VALUE` pairs after
the file override it:

```bash
slowfast train --cfg configs/K400/K400_MLP_S16x4.yaml TRAIN.BATCH_SIZE 32 DATA.PATH_TO_DATA_DIR data/k400
```

The resolved config of a run is saved as `config.yaml` in OUTPUT_DIR and can be passed to `--cfg` again. An unknown key,
a value of the wrong type and a value that is not allowed are errors (exit status 2) that name the file and line, or the
closest key or value.

| in YAML | on the command line | |
| --- | --- | --- |
| `_BASE_: Base-MorphMLP.yaml` | | another config to start from, relative to the file; up to {max_bases} in a chain |
| `_BASE_: K400/K400_MLP_S16x4` | | a shipped config, by name |
| `PATH_PREFIX: ${CONFIG_DIR}/videos` | | relative to the file; other relative paths start from the working directory |
| `LAYERS: [3, 4, 9, 3]` | `MORPH.LAYERS [3,4,9,3]` | list, without spaces on the command line |
| `ENABLE: True` | `TRAIN.ENABLE True` | true, yes, on / false, no, off, in upper or lower case |
| `BASE_LR: 2e-4` | `SOLVER.BASE_LR 2e-4` | number, read by the type of the key |
| `PRETRAIN_PATH: null` | `MORPH.PRETRAIN_PATH ""` | empty string |
| | `TRAIN.BATCH_SIZE=32` | same as `TRAIN.BATCH_SIZE 32` |

In Python:

```python
from slowfast.config.defaults import get_cfg

cfg = get_cfg()
cfg.merge_from_file("configs/K400/K400_MLP_S16x4.yaml")
cfg.merge_from_list(["TRAIN.BATCH_SIZE", 32])
```

Keys are declared in `slowfast/config/keys`. A module of your own, passed to any command with `--import`, may add a
section, for example the keys of a network:

```python
from slowfast.config.key import Key, Section
from slowfast.config.keys import add_section
from slowfast.config.rules import Range

MYNET = Section("MYNET", "My network")
MYNET.WIDTH = Key(64, "Channels of the first stage.", unit="channels", rule=Range(1, 4096))
add_section(MYNET)
```

"""
LEGEND = """\
The unit of a list is that of its elements. Brackets at the end of a meaning name the source of the default: {origins}.
Defaults without one were chosen for this project.
"""
PUBLISHED = """\
## Keys of published configs

Configs of PySlowFast and MorphMLP load unchanged. Some of their keys have another name here:

{renamed}

These keys and sections have no effect here. In a file they cause one warning; as an override they are an error.

{ignored}
"""


def reference() -> str:
    """Return the reference page as Markdown; imports the modules of all registries."""
    origins = ", ".join(f"{tag} ({source})" if tag != source else tag for tag, source in ORIGINS.items())
    legend = " ".join(LEGEND.format(origins=origins).split())
    parts = [INTRODUCTION.replace("{max_bases}", str(MAX_BASES)), _contents(), textwrap.fill(legend, 120) + "\n\n"]
    parts += [_section(section) for section in SECTIONS]
    return "".join([*parts, _published()])


def _contents() -> str:
    """Return links to all sections; GitHub's anchors are headings in lower case without punctuation."""
    headings = [_heading(section) for section in SECTIONS]
    anchors = [re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    links = ",\n".join(f"[{heading}](#{anchor})" for heading, anchor in zip(headings, anchors, strict=True))
    return f"Sections:\n{links}.\n\n"


def _heading(section: Section) -> str:
    return f"{section.title} (`{section.name}`)" if section.name else section.title


def _section(section: Section) -> str:
    rows = [_row(section.full_name(name), key) for name, key in section.keys.items()]
    lines = [f"## {_heading(section)}", "", *([section.doc, ""] if section.doc else [])]
    lines += ["| key | default | unit | allowed | meaning |", "| --- | --- | --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n\n"


def _row(name: str, key: Key) -> str:
    meaning = _escape(f"{key.doc} [{key.origin}]" if key.origin else key.doc)
    cells = (f"`{name}`", f"`{_value(key.default)}`", key.unit, _escape(_allowed(key)), meaning)
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    """Escape characters that Markdown would interpret as columns, tags or emphasis."""
    return re.sub(r"([|<*])", r"\\\1", text)


def _value(value: Any) -> str:
    return to_json(value) if isinstance(value, str | list) else str(value)


def _allowed(key: Key) -> str:
    if key.type == bool | int:
        return f"True, False, or {key.rule}"
    if isinstance(key.default, bool):
        return "True, False"
    if key.type == list[str]:
        return "list of strings"
    if isinstance(key.rule, RegistryNames):
        return f"{key.rule}, or a name of your own in `{key.rule.attribute}`"
    rule = str(key.rule) if key.rule else "string"
    rule = re.sub(r"\b1((?:,000){2,})", lambda found: f"10^{3 * found[1].count(',')}", rule)
    rule = rule.replace(f"{2**63 - 1:,}", "2^63 - 1")
    if not isinstance(key.default, list):
        return rule
    return f"{key.length} values {rule}" if key.length else f"list of values {rule}"


def _published() -> str:
    renamed = _table(("published", "here"), published_keys.TRANSLATED.items())
    by_section: dict[str, list[str]] = {}
    for name in sorted(published_keys.IGNORED_KEYS):
        section, _, leaf = name.rpartition(".")
        by_section.setdefault(section, []).append(leaf)
    rows = [(f"`{section}`" if section else "", _names(leaves)) for section, leaves in by_section.items()]
    rows.append(("whole sections", _names(sorted(published_keys.IGNORED_SECTIONS))))
    return PUBLISHED.format(renamed=renamed, ignored=_table(("section", "keys"), rows)).rstrip() + "\n"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [head, ("---", "---"), *rows]
    return "\n".join(f"| {left} | {right} |" for left, right in lines)


def main() -> None:
    """Print or write the reference page."""
    parser = argparse.ArgumentParser(prog="python -m slowfast.config.reference", description="Config reference page.")
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the page to FILE instead of printing it")
    target = parser.parse_args().write
    if target is None:
        print(reference(), end="")
    else:
        target.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
