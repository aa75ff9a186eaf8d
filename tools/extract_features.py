#!/usr/bin/env python3
"""Writes the features of every clip of an index.

python tools/extract_features.py --cfg configs/K400/K400_MLP_S16x4.yaml --split test --out features.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.features import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
