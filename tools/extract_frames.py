#!/usr/bin/env python3
"""Writes the frames of a collection of videos as JPEG files.

python tools/extract_frames.py my_videos/ my_frames/
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.extract_frames import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
