"""Shared libraries that are compiled with the machine's C++ compiler when they are first needed, and then cached."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from slowfast.utils.private_cache import private_cache


def find_compiler() -> str:
    """Return the path of the C++ compiler: CXX, c++, g++ or clang++; "" if there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), "")


def compiled_library(name: str, sources: Sequence[Path], flags: Sequence[str], depends_on: bytes = b"") -> Path:
    """Return the shared library for some sources, flags and this compiler; compile it if it is not in the cache.

    Args:
        name: Start of the name in the cache.
        sources: C++ files, and headers beside them.
        flags: Flags of the compiler.
        depends_on: What else the library depends on, such as the CPU.

    Raises:
        OSError: If there is no compiler, or it fails.
    """
    compiler = find_compiler()
    if not compiler:
        raise OSError("No C++ compiler found. Install one (g++) or set CXX")
    command = [compiler, *flags]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    content = [file.read_bytes() for file in sources]
    what = b"\0".join((*content, " ".join(command).encode(), version, depends_on))
    library = private_cache(f"{name}-{hashlib.sha256(what).hexdigest()[:32]}.so")
    if not library.exists():
        # Another process may be compiling it at the same time.
        with tempfile.TemporaryDirectory(dir=library.parent) as own:
            made = Path(own) / library.name
            files = [str(file) for file in sources if file.suffix == ".cpp"]
            result = subprocess.run([*command, *files, "-o", str(made)], capture_output=True, text=True)
            if result.returncode:
                raise OSError(f"{compiler} failed: {result.stderr.strip().splitlines()[-1:]}")
            made.chmod(0o700)  # whatever the umask: others must not be able to write to it
            made.replace(library)
    return library
