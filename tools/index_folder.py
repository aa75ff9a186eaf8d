#!/usr/bin/env python3
"""Writes the index files of a folder of class folders of videos, folders of frames, or images.

python tools/index_folder.py my_videos --out my_index
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.index import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
