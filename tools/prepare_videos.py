#!/usr/bin/env python3
"""Re-encodes a collection of videos for fast training.

python tools/prepare_videos.py kinetics/ kinetics_256/ --index kinetics/train.csv kinetics/val.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.prepare import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
