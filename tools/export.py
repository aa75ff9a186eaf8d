#!/usr/bin/env python3
"""Alias of `slowfast export`."""

from __future__ import annotations

import sys
from pathlib import Path

# Run from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
