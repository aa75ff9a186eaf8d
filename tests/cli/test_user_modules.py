"""--import: user modules register networks and datasets before the config is checked, also in worker processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowfast.errors import UserError
from slowfast.utils import imports
from slowfast.utils.imports import import_user_modules, imported_modules
from slowfast.utils.worker_pool import TaskResult, WorkerPool

S16 = "K400/K400_MLP_S16x4"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Working directory for modules; modules imported from it are removed from sys.modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(imports, "_imported", [])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["own_parts", "own_parts.py", "{folder}/own_parts.py", "own_package.parts"])
def test_a_module_is_a_name_or_a_file(folder: Path, name: str) -> None:
    (folder / "own_package").mkdir()
    for file in ("own_parts.py", "own_package/__init__.py", "own_package/parts.py"):
        (folder / file).write_text("VALUE = 3\n")
    import_user_modules([name.format(folder=folder)])
    assert sys.modules[Path(name).stem if ".py" in name else name].VALUE == 3
    assert len(imported_modules()) == 1


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("own_parts_x", "", "no module own_parts_x in the current folder or installed. Did you mean own_parts"),
        ("gone.py", "", "no such .py file"),
        ("a b", "", "not a module name"),
        ("own-parts.py", "", "no such .py file"),
        ("json.py", "", "another module json"),
        ("own_parts.py", "import not_there_at_all\n", "own_parts.py: ModuleNotFoundError: No module named"),
        ("own_parts", "\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*own_parts.py:2\)"),
        ("own_parts", "x = (\n", r"SyntaxError: .*own_parts.py:1\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(
    folder: Path, name: str, text: str, answer: str
) -> None:
    (folder / "own_parts.py").write_text(text)
    (folder / "json.py").touch()
    with pytest.raises(UserError, match=answer) as caught:
        import_user_modules([name])
    assert str(caught.value).startswith(f"--import {name}: ") and imported_modules() == ()


NETWORK = """
from slowfast.models.build import MODEL_REGISTRY
from slowfast.models.convmlp import ConvMLP

@MODEL_REGISTRY.register()
class OwnNetwork(ConvMLP):
    pass
"""


def _answer(name: str) -> bool:
    return name in sys.modules


def test_spawned_workers_import_it_too(folder: Path) -> None:
    (folder / "own_parts.py").write_text("VALUE = 3\n")
    import_user_modules(["own_parts"])
    pool: WorkerPool[str, bool] = WorkerPool(_answer, 1)
    pool.submit(0, "own_parts")
    try:
        assert pool.wait() == TaskResult(0, True)
    finally:
        pool.close()
