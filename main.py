"""This script starts jaxgen's command line in a checkout; `python -m jaxgen` does the same in any folder.

    python main.py --config=configs/ddpm_digits.py --workdir=runs/ddpm_digits

On Linux the process first restarts itself with large memory pages (`jaxgen.command.large_pages`). Set
JAXGEN_LARGE_PAGES=0 in the environment to switch that off, for example under a debugger.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from jaxgen.command.large_pages import restart_with_large_pages

    restart_with_large_pages()  # first, so that nothing is imported twice

    from jaxgen.command.run import end_with, main

    end_with(lambda: main(sys.argv[1:]))
