"""Runs the fuzzer by hand; see `fuzzing`."""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    """Prints each fault as it is found, and at the end how many cases ended in which way."""
    sys.path[:1] = [os.fspath(TESTS.parent), os.fspath(TESTS)]
    import conftest  # noqa: F401  # one cache of compiled programs for all tests

    from fuzzing.drive import fuzz

    parser = argparse.ArgumentParser(prog="python tests/fuzzing", description="Gives every command bad inputs.")
    parser.add_argument("--seed", type=int, default=0, help="other seeds make other inputs")
    parser.add_argument("--num", type=int, default=100, help="how many inputs")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one; one alone: --num=1")
    parser.add_argument("--verbose", action="store_true", help="also prints what was refused or run")
    given = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    for one in fuzz(given.seed, range(given.first, given.first + given.num)):
        counts["fault" if one.fault else one.verdict] += 1
        if one.fault or given.verbose or given.num == 1:
            print(f"--seed={given.seed} --first={one.number}: {one.verdict} ({one.seconds:.1f} s)")
            print("    " + one.case[:3000])
            said = one.err if one.fault or given.num == 1 else one.err[-500:]
            print("    " + said.replace("\n", "\n    "), flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    return int(counts["fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
