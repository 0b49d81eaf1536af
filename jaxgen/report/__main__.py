"""`python -m jaxgen.report WORKDIR` makes a run's report.html again from the files in its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxgen.entry_point import Parser, a_path, entry_point
from jaxgen.report.page import write_report


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the report and prints its path."""
    parser = Parser(prog="python -m jaxgen.report", description="Makes WORKDIR/report.html again.")
    parser.add_argument("workdir", metavar="WORKDIR", type=a_path("WORKDIR"), help="the folder of a run; gs:// works")
    print(write_report(parser.parse_args(arguments).workdir))


if __name__ == "__main__":
    sys.exit(main())
