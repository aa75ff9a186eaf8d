#!/usr/bin/env python3
"""Writes a network as one file for other programs, and checks it.

python tools/export.py --cfg configs/ImageNet/EAT_TI.yaml --out net.onnx TEST.CHECKPOINT_FILE_PATH weights.pth
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.export import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
