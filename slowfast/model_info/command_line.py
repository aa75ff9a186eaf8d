"""The command line of `tools/model_info.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from slowfast.errors import UserError
from slowfast.model_info.rows import COLUMNS, ModelRow, describe_all, grouped_cells, markdown_table, published_settings
from slowfast.runtime.command import CommandParser, exit_status
from slowfast.runtime.screen import show, show_table
from slowfast.runtime.unfinished import write_whole
from slowfast.utils.output import check_output_file
from slowfast.utils.quote import plain
from slowfast.utils.text_file import MIB, UnreadableTextError, read_text_file

MAX_BYTES = 16 * MIB
BEGIN, END = "<!-- begin: tools/model_info.py -->", "<!-- end: tools/model_info.py -->"
EXAMPLE = "python tools/model_info.py --cfg configs/K400/K400_MLP_S16x4.yaml"
USAGE = "%(prog)s [--cfg FILE ...] [--markdown] [--check FILE | --write FILE]"
DESCRIPTION = f"""\
Print a table of the published settings under configs/: parameters and multiply-adds, counted here without computing
anything; the input; the published accuracy; where the weights are, their licence, and what was verified here.

  python tools/model_info.py
  {EXAMPLE}
  python tools/model_info.py --write docs/MODEL_ZOO.md     update the table between the two marker comments
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; UserError for one that cannot be parsed."""
    parser = CommandParser("model_info.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("--cfg", type=Path, nargs="+", metavar="FILE", help="some settings (default: all published)")
    parser.add_argument("--markdown", action="store_true", help="print it as Markdown")
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--check", type=Path, metavar="FILE", help="exit 2 unless the file holds the table as it is now")
    goal.add_argument("--write", type=Path, metavar="FILE", help="put the table into the file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print, check or write the table and return the exit status: 0 done, 2 user error."""
    return exit_status(lambda: _run(parse(arguments)))


def _run(chosen: argparse.Namespace) -> None:
    file = chosen.check or chosen.write
    if file is not None and chosen.cfg is not None:
        raise UserError("--check and --write are for the whole table. Remove --cfg")
    if file is not None:
        held_table(file)  # before the counting
    if chosen.write is not None:
        check_output_file(chosen.write, "--write")
    rows = describe_all(chosen.cfg or published_settings())
    if chosen.check is not None:
        check_file(chosen.check, rows)
        show(f"{chosen.check}: its table is up to date")
    elif chosen.write is not None:
        held, now = (f"{BEGIN}\n{table}\n{END}" for table in (held_table(chosen.write), markdown_table(rows)))
        write_whole(chosen.write, chosen.write.read_text(encoding="utf-8").replace(held, now))
        show(f"written: {chosen.write}")
    elif chosen.markdown:
        show_table(markdown_table(rows))
    else:
        show_table(tabulate(grouped_cells(rows), headers=COLUMNS, tablefmt="simple", disable_numparse=True))


def check_file(file: Path, rows: Sequence[ModelRow]) -> None:
    """Raise UserError, with the first line that differs, unless the table in the file is that of the rows."""
    held, now = held_table(file).splitlines(), markdown_table(rows).splitlines()
    if held != now:
        pairs = zip(now, [*held, *[""] * len(now)], strict=False)
        wanted = next((new for new, old in pairs if new != old), "no more lines")
        raise UserError(f"{file}: its table is out of date, run tools/model_info.py --write {file}; expected {wanted}")


def held_table(file: Path) -> str:
    """What stands between the marker comments of a file; UserError where they are missing."""
    try:
        text = read_text_file(file, MAX_BYTES)
    except UnreadableTextError as error:
        raise UserError(f"{plain(file)} {error}. Give a Markdown file such as docs/MODEL_ZOO.md") from None
    start, found, rest = text.partition(f"{BEGIN}\n")
    table, end, _ = rest.partition(f"\n{END}")
    if not found or not end:
        raise UserError(f"{plain(file)} has no lines {BEGIN} and {END}. Add them; the table goes between them")
    return table
