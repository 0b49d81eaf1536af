"""Writes a trained classifier as the weights of a feature network.

    python -m jaxgen.evaluation.export_classifier RUN --out=FILE.npz        # config.evaluate.network="classifier"
    python -m jaxgen.evaluation.export_classifier RUN [digits | fashion]    # into the package

The package's feature networks `digits` and `fashion` read their weights from the package; `classifier` is that of a
file, and serves any data.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from jaxgen.arrays import Tree
from jaxgen.config import image_shape
from jaxgen.entry_point import Parser, a_path, add_trust, entry_point
from jaxgen.errors import UserError
from jaxgen.files import check_writable_file, whole_file
from jaxgen.methods.base import check_loaded
from jaxgen.metrics import networks
from jaxgen.metrics.networks.classifier import packaged
from jaxgen.metrics.networks.trained import CLASSES, SHAPE, is_classifier, network_of
from jaxgen.runs.loaded_groups import load_group
from jaxgen.runs.setup import make_method
from jaxgen.runs.workdir import stored_config


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
    path = epath.Path(folder or epath.Path(networks.__file__).parent) / known.file
    return _write(path, params, np.float16)


def export_file(workdir: epath.PathLike, path: epath.PathLike, trust: Sequence[str] = ()) -> epath.Path:
    """Writes a run's classifier as a file that the feature network `classifier` reads; returns the file.

    Of a classifier of several attributes, the first attribute is the class.

    Raises:
      UserError: the folder holds no run of the method `classifier`, or one with another network than `Classifier`.
    """
    params, _, _ = load_group(str(workdir), "classifier")
    config = stored_config(workdir, trust)
    assert config is not None  # `load_group` has found the run
    method = make_method(config)
    if not is_classifier(getattr(method, "network", None)):
        raise UserError(
            f"{workdir} is a run of {config.method.name!r} with another network than 'classifier', which a file cannot "
            "hold; train a config such as configs/classifier_shapes.py."
        )
    attributes = getattr(method, "attributes", ())
    classes = attributes[0][1] if attributes else network_of(params).num_classes
    return _write(epath.Path(path), params, np.float32, **{SHAPE: image_shape(config), CLASSES: classes})


def _write(path: epath.Path, params: Tree, dtype: type, **more: int | tuple[int, ...]) -> epath.Path:
    flat: dict[str, np.ndarray] = {
        f"{layer}/{leaf}": np.asarray(x, dtype) for layer, p in params.items() for leaf, x in p.items()
    }
    with whole_file(path) as file:
        np.savez_compressed(file, **flat, **more)  # type: ignore[arg-type]  # mypy fears an array "allow_pickle"
    return path


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the weights and prints their path."""
    parser = Parser(
        prog="python -m jaxgen.evaluation.export_classifier",
        description="Writes a trained classifier as the weights of a feature network.",
    )
    parser.add_argument("workdir", metavar="RUN", type=a_path("RUN"), help="the folder of the classifier's run")
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="digits or fashion, in the package")
    parser.add_argument("--out", type=a_path("--out"), metavar="FILE", help="the .npz file to write instead")
    add_trust(parser)
    given = parser.parse_args(arguments)
    if given.out and given.name:
        raise UserError(f"{given.name!r} names a network of the package, and --out another file; give one of the two.")
    if given.out:
        if not given.out.endswith(".npz"):
            raise UserError(f"--out={given.out} must end in .npz.")
        check_writable_file(given.out, "--out")
        print(export_file(given.workdir, given.out, given.trust))
    else:
        print(export(given.workdir, given.name or "digits"))


if __name__ == "__main__":
    sys.exit(main())
