"""`python -m interp` is the `interp` command."""

from __future__ import annotations

import sys

from interp.cli import main

if __name__ == "__main__":
    sys.exit(main())
