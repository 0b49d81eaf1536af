"""What keeps the two networks in bounds: weight clipping, spectral normalisation, and terms against collapse."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgen.adversarial.penalties import norms
from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError

KERNELS = ("kernel", "embedding")
TINY = 1e-12  # a norm is at least this before it divides
START = 15  # power iterations before the first step


def clip_weights(params: Any, limit: float) -> Any:
    """Every parameter clipped to [-limit, limit], after each critic step (Arjovsky et al. 2017, Algorithm 1; 0.01).

    Raises:
      UserError: for a limit that is not positive.
    """
    if not limit > 0:
        raise UserError(f"Weights are clipped to a limit above 0, not {limit}.")
    return jax.tree.map(lambda leaf: jnp.clip(leaf, -limit, limit), params)


def spectral_vectors(params: Tree, key: Array, names: tuple[str, ...] = KERNELS, iterations: int = START) -> Tree:
    """Where the power iteration of `spectral_norm` begins, to be kept in a method's memory.

    Args:
      params: a network's parameters; leaves of two or more axes whose name is one of `names` are to be normalised.
      iterations: steps taken from normal draws, so that the first weights are scaled well.

    Returns `{...: {"kernel": {"u": [out], "v": [all others]}}}` with unit vectors, as nested as the parameters.

    Raises:
      UserError: where no parameter has such a name.
    """
    kernels = {path: leaf for path, leaf in flatten_dict(params).items() if path[-1] in names and leaf.ndim > 1}
    if not kernels:
        raise UserError(f"Spectral normalisation finds no parameter of two or more axes named {' or '.join(names)}.")
    vectors: dict[tuple[str, ...], Array] = {}
    for index, (path, kernel) in enumerate(sorted(kernels.items())):
        matrix = _matrix(kernel)
        v = _unit(jax.random.normal(jax.random.fold_in(key, index), matrix.shape[:1]))
        u, v = _iterate(matrix, _unit(_times(v, matrix)), v, iterations)
        vectors |= {(*path, "u"): u, (*path, "v"): v}
    return unflatten_dict(vectors)


def spectral_norm(params: Tree, vectors: Tree, iterations: int = 1) -> tuple[Tree, Tree]:
    """The parameters with each kernel divided by an estimate of its largest singular value, and the next vectors.

    Miyato et al. (2018), Eq. 8 and Algorithm 1. A kernel [..., out] is read as the matrix W [all others, out], so a
    convolution's is [h w in, out]. An iteration takes u = W^T v, then v = W u, each scaled to length 1, and
    sigma = v^T W u: the order of PyTorch's `parametrizations.spectral_norm`, whose `_u` and `_v` these are. The
    gradient passes through sigma's W and holds u and v fixed (ibid., Section 2.3).

    Args:
      vectors: of `spectral_vectors`, or of the last step; what is not in them stays as it is.
      iterations: 1 in training. 0 takes the vectors as they are; weights other than those they followed, such as
        averaged ones, want more.

    Returns the new parameters, of the same tree, and the new vectors, without a gradient.
    """
    leaves, held = flatten_dict(params), flatten_dict(vectors)
    changed: dict[tuple[str, ...], Array] = {}
    for path in {path[:-1] for path in held}:
        u, v = _iterate(jax.lax.stop_gradient(_matrix(leaves[path])), held[*path, "u"], held[*path, "v"], iterations)
        leaves[path] = (leaves[path] / _sigma(leaves[path], u, v)).astype(leaves[path].dtype)
        changed |= {(*path, "u"): u, (*path, "v"): v}
    return unflatten_dict(leaves), unflatten_dict(changed)


def singular_values(params: Tree, vectors: Tree) -> dict[str, Array]:
    """`{"layer/kernel": sigma}`, the largest singular values as the vectors have them, at most the true ones."""
    leaves, held = flatten_dict(params), flatten_dict(vectors)
    paths = sorted({path[:-1] for path in held})
    return {"/".join(path): _sigma(leaves[path], held[*path, "u"], held[*path, "v"]) for path in paths}


def _matrix(kernel: Array) -> Array:
    return kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])


def _times(v: Array, matrix: Array) -> Array:
    return jnp.matmul(v, matrix, precision="highest")


def _unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), TINY)


def _iterate(matrix: Array, u: Array, v: Array, iterations: int) -> tuple[Array, Array]:
    for _ in range(iterations):
        u = _unit(_times(v, matrix))
        v = _unit(_times(u, matrix.T))
    return jax.lax.stop_gradient((u, v))


def _sigma(kernel: Array, u: Array, v: Array) -> Array:
    return jnp.vdot(_times(v, _matrix(kernel)), u, precision="highest")


def pull_away(codes: Array) -> Array:
    """The mean *squared* cosine between the codes [N, D] of different images, in [0, 1]: EBGAN's pulling-away term.

    Zhao et al. (2017), Section 2.4: the sum over i != j, divided by N (N - 1). It belongs in the generator's loss, of
    its own images' codes, with weight 0.1.

    Raises:
      UserError: for fewer than two codes.
    """
    count = len(codes)
    if codes.ndim != 2 or count < 2:
        raise UserError(f"The pull-away term compares two or more codes [N, D], not {codes.shape}.")
    unit = codes / jnp.maximum(norms(codes), TINY)[:, None]
    squares = jnp.square(jnp.matmul(unit, unit.T, precision="highest"))
    return jnp.where(jnp.eye(count, dtype=bool), 0.0, squares).sum() / (count * (count - 1))


def mode_seeking(images_a: Array, images_b: Array, z_a: Array, z_b: Array, epsilon: float = 1e-5) -> Array:
    """1 / (mean|images_a - images_b| / mean|z_a - z_b| + epsilon), descended by MSGAN's generator (Mao et al. 2019).

    A ratio of means over the batch and all values, so that a single pair of equal images does not blow it up.

    Args:
      images_a, images_b: `[B, ...]` from z_a and z_b `[B, D]`, under equal conditions.
    """
    images = jnp.abs(images_a - images_b).mean()
    return 1 / (images / jnp.abs(z_a - z_b).mean() + epsilon)
