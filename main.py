"""jaxgen's command line in a checkout: hands over to `jaxgen.command`, as `python -m jaxgen` does anywhere.

    python main.py --config=configs/ddpm_digits.py --workdir=runs/ddpm_digits

On Linux the process first begins again with large memory pages (`jaxgen.command.large_pages`); JAXGEN_LARGE_PAGES=0 in
the environment switches that off, for a debugger.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from jaxgen.command.large_pages import restart_with_large_pages

    restart_with_large_pages()  # before the other imports, which it would do twice

    from jaxgen.command.run import main

    sys.exit(main(sys.argv[1:]))
