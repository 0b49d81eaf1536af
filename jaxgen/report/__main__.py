"""`python -m jaxgen.report WORKDIR`: makes a run's report.html again from the files in its folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jaxgen.errors import UserError
from jaxgen.report.page import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input, after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxgen.report", description="Makes WORKDIR/report.html again."
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="the folder of a run; gs:// works")
    workdir = parser.parse_args(arguments).workdir
    try:
        print(write_report(workdir))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
