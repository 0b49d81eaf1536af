"""What every shipped config needs of a machine that is not here: the table of docs/scale.md.

    python -m benchmarks.plan_all --topology=v5e:2x4 --out=plans

Compiles each config's update ahead of time, as `--mode=plan` does, and prints one line of a Markdown table for each as
it comes; `--out` keeps every plan's JSON, and a second call goes on where the first ended. A config that needs trained
weights which are not here is listed with what it asks for. Further arguments are paths of configs, all of `configs/`
without.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
from typing import Any

from jaxgen.commandline import load_config
from jaxgen.config import check
from jaxgen.errors import UserError
from jaxgen.planning.topology import use_topology
from jaxgen.report.numbers import number
from jaxgen.report.plan import seconds, size

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEADS = (
    "config",
    "parameters",
    "batch",
    "state",
    "activations",
    "in all",
    "work of an image",
    "sent",
    "time",
    "bound by",
)


def row(name: str, plan: dict[str, Any]) -> list[str]:
    """The table's cells of one plan, all per device but the parameters, the batch and the work of an image."""
    update = plan["programs"][0]
    memory, estimate = update["memory"], update["estimate"]
    cells = [name, f"{plan['parameters']:,}", f"{plan['batch_size']}", size(sum(plan["state"].values()))]
    cells += [size(memory.get("temporaries")), size(memory["total"]) + ("" if plan["fits"] else ", does not fit")]
    cells += [f"{number(update['work'] / 1e9)} GFLOP", size(sum(c["moved"] for c in update["collectives"].values()))]
    if estimate:
        return [*cells, f"{seconds(estimate['least'])} to {seconds(estimate['most'])}", estimate["bound"]]
    return [*cells, "", ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--out", default="")
    parser.add_argument("configs", nargs="*")
    options = parser.parse_args()
    use_topology(options.topology)
    from jaxgen.planning.plan import plan

    out = pathlib.Path(options.out or tempfile.mkdtemp(prefix="plans_"))
    out.mkdir(parents=True, exist_ok=True)
    paths = [pathlib.Path(p) for p in options.configs] or sorted((ROOT / "configs").glob("[!_]*.py"))
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    for path in paths:
        kept = out / f"{path.stem}.{options.topology.replace(':', '_')}.json"
        try:
            if not kept.exists():
                config, _ = load_config(path)
                check(config)
                kept.write_text(json.dumps(plan(config, options.topology, sampler=False).to_dict()))
            cells = row(path.stem, json.loads(kept.read_text()))
        except UserError as error:
            cells = [path.stem, str(error), *[""] * (len(HEADS) - 2)]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
