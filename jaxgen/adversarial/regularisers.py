"""Holds weight clipping and spectral normalisation of a discriminator, and losses against a generator's collapse."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgen.adversarial.penalties import norms
from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Key

KERNELS = ("kernel", "embedding")
TINY = 1e-12  # a norm is at least this before it divides
START = 15  # power iterations before the first step


def clip_weights(params: Tree, limit: float) -> Tree:
    """Returns the parameters, each clipped to [-limit, limit].

    Algorithm 1 of WGAN (Arjovsky et al. 2017) does this after each step of the critic, with a limit of 0.01.

    Raises:
      UserError: for a limit that is not positive.
    """
    if not limit > 0:
        raise UserError(f"Weights are clipped to a limit above 0, not {limit}.")
    return jax.tree.map(lambda leaf: jnp.clip(leaf, -limit, limit), params)


def spectral_vectors(
    params: Tree, key: Key[Array, ""], names: tuple[str, ...] = KERNELS, iterations: int = START
) -> Tree:
    """Returns the vectors with which `spectral_norm` begins its power iteration; a method keeps them in its memory.

    Args:
      params: the parameters of a network.
      key: the random key of the normal draws that the vectors begin from.
      names: the names of the parameters to be normalised; those of fewer than two axes are left out.
      iterations: steps of the power iteration, so that already the first weights are scaled well.

    Returns:
      `{...: {"kernel": {"u": [out], "v": [all others]}}}` of unit vectors, nested like the parameters.

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
    """Divides each kernel by an estimate of its largest singular value (Miyato et al. 2018, Eq. 8 and Algorithm 1).

    A kernel `[..., out]` is read as the matrix W `[all others, out]`, which is `[h w in, out]` for a convolution. An
    iteration computes u = W^T v, then v = W u, each scaled to length 1; the estimate is sigma = v^T W u. The order is
    that of PyTorch's `parametrizations.spectral_norm`, whose `_u` and `_v` are u and v here. The gradient passes
    through the W in sigma and takes u and v as constants (ibid., Section 2.3).

    Args:
      params: the parameters of a network.
      vectors: the result of `spectral_vectors`, or the vectors of the last step. Parameters without vectors stay as
        they are.
      iterations: steps of the power iteration: 1 in training; 0 takes the vectors as they are. Weights that are not
        those of the last step, such as averaged ones, need more.

    Returns:
      The new parameters, of the same structure, and the new vectors, through which no gradient passes.
    """
    leaves, held = flatten_dict(params), flatten_dict(vectors)
    changed: dict[tuple[str, ...], Array] = {}
    for path in {path[:-1] for path in held}:
        u, v = _iterate(jax.lax.stop_gradient(_matrix(leaves[path])), held[*path, "u"], held[*path, "v"], iterations)
        leaves[path] = (leaves[path] / _sigma(leaves[path], u, v)).astype(leaves[path].dtype)
        changed |= {(*path, "u"): u, (*path, "v"): v}
    return unflatten_dict(leaves), unflatten_dict(changed)


def singular_values(params: Tree, vectors: Tree) -> dict[str, Float[Array, ""]]:
    """Returns `{"layer/kernel": sigma}`: the vectors' estimates of the largest singular values, which are never above
    the true ones."""
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


def pull_away(codes: Float[Array, "N D"]) -> Float[Array, ""]:
    """Returns the mean *squared* cosine between the codes of different images, in [0, 1]: EBGAN's pulling-away term.

    It is the sum over i != j, divided by N (N - 1) (Zhao et al. 2017, Section 2.4). It belongs in the generator's loss,
    for the codes of the generator's own images, with weight 0.1.

    Raises:
      UserError: for fewer than two codes.
    """
    count = len(codes)
    if codes.ndim != 2 or count < 2:
        raise UserError(f"The pull-away term compares two or more codes [N, D], not {codes.shape}.")
    unit = codes / jnp.maximum(norms(codes), TINY)[:, None]
    squares = jnp.square(jnp.matmul(unit, unit.T, precision="highest"))
    return jnp.where(jnp.eye(count, dtype=bool), 0.0, squares).sum() / (count * (count - 1))


def mode_seeking(
    images_a: Float[Array, "B ..."],
    images_b: Float[Array, "B ..."],
    z_a: Tree,
    z_b: Tree,
    epsilon: float = 1e-5,
) -> Float[Array, ""]:
    """Returns 1 / (mean|images_a - images_b| / mean|z_a - z_b| + epsilon), which MSGAN's generator minimises.

    The paper is Mao et al. (2019). The means are taken over the batch and all values before the division, so that one
    pair of equal images does not make the loss very large.

    Args:
      images_a: the generator's images from `z_a`.
      images_b: its images from `z_b`, under the same conditions.
      z_a: the first batch of noise, an array `[B, D]` or a tree. Of a tree the mean over its arrays of numbers counts;
        random keys, which have no distance, are left out.
      z_b: the second one.
      epsilon: what keeps the loss finite where all images are equal.
    """
    images = jnp.abs(images_a - images_b).mean()
    noise = [
        jnp.abs(a - b).mean()
        for a, b in zip(jax.tree.leaves(z_a), jax.tree.leaves(z_b), strict=True)
        if jnp.issubdtype(a.dtype, jnp.floating)
    ]
    return 1 / (images / (functools.reduce(operator.add, noise) / len(noise)) + epsilon)
