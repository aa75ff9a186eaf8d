#!/usr/bin/env python3
"""The five best classes of any video, image or folder.

python tools/predict.py --cfg configs/K400/K400_MLP_S16x4.yaml clip.mp4 TEST.CHECKPOINT_FILE_PATH weights.pyth
"""

from __future__ import annotations

import sys
from pathlib import Path

# Runs from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.cli.predict import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
