#!/usr/bin/env python3
"""Former name of tools/draw_dvs.py; alias of `slowfast draw-dvs`."""

from __future__ import annotations

import sys
from pathlib import Path

# Run from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["draw-dvs", *sys.argv[1:]]))
