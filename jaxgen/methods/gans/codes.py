"""Keeps the codes of a GAN's images: the inputs that its generator made them of, as arrays that a file holds.

A code has an array for each part of what `GAN.sample_z` draws: `code` where that is one array, and `code_<part>` where
it is a tree, such as `code_z` and `code_key` of a style-based generator. Random keys are kept as their bits, int32. A
label is no part of a code; a generator that is told one finds it beside the code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.gans.gan import GAN

NAME = "code"


def draw(gan: GAN, keys: Key[Array, " B"]) -> dict[str, Array]:
    """Returns the codes `{name: [B, ...]}` of the images that the GAN samples from these keys."""
    z, _ = gan.sample_z(keys, gan.sampler)
    return {name: _as_numbers(leaf) for name, leaf in _named(z).items()}


def names(gan: GAN) -> tuple[str, ...]:
    """Returns the names of a code's arrays."""
    return tuple(_named(_like(gan)))


def read(gan: GAN, batch: Batch) -> Tree:
    """Returns what the generator takes, of the codes in a batch; `draw` and then this is `sample_z`."""
    like = _like(gan)
    leaves = [_as_leaf(batch[name], leaf) for name, leaf in _named(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _like(gan: GAN) -> Tree:
    """Returns the shapes and types of one image's input."""
    return jax.eval_shape(lambda: gan.sample_z(jax.random.split(jax.random.key(0), 1), gan.sampler)[0])


def _named(z: Tree) -> dict[str, Array]:
    leaves = jax.tree_util.tree_flatten_with_path(z)[0]
    parts = [(jax.tree_util.keystr(path, simple=True, separator="_"), leaf) for path, leaf in leaves]
    return {"_".join(filter(None, (NAME, part))): leaf for part, leaf in parts}


def _is_key(leaf: Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _as_numbers(leaf: Array) -> Array:
    if _is_key(leaf):
        return jax.lax.bitcast_convert_type(jax.random.key_data(leaf), jnp.int32)
    return leaf


def _as_leaf(values: Array, like: Array) -> Array:
    if _is_key(like):
        bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
        return jax.random.wrap_key_data(bits)
    return values


def check(method: Method) -> GAN:
    """Returns the method, a GAN whose images are made of a code alone, or of a code and a label.

    Raises:
      UserError: it is another method, its generator is told something else, or it grows.
    """
    if not isinstance(method, GAN):
        raise UserError(f"This is a run of {type(method).__name__}, whose images have no codes: name a run of a GAN.")
    strange = [name for name in method.generator.reads if name != "label"]
    if strange:
        raise UserError(
            f"The generator of this run is told {strange[0]!r}, which no code holds: name a run of a GAN that makes "
            "images of random numbers, or of those and a label."
        )
    if len(method.stages) > 1:
        raise UserError(
            f"{type(method).__name__} grows, and has other layers at each stage: name a run of a GAN that does not."
        )
    return method
