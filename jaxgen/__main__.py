"""`python -m jaxgen` is the command line of `main.py` for use in any folder; configs are given by their path."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from jaxgen.command.large_pages import restart_with_large_pages

    restart_with_large_pages()

    from jaxgen.command.run import end_with, main

    end_with(lambda: main(sys.argv[1:], program=("-m", "jaxgen")))
