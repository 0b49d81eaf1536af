"""Compares what the histories and newest checkpoints of two runs hold, to the bit or by the largest difference."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

CLOCK = ("seconds", "images_per_second")  # numbers of a history that are times


def history(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the finished lines of `metrics.jsonl`, without the numbers that are times."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in rows]


def finished_steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints that are complete, in order."""
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def partial_saves(workdir: pathlib.Path) -> list[str]:
    """Returns the names of the checkpoints that are being written, or that a killed process left unfinished."""
    folder = workdir / "checkpoints"
    return sorted(p.name for p in folder.iterdir() if "tmp" in p.name) if folder.exists() else []


def checkpoint(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns everything in the newest checkpoint that does not depend on the clock: `{name: array or plain value}`.

    Arrays are named `<item>/<path>` (`params/denoiser/...`), checksums `sums/<name>`, and the rest `meta/<name>`.
    """
    import jax
    from etils import epath

    from jaxgen.runs.loaded_groups import read_item

    folder = workdir.absolute() / "checkpoints" / str(finished_steps(workdir)[-1])
    found: dict[str, Any] = {}
    for item in sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != "meta"):
        for path, leaf in jax.tree_util.tree_flatten_with_path(read_item(epath.Path(folder / item)))[0]:
            found[f"{item}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = np.asarray(leaf)
    meta = json.loads((folder / "meta" / "metadata").read_text())
    sums = meta.pop("sums", {})
    found |= {f"sums/{name}": value for name, value in sums.items() if name != "meta"}  # meta's own sum has the clock
    found |= {f"meta/{name}": value for name, value in meta.items() if name != "seconds"}
    return found


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns the names that only one of two checkpoints has, or whose values differ in any bit."""

    def bits(value: object) -> object:
        return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value

    names = {*one, *other}
    return sorted(n for n in names if n not in one or n not in other or bits(one[n]) != bits(other[n]))


def compare(straight: pathlib.Path, resumed: pathlib.Path) -> list[str]:
    """Returns sentences on what differs between an undisturbed and a resumed run; none if all bits agree."""
    said = [f"the last checkpoint's {name} differs" for name in differing(checkpoint(straight), checkpoint(resumed))]
    one, other = history(straight), history(resumed)
    if [row["step"] for row in other] != sorted({row["step"] for row in other}):
        said.append("the history holds a step twice, or goes back")
    if one != other:
        said.append("the histories differ")
    if partial_saves(resumed):
        said.append(f"half-written checkpoints are left: {partial_saves(resumed)}")
    return said


def difference(one: pathlib.Path, two: pathlib.Path) -> dict[str, Any]:
    """Returns the largest absolute differences of losses and of arrays, and whether the arrays are equal to the bit.

    Both differences are infinite where the runs have other log lines, arrays or last steps.
    """
    a, b = ({k: v for k, v in checkpoint(run).items() if isinstance(v, np.ndarray)} for run in (one, two))
    before, after = _losses(one), _losses(two)
    if a.keys() != b.keys() or before.keys() != after.keys() or finished_steps(one)[-1] != finished_steps(two)[-1]:
        return {"losses": float("inf"), "arrays": float("inf"), "equal": False}
    return {
        "losses": max(abs(before[i][k] - after[i][k]) for i in before for k in before[i]),
        "arrays": max(float(np.abs(a[k].astype(np.float64) - b[k].astype(np.float64)).max(initial=0)) for k in a),
        "equal": all(a[k].tobytes() == b[k].tobytes() for k in a),
    }


def _losses(workdir: pathlib.Path) -> dict[int, dict[str, float]]:
    """Returns `{images: {name: loss}}` of the history."""
    return {row["images"]: {k: v for k, v in row.items() if k.endswith("/loss")} for row in history(workdir)}
