#!/usr/bin/env python3
"""Pictures of where a network looks.

python tools/grad_cam.py --cfg configs/K400/K400_MLP_S16x4.yaml clip.mp4 TEST.CHECKPOINT_FILE_PATH weights.pyth
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.grad_cam import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
