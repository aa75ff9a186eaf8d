#!/usr/bin/env python3
"""Converts recordings of event cameras to .npz files.

python tools/convert_events.py my_recordings/ my_events/
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.convert_dvs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
