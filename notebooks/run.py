"""Runs a notebook's cells, as a reader would or with the small sizes that tests use.

    python notebooks/run.py notebooks/diffusion.ipynb --short                 # in this process
    python notebooks/run.py notebooks/diffusion.ipynb --kernel --save=DIR   # in a kernel; DIR gets all outputs

A notebook has one cell of sizes, which has the tag `parameters`; that cell's metadata hold the short values as `short`.
The kernel needs `pip install -e ".[notebook]"`.
"""

from __future__ import annotations

import argparse
import copy
import json
import pathlib
import re
from typing import Any

Notebook = dict[str, Any]


def read(path: pathlib.Path) -> Notebook:
    """Returns a notebook as it is in its file."""
    return json.loads(path.read_text(encoding="utf-8"))


def tagged(notebook: Notebook, tag: str) -> list[dict[str, Any]]:
    """Returns the cells that have a tag."""
    return [cell for cell in notebook["cells"] if tag in cell["metadata"].get("tags", ())]


def shortened(notebook: Notebook) -> Notebook:
    """Returns a copy in which the cell of sizes ends with its short values."""
    notebook = copy.deepcopy(notebook)
    (cell,) = tagged(notebook, "parameters")
    short = {k: tuple(v) if isinstance(v, list) else v for k, v in cell["metadata"]["short"].items()}
    cell["source"] += ["\n", *(f"{name} = {value!r}\n" for name, value in short.items())]
    return notebook


def code(notebook: Notebook) -> list[str]:
    """Returns the cells of code as Python; a line that begins with % is the notebook's own and does nothing here."""
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [re.sub(r"^(\s*)%.*$", r"\1pass", cell, flags=re.M) for cell in cells]


def execute(notebook: Notebook, name: str) -> dict[str, Any]:
    """Runs the cells in this process, in one namespace, and returns it; `name` is the notebook's in tracebacks."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code(notebook)):
        exec(compile(cell, f"{name}, code cell {number}", "exec"), scope)
    return scope


def main() -> None:
    """Reads the command line and runs the notebook."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("--short", action="store_true", help="with the small sizes")
    parser.add_argument("--kernel", action="store_true", help="in a kernel of Jupyter")
    parser.add_argument("--save", type=pathlib.Path, help="the folder of the notebook with its outputs; for --kernel")
    told = parser.parse_args()
    notebook = shortened(read(told.notebook)) if told.short else read(told.notebook)
    if not told.kernel:
        execute(notebook, told.notebook.name)
        return
    import nbclient
    import nbformat

    ran = nbformat.reads(json.dumps(notebook), as_version=4)
    folder = {"metadata": {"path": str(told.notebook.resolve().parent)}}
    nbclient.NotebookClient(ran, timeout=None, resources=folder).execute()
    if told.save:
        told.save.mkdir(parents=True, exist_ok=True)
        nbformat.write(ran, told.save / told.notebook.name)


if __name__ == "__main__":
    main()
