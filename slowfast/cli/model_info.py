"""`slowfast model-info`: print a table of models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.cli.command import CommandParser, exit_status, integer
from slowfast.config.parse import find_config, shipped_configs
from slowfast.errors import UserError
from slowfast.utils.files import MIB, atomic_write_text, check_output_file
from slowfast.utils.paths import UnreadableTextError, read_text_file
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import plain

if TYPE_CHECKING:
    from slowfast.cli.model_table import ModelRow


MAX_BYTES = 16 * MIB
BEGIN, END = "<!-- begin: tools/model_info.py -->", "<!-- end: tools/model_info.py -->"
EXAMPLE = "slowfast model-info --cfg K400/K400_MLP_S16x4"
USAGE = "%(prog)s [--cfg FILE ...] [--layers DEPTH] [--list] [--markdown] [--check FILE | --write FILE]"
DESCRIPTION = f"""\
Print a table of models: parameters and GMACs, counted without computing anything; the input size; the published
accuracy; the weights and their license; and what was verified in this project.

  slowfast model-info
  {EXAMPLE}
  {EXAMPLE} --layers 2     also prints the parameters of each layer
  slowfast model-info --list               prints the names of all shipped configs
  slowfast model-info --write docs/MODEL_ZOO.md    writes the table between the two marker comments of a file
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast model-info", DESCRIPTION, USAGE, EXAMPLE)
    cfg = "YAML files or names of shipped configs (default: all published models)"
    parser.add_argument("--cfg", nargs="+", metavar="FILE", help=cfg)
    layers = "also print the parameters of the layers down to this depth"
    parser.add_argument("--layers", type=integer(1, 100), metavar="DEPTH", help=layers)
    parser.add_argument("--list", action="store_true", help="print the names of all shipped configs and exit")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--check", type=Path, metavar="FILE", help="exit with 2 unless the table in the file is current")
    goal.add_argument("--write", type=Path, metavar="FILE", help="write the table into the file")
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print, check or write the table and return the exit status: 0 done, 2 after a user error."""
    return exit_status(lambda: _run(parse(arguments)))


def _run(chosen: argparse.Namespace) -> None:
    if chosen.list:
        show_table("\n".join(shipped_configs()))
        return
    file = chosen.check or chosen.write
    if file is not None and chosen.cfg is not None:
        raise UserError("--check and --write are for the table of all published models. Remove --cfg")
    if chosen.layers is not None and chosen.cfg is None:
        raise UserError("--layers needs the models. Name them with --cfg")
    if file is not None:
        table_in_file(file)  # fail before the slow part
    if chosen.write is not None:
        check_output_file(chosen.write, "--write")
    paths = [find_config(name) for name in chosen.cfg or ()]
    from slowfast.cli.model_table import describe_all, layers_table, markdown_table, plain_table, published_configs

    rows = describe_all(paths or published_configs())
    if chosen.check is not None:
        check_file(chosen.check, rows)
        show(f"The table in {chosen.check} is current")
    elif chosen.write is not None:
        old, new = (f"{BEGIN}\n{table}\n{END}" for table in (table_in_file(chosen.write), markdown_table(rows)))
        atomic_write_text(chosen.write, chosen.write.read_text(encoding="utf-8").replace(old, new))
        show(f"Wrote the table to {chosen.write}")
    else:
        show_table(markdown_table(rows) if chosen.markdown else plain_table(rows))
    for path in paths if chosen.layers else ():
        show_table(f"\n{Path(path).stem}\n{layers_table(path, chosen.layers)}")


def check_file(file: Path, rows: Sequence[ModelRow]) -> None:
    """Check that the table in a file matches the rows. Raises UserError with the first line that differs."""
    from slowfast.cli.model_table import markdown_table

    old, new = table_in_file(file).splitlines(), markdown_table(rows).splitlines()
    if old != new:
        pairs = zip(new, [*old, *[""] * len(new)], strict=False)
        expected = next((line for line, found in pairs if line != found), "no more lines")
        raise UserError(
            f"{file}: the table is out of date, expected {expected}. Run slowfast model-info --write {file}"
        )


def table_in_file(file: Path) -> str:
    """Return the text between the marker comments of a file. Raises UserError if it has none."""
    try:
        text = read_text_file(file, MAX_BYTES)
    except UnreadableTextError as error:
        raise UserError(f"{plain(file)} {error}. Give a Markdown file such as docs/MODEL_ZOO.md") from None
    _, begin, rest = text.partition(f"{BEGIN}\n")
    table, end, _ = rest.partition(f"\n{END}")
    if not begin or not end:
        raise UserError(f"{plain(file)} has no lines {BEGIN} and {END}. Add them where the table belongs")
    return table
