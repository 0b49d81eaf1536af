"""Converts the published weights of the FID's Inception network to `networks.pretrained.inception.Inception`.

TensorFlow's graph of 2015 was converted to PyTorch once. The projects pytorch-fid and torch-fidelity publish the same
file under two names.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.downloads import Published
from jaxgen.errors import UserError
from jaxgen.interop.diffusers_files import check_floating
from jaxgen.networks.pretrained.inception import Inception

EPS = 1e-3  # the epsilon of every batch normalisation
PUBLISHED = Published(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "the Inception network of the FID",
    # github.com/toshas/torch-fidelity/releases/download/v0.2.0/
    also=("weights-inception-2015-12-05-6726825d.pth",),
)


@functools.cache
def shapes() -> dict[str, Any]:
    """Returns the shapes of the network's parameters as nested dicts."""
    image = jnp.zeros((1, 299, 299, 3))
    return jax.eval_shape(lambda: Inception().init(jax.random.key(0), image))["params"]


def inception_params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the network's parameters in float32 from a state dict of pytorch-fid or torch-fidelity.

    Each batch normalisation (running mean m and variance v, weight g, bias b) is merged into its convolution in
    float64: the kernel is multiplied by g / sqrt(v + 0.001), and the bias becomes b - m g / sqrt(v + 0.001).

    Raises:
      UserError: an entry is missing, has another shape, or is unknown to the network.
    """
    left = dict(state)

    def take(key: str, shape: tuple[int, ...]) -> np.ndarray:
        if key not in left:
            raise UserError(f"The Inception weights lack {key!r}; take the file {PUBLISHED.file} as it is published.")
        check_floating(key, np.asarray(left[key]).dtype, "the Inception weights")
        found = np.asarray(left.pop(key), np.float64)
        if found.shape != shape:
            raise UserError(f"The Inception weight {key!r} has shape {found.shape}, not {shape}.")
        return found

    def fill(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        if "kernel" not in tree:
            return {name: fill(part, f"{prefix}{name}.") for name, part in tree.items()}
        shape = tree["kernel"].shape
        if len(shape) == 2:
            kernel, bias = take(f"{prefix}weight", shape[::-1]).T, take(f"{prefix}bias", shape[1:])
        else:
            height, width, channels, features = shape
            kernel = take(f"{prefix}conv.weight", (features, channels, height, width)).transpose(2, 3, 1, 0)
            scale, bias, mean, variance = (
                take(f"{prefix}bn.{name}", (features,)) for name in ("weight", "bias", "running_mean", "running_var")
            )
            left.pop(f"{prefix}bn.num_batches_tracked", None)
            scale = scale / np.sqrt(variance + EPS)
            kernel, bias = kernel * scale, bias - mean * scale
        return {"kernel": np.ascontiguousarray(kernel, np.float32), "bias": bias.astype(np.float32)}

    params = fill(shapes(), "")
    if left:
        raise UserError(f"The Inception weights have {min(left)!r}, which the FID's network does not know.")
    return params
