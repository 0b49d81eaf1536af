"""Prints what every shipped config needs of a machine that is not here: the table of docs/scale.md.

    python -m benchmarks.plan_all --topology=v5e:2x4 --out=plans

Compiles each config's update ahead of time, as `--mode=plan` does, and prints one line of a Markdown table for each as
it comes; `--out` keeps every plan's JSON, and a second call goes on where the first ended. A config that needs trained
weights which are not here is listed with what it asks for.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

from jaxgen.config import check
from jaxgen.config.files import load_config
from jaxgen.errors import UserError
from jaxgen.planning.topology import use_topology
from jaxgen.report.numbers import number
from jaxgen.report.plan import seconds, size
from studies import harness

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
    """Returns the table's cells of one plan, all per device but the parameters, the batch and the work of an image."""
    update = plan["programs"][0]
    memory, estimate = update["memory"], update["estimate"]
    cells = [name, f"{plan['parameters']:,}", f"{plan['batch_size']}", size(sum(plan["state"].values()))]
    cells += [size(memory.get("temporaries")), size(memory["total"]) + ("" if plan["fits"] else ", does not fit")]
    cells += [f"{number(update['work'] / 1e9)} GFLOP", size(sum(c["moved"] for c in update["collectives"].values()))]
    if estimate:
        return [*cells, f"{seconds(estimate['least'])} to {seconds(estimate['most'])}", estimate["bound"]]
    return [*cells, "", ""]


def main(
    topology: str = "v5e:2x4",
    out: Annotated[str, "a folder that keeps the plans; a temporary one without it"] = "",
    configs: Annotated[tuple[str, ...], "names in configs/, separated by commas; by default all"] = (),
) -> None:
    use_topology(topology)
    from jaxgen.planning.plan import plan

    folder = Path(out or tempfile.mkdtemp(prefix="plans_"))
    folder.mkdir(parents=True, exist_ok=True)
    names = configs or tuple(path.stem for path in sorted(harness.CONFIGS.glob("[!_]*.py")))
    print(harness.table(HEADS, []))
    for name in names:
        kept = folder / f"{name}.{topology.replace(':', '_')}.json"
        try:
            if not kept.exists():
                config, _ = load_config(harness.config_path(name))
                check(config)
                kept.write_text(json.dumps(plan(config, topology, sampler=False).to_dict()))
            cells = row(name, json.loads(kept.read_text()))
        except UserError as error:
            cells = [name, str(error), *[""] * (len(HEADS) - 2)]
        print(harness.table_row(cells), flush=True)


if __name__ == "__main__":
    sys.exit(harness.run(main))
