#!/usr/bin/env python3
"""Make demo data in the layout of a dataset.

python tools/make_demo_data.py --format kinetics --out demo/kinetics
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_data.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
