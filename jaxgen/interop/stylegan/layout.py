"""Fits published weights of StyleGAN2 to the networks here, and back.

Published names are those of StyleGAN2-ADA for PyTorch, such as `synthesis.b8.conv0.weight`. Its kernels are
[out, in, h, w], its linear weights [out, in]; both networks scale them at use, so that numbers stay as they are. A
kernel that doubles the side is turned by half a circle there. The constant noise maps of a published generator are left
out: `synthesis(w, noise)` takes them as maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgen.arrays import Tree
from jaxgen.errors import UserError
from jaxgen.networks.gans.dcgan import levels
from jaxgen.networks.stylegan.latent_generator import sides
from jaxgen.networks.stylegan.style2 import Style2Discriminator, Style2Generator

NETWORKS: dict[str, Any] = {
    "generator": Style2Generator,
    "discriminator": Style2Discriminator,
}  # those that have published names
Change = Callable[[np.ndarray], np.ndarray]
Entry = tuple[str, tuple[str, ...], Change, Change]  # published name, path here, the way in, and the way out


def _plain(x: np.ndarray) -> np.ndarray:
    return x


def _transposed(x: np.ndarray) -> np.ndarray:
    return x.T


def _kernel_in(x: np.ndarray) -> np.ndarray:
    return x.transpose(2, 3, 1, 0)


def _kernel_out(x: np.ndarray) -> np.ndarray:
    return x.transpose(3, 2, 0, 1)


def _turned_in(x: np.ndarray) -> np.ndarray:
    return _kernel_in(x)[::-1, ::-1]


def _turned_out(x: np.ndarray) -> np.ndarray:
    return _kernel_out(x[::-1, ::-1])


def _linear(name: str, path: tuple[str, ...]) -> Iterator[Entry]:
    yield f"{name}.weight", (*path, "kernel"), _transposed, _transposed
    yield f"{name}.bias", (*path, "bias"), _plain, _plain


def _conv(name: str, path: tuple[str, ...], up: bool = False, bias: bool = True) -> Iterator[Entry]:
    yield (f"{name}.weight", (*path, "kernel"), *((_turned_in, _turned_out) if up else (_kernel_in, _kernel_out)))
    if bias:
        yield f"{name}.bias", (*path, "bias"), _plain, _plain


def _mapping(path: tuple[str, ...], depth: int, conditional: bool) -> Iterator[Entry]:
    if conditional:
        yield from _linear("mapping.embed", (*path, "label"))
    for i in range(depth):
        yield from _linear(f"mapping.fc{i}", (*path, f"layer_{i}"))


def _generator(network: Style2Generator) -> Iterator[Entry]:
    yield from _mapping(("params", "mapping_network"), network.depth, network.conditional)
    yield "mapping.w_avg", ("style", "mean_w"), _plain, _plain
    top = "params", "synthesis_network"

    def constant_in(x: np.ndarray) -> np.ndarray:
        return x.transpose(1, 2, 0)

    def constant_out(x: np.ndarray) -> np.ndarray:
        return x.transpose(2, 0, 1)

    for level, (side, _) in enumerate(sides(network.image_shape)):
        block = f"synthesis.b{side}"
        if level == 0:
            yield f"{block}.const", (*top, "constant"), constant_in, constant_out
        for layer in range(max(0, 2 * level - 1), 2 * level + 1):
            up = layer % 2 == 1
            name, path = f"{block}.conv{0 if up else 1}", (*top, f"layer_{layer}")
            yield from _conv(name, (*path, "conv"), up)
            yield from _linear(f"{name}.affine", (*path, "conv", "style"))
            yield f"{name}.noise_strength", (*path, "noise_strength"), _plain, _plain
        yield from _conv(f"{block}.torgb", (*top, f"image_{level}"))
        yield from _linear(f"{block}.torgb.affine", (*top, f"image_{level}", "style"))


def _discriminator(network: Style2Discriminator, image_shape: tuple[int, int, int]) -> Iterator[Entry]:
    count, side = levels(*image_shape[:2]), image_shape[0]
    top = ("params",)
    if network.conditional:
        yield from _mapping((*top, "mapping"), network.depth, True)
    yield from _conv(f"b{side}.fromrgb", (*top, "from_image"))
    for level in range(count):
        block = f"b{side >> level}"
        yield from _conv(f"{block}.conv0", (*top, f"conv_{level}_0"))
        yield from _conv(f"{block}.conv1", (*top, f"conv_{level}_1"))
        if network.residual:
            yield from _conv(f"{block}.skip", (*top, f"skip_{level}"), bias=False)
    last = side >> count

    def features_in(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1, last, last).transpose(2, 3, 1, 0).reshape(-1, len(x))

    def features_out(x: np.ndarray) -> np.ndarray:
        return x.reshape(last, last, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1)

    yield from _conv(f"b{last}.conv", (*top, "last"))
    yield f"b{last}.fc.weight", (*top, "features", "kernel"), features_in, features_out
    yield f"b{last}.fc.bias", (*top, "features", "bias"), _plain, _plain
    yield from _linear(f"b{last}.out", (*top, "logit"))


def _entries(network: Style2Generator | Style2Discriminator, image_shape: tuple[int, int, int]) -> list[Entry]:
    if image_shape[0] != image_shape[1]:
        raise UserError(f"Published networks make square images, not {image_shape[0]}x{image_shape[1]}.")
    if isinstance(network, Style2Generator):
        return list(_generator(network))
    return list(_discriminator(network, image_shape))


def variables_from(
    found: Mapping[str, np.ndarray],
    network: Style2Generator | Style2Discriminator,
    image_shape: tuple[int, int, int],
) -> Tree:
    """Returns a network's variables, `{"params": ...}` and a generator's `style`, from arrays by published names.

    Args:
      found: the arrays, such as `published_file.read` or a safetensors file gives; those that are not known here, such
        as filters and noise maps, are left out.
      network: the network that they are for.
      image_shape: (H, W, C) of the images.

    Raises:
      UserError: an array is missing, or has another shape, such as that of another resolution.
    """
    label = jnp.zeros(1, jnp.int32) if network.conditional else None
    inputs = jnp.zeros((1, network.z_dim) if isinstance(network, Style2Generator) else (1, *image_shape))
    fresh = flatten_dict(jax.eval_shape(lambda key: network.init(key, inputs, label), jax.random.key(0)))
    made = {}
    for name, path, change, _ in _entries(network, image_shape):
        if name not in found:
            raise UserError(
                f"The weights have no {name!r}, which this network needs: give it the image_shape, depth and "
                "conditioning that they were trained with."
            )
        made[path] = np.asarray(change(np.asarray(found[name])), np.float32)
        if made[path].shape != fresh[path].shape:
            raise UserError(
                f"{name!r} has shape {tuple(found[name].shape)} in the weights, and this network has "
                f"{fresh[path].shape} there: give it the image_shape and channels that they were trained with."
            )
    return unflatten_dict(jax.tree.map(jnp.asarray, made))


def published(
    variables: Tree, network: Style2Generator | Style2Discriminator, image_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Returns a network's variables as arrays by published names, which `safetensors.numpy.save_file` writes."""
    flat = flatten_dict(variables)
    return {
        name: np.array(change(np.asarray(flat[path])), np.float32, order="C")
        for name, path, _, change in _entries(network, image_shape)
    }
