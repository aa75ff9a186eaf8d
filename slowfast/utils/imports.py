"""Optional packages (extras), and user modules that register networks, datasets or optimizers (`--import`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from slowfast.errors import UserError
from slowfast.utils.text import did_you_mean, nearest_name, plain

OPTION = "--import"

_imported: list[str] = []  # user modules, by name or absolute path


def import_extra(
    module: str, extra: str, where: str, otherwise: str = "", error_type: type[Exception] = UserError
) -> Any:
    """Import a module of an optional package.

    Args:
        module: Dotted name of the module.
        extra: Extra of slowfast that installs the package.
        where: File, option or command that needs it, for the message.
        otherwise: What can be done instead of installing it, such as "use .pt2".
        error_type: Class of the error.

    Raises:
        UserError: If it cannot be imported. The message names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        needed = f"{where} needs {module.partition('.')[0]}, which cannot be imported ({error})"
        advice = f'Run pip install "slowfast[{extra}]"' + (f", or {otherwise}" if otherwise else "")
        raise error_type(f"{needed}. {advice}") from error


def import_user_modules(modules: Iterable[str]) -> None:
    """Import user modules that register networks, datasets or optimizers.

    Args:
        modules: Module names, also of modules in the current folder, or paths of .py files. Modules that have been
            imported before are skipped.

    Raises:
        UserError: If a module does not exist or raises an exception.
    """
    for module in modules:
        key = os.path.abspath(module) if module.endswith(".py") else module
        if key in _imported:
            continue
        name = _name_of_file(Path(module)) if module.endswith(".py") or os.sep in module else _name_in_folder(module)
        try:
            import_module(name)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{OPTION} {plain(module)}: {_reason(error)}") from error
        _imported.append(key)


def imported_modules() -> Sequence[str]:
    """Return the modules imported with `import_user_modules`, so that worker processes can import them, too."""
    return tuple(_imported)


def _name_in_folder(module: str) -> str:
    """Return a module name after making modules of the current folder importable."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"{OPTION} {plain(module)}: not a module name. Give a module name or the path of a .py file")
    _add_to_path(Path.cwd())
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        near = nearest_name(package, (path.stem for path in Path.cwd().glob("*.py")))
        raise UserError(
            f"{OPTION} {plain(module)}: no module {plain(package)} in the current folder or installed."
            f"{did_you_mean(near)}"
        )
    return module


def _name_of_file(path: Path) -> str:
    """Return the module name of a file after making its folder importable.

    The file becomes an ordinary module, so that worker processes find its classes when they unpickle them.
    """
    where = f"{OPTION} {plain(path)}"
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"{where}: no such .py file. Give the path of one or the name of a module")
    if not path.stem.isidentifier():
        raise UserError(f"{where}: {plain(path.stem)} is not a valid module name. Rename the file")
    _add_to_path(path.resolve().parent)
    found = importlib.util.find_spec(path.stem)
    origin = found.origin if found is not None else None
    if origin is None or os.path.realpath(origin) != os.path.realpath(path):
        raise UserError(f"{where}: there is another module {path.stem} ({plain(origin)}). Rename the file")
    return path.stem


def _add_to_path(folder: Path) -> None:
    """Append a folder to the import path."""
    if not any(os.path.realpath(entry or os.curdir) == os.path.realpath(folder) for entry in sys.path):
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _reason(error: Exception) -> str:
    """Return a description of an exception with its file and line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    last = frames[-1] if frames and frames[-1].filename != __file__ else None
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({plain(error.filename)}:{error.lineno})"
    else:
        where = f" ({plain(last.filename)}:{last.lineno})" if last else ""
    return f"{type(error).__name__}: {plain(error)}{where}"
