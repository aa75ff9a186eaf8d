#!/usr/bin/env python3
"""Draws an event recording as a film or as points in space and time.

python tools/draw_events.py recording.npz events.mp4
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.draw_dvs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
