"""Compilation of kernels/*.cpp with the machine's C++ compiler."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from slowfast.utils.machine import cpu_description
from slowfast.utils.private_cache import private_cache

_SOURCES = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")


def build_library() -> Path:
    """Return the shared library for these sources, flags, compiler and CPU; compile it if it is not in the cache.

    Raises:
        OSError: If there is no compiler, or it fails.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if compiler is None:
        raise OSError("No C++ compiler found. Install one (g++) or set CXX")
    command = [compiler, *_FLAGS, *_threads_of_pytorch()]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    sources = [file.read_bytes() for file in sorted(_SOURCES.glob("*.[ch]*"))]
    what = b"\0".join((*sources, " ".join(command).encode(), version, cpu_description()))
    library = private_cache(f"kernels-{hashlib.sha256(what).hexdigest()[:32]}.so")
    if not library.exists():
        # Another process may be compiling it at the same time.
        with tempfile.TemporaryDirectory(dir=library.parent) as own:
            made = Path(own) / library.name
            files = map(str, sorted(_SOURCES.glob("*.cpp")))
            result = subprocess.run([*command, *files, "-o", str(made)], capture_output=True, text=True)
            if result.returncode:
                raise OSError(f"{compiler} failed: {result.stderr.strip().splitlines()[-1:]}")
            made.chmod(0o700)  # whatever the umask: others must not be able to write to it
            made.replace(library)
    return library


def _threads_of_pytorch() -> list[str]:
    """Return flags to link PyTorch's OpenMP library: two of them would compete for the cores."""
    folder = Path(torch.__file__).parent / "lib"
    return [flag for file in sorted(folder.glob("libgomp*")) for flag in (f"-L{folder}", f"-l:{file.name}")]


def has_matrix_unit() -> bool:
    """Check if this CPU has a matrix unit for bfloat16 (AMX)."""
    return b"amx_bf16" in cpu_description()
