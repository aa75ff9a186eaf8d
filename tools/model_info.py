#!/usr/bin/env python3
"""Prints a table of the published settings: sizes counted here, published accuracies, weights and their licences.

python tools/model_info.py
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.model_info import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
