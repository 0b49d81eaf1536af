"""Writes a trained judge into the package: `python -m jaxgen.interop.judge_weights runs/judge_digits`."""

from __future__ import annotations

import sys

import numpy as np
from etils import epath

from jaxgen.metrics import digits
from jaxgen.train.checkpoint import load_group


def export(workdir: str) -> epath.Path:
    """Writes the run's classifier as the digits judge's float16 weights; returns the file."""
    params, _, _ = load_group(workdir, "classifier")
    flat = {f"{layer}/{leaf}": x.astype(np.float16) for layer, p in params.items() for leaf, x in p.items()}
    path = epath.Path(digits.__file__).parent / digits.WEIGHTS
    with path.open("wb") as file:
        np.savez_compressed(file, **flat)
    return path


if __name__ == "__main__":
    print(export(sys.argv[1]))
