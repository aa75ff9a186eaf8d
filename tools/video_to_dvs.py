#!/usr/bin/env python3
"""Writes what an event camera would have seen of a collection of videos.

python tools/video_to_events.py my_videos/ my_events/
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.video_to_dvs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
