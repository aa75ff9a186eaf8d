#!/usr/bin/env python3
"""Measure the training pipeline, the test pipeline and a network on this machine.

python tools/benchmark.py --videos kinetics/val/abseiling
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
