#!/usr/bin/env python3
"""Train and test a model as described by a config file.

python tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml TEST.NUM_ENSEMBLE_VIEWS 4
"""

from __future__ import annotations

import sys
from pathlib import Path

# Run from any folder, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.signals import ignore_signals, prepare_process

if __name__ == "__main__":
    prepare_process()  # before the slow imports

from slowfast.cli.train import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    ignore_signals()
    sys.exit(status)
