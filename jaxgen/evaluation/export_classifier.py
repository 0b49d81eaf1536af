"""Writes a trained judge into the package: `python -m jaxgen.evaluation.export_classifier RUN [digits | fashion]`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from jaxgen import metrics
from jaxgen.entry_point import Parser, entry_point
from jaxgen.errors import UserError
from jaxgen.methods.base import check_loaded
from jaxgen.metrics.judge import Judge
from jaxgen.runs.loaded_groups import load_group

JUDGES = ("digits", "fashion")


def export(workdir: epath.PathLike, name: str = "digits", folder: epath.PathLike | None = None) -> epath.Path:
    """Writes a run's classifier as the float16 weights of the judge `name`; returns the file.

    Args:
      folder: where to; by default where the package looks for them.

    Raises:
      UserError: where the run's network is not the judge's.
    """
    judge: Judge = importlib.import_module(f"jaxgen.metrics.{name}").JUDGE
    params, _, _ = load_group(workdir, "classifier")
    example = jax.ShapeDtypeStruct((1, *judge.shape), np.float32)
    wanted = jax.eval_shape(judge.network.init, jax.random.key(0), example)["params"]
    try:
        check_loaded("classifier", params, wanted)
    except UserError as error:
        raise UserError(
            f"{workdir} holds another network than the {name} judge's; train its config, or name another judge."
        ) from error
    flat = {f"{layer}/{leaf}": np.asarray(x, np.float16) for layer, p in params.items() for leaf, x in p.items()}
    path = epath.Path(folder or epath.Path(metrics.__file__).parent) / judge.file
    with path.open("wb") as file:
        np.savez_compressed(file, **flat)
    return path


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the weights and prints their path."""
    parser = Parser(
        prog="python -m jaxgen.evaluation.export_classifier", description="Writes a trained judge into the package."
    )
    parser.add_argument("workdir", metavar="RUN", help="the folder of the classifier's run")
    parser.add_argument("judge", choices=JUDGES, nargs="?", default="digits")
    given = parser.parse_args(arguments)
    print(export(given.workdir, given.judge))


if __name__ == "__main__":
    sys.exit(main())
