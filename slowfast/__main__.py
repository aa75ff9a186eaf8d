"""`python -m slowfast COMMAND`."""

from __future__ import annotations

import sys

from slowfast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
