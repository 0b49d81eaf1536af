"""Runs `python -m jaxgen.metrics A B`; see `jaxgen.metrics.command`."""

from __future__ import annotations

import sys

from jaxgen.metrics.command import main

if __name__ == "__main__":
    sys.exit(main())
