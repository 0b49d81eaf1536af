"""Writes a trained classifier into the package: `python -m jaxgen.evaluation.export_classifier RUN [digits | fashion]`.

The package's feature networks `digits` and `fashion` read their weights from there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from jaxgen.entry_point import Parser, a_path, entry_point
from jaxgen.errors import UserError
from jaxgen.files import whole_file
from jaxgen.methods.base import check_loaded
from jaxgen.metrics import networks
from jaxgen.metrics.networks.classifier import packaged
from jaxgen.runs.loaded_groups import load_group


def export(workdir: epath.PathLike, name: str = "digits", folder: epath.PathLike | None = None) -> epath.Path:
    """Writes a run's classifier as the float16 weights of the feature network `name`; returns the file.

    Args:
      folder: the folder to write to; by default the one where the package looks for them.

    Raises:
      UserError: for an unknown name, or where the run's network is another one.
    """
    known = packaged(name, "the name")
    params, _, _ = load_group(workdir, "classifier")
    example = jax.ShapeDtypeStruct((1, *known.shape), np.float32)
    wanted = jax.eval_shape(known.network.init, jax.random.key(0), example)["params"]
    try:
        check_loaded("classifier", params, wanted)
    except UserError as error:
        raise UserError(
            f"{workdir} holds another network than that of {name!r}; train its config, or give another name."
        ) from error
    flat = {f"{layer}/{leaf}": np.asarray(x, np.float16) for layer, p in params.items() for leaf, x in p.items()}
    path = epath.Path(folder or epath.Path(networks.__file__).parent) / known.file
    with whole_file(path) as file:
        np.savez_compressed(file, **flat)  # type: ignore[arg-type]  # mypy fears an array called "allow_pickle"
    return path


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the weights and prints their path."""
    parser = Parser(
        prog="python -m jaxgen.evaluation.export_classifier",
        description="Writes a trained classifier into the package.",
    )
    parser.add_argument("workdir", metavar="RUN", type=a_path("RUN"), help="the folder of the classifier's run")
    parser.add_argument("name", metavar="NAME", nargs="?", default="digits", help="digits or fashion")
    given = parser.parse_args(arguments)
    print(export(given.workdir, given.name))


if __name__ == "__main__":
    sys.exit(main())
