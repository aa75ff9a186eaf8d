#!/usr/bin/env python3
"""Finds a threshold for event-driven inference and writes a config with it.

python tools/calibrate_events.py --cfg configs/ImageNet/EVMLP.yaml videos --top1 0.99
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.calibrate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
