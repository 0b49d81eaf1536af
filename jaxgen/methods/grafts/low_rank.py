"""Adds low-rank updates to linear layers and convolutions (Hu et al. 2022, LoRA)."""

from __future__ import annotations

import dataclasses
import functools
import re
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.errors import UserError, nearest
from jaxgen.methods.base import Method
from jaxgen.methods.grafts.base import (
    Graft,
    Hooked,
    Order,
    bare_network,
    bare_params,
    network_of,
    nothing_chosen,
    with_network,
)
from jaxgen.networks.hooks import Hook, WithModule
from jaxgen.networks.layers.basic import Conv
from jaxgen.networks.unet import UNet

ATTENTIONS = r"attention(_\d+)?/(query|key|value|out)$"  # the projections of all attentions
RANK = 4


@dataclasses.dataclass(frozen=True)
class LowRank(Graft):
    """A linear layer's output becomes W x + (alpha / rank) B A x, where A and B learn (Hu et al. 2022, Eq. 3).

    The update is a hook on the layer's output, in training and in sampling alike. If it were added to a weight in
    bfloat16, a small one would be rounded away: at a hundredth of the weight's size, a sixth of its effect is lost.
    `merged` adds it in float32, for export, and `unmerged` takes it away again.

    A convolution of a U-Net is updated too where `where` chooses it: A is then a convolution of the same size, stride
    and padding, from in to rank channels, and B one of a single pixel, as peft and kohya's scripts have it.

    A part is `{path of a layer: {"a": [in, rank], "b": [rank, out]}}` with "|" for the "/" of paths; A of a convolution
    is [size, size, in, rank]. A starts as normal noise of standard deviation 1 / rank and B as zero, so that training
    starts from the method as it was.

    Raises:
      UserError: the rank is negative, `where` is no regular expression, or a file's alpha is given too.
    """

    group: str = "denoiser"  # the group whose network is updated
    # Layers whose path contains this regular expression: "" takes the projections of all attentions, or a file's layers
    where: str = ""
    rank: int = 0  # 0 takes 4, or the ranks of a file
    alpha: float = 0.0  # 0 takes the rank, so that the factor alpha / rank is 1
    # A file of diffusers, peft or kohya that the updates start from; it brings its layers, its ranks and its alpha.
    file: str = ""
    learns: bool = True  # False: the weights stay those of the file, or of config.init_from.<name of the graft>
    order: ClassVar[Order] = "hooks"

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha < 0:
            raise UserError(
                f"A low-rank graft's rank and alpha are not negative, and here they are {self.rank} and {self.alpha:g}."
            )
        if self.file and self.alpha:
            raise UserError(f"A low-rank graft's file={self.file!r} brings its alpha: leave alpha={self.alpha} out.")
        try:
            re.compile(self.where)
        except re.error as error:
            raise UserError(f"A low-rank graft's where={self.where!r} is no regular expression ({error}).") from error

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        where, rank, found = self.where or ATTENTIONS, self.rank or RANK, {}
        kernels = layers(params[self.group])
        for path, kernel in kernels.items():
            if not re.search(where, path):
                continue
            rows, columns = self._sides(f"config.method.grafts.{name}", path, kernel, trained)
            noise = jax.random.normal(jax.random.fold_in(key, zlib.crc32(path.encode())), (*rows, rank))
            found[path.replace("/", "|")] = {"a": noise / rank, "b": jnp.zeros((rank, columns))}
        if not found:
            linear = [path for path, kernel in kernels.items() if kernel.ndim == 2]
            raise nothing_chosen(name, self.group, where, "linear layer", linear)
        return found

    def loaded(self, name: str, part: Tree, trained: Method, params: Params, batch: Batch) -> Tree:
        kernels, source = layers(params[self.group]), self.file or f"config.init_from.{name}"
        for key, matrices in part.items():
            path = key.replace("|", "/")
            if path not in kernels:
                raise UserError(
                    f"{source} updates {path!r}, and the group {self.group!r} has no such layer; "
                    f"{nearest(path, kernels)}"
                )
            rows, columns = self._sides(source, path, kernels[path], trained)
            shapes, rank = (matrices["a"].shape, matrices["b"].shape), matrices["a"].shape[-1]
            if shapes != ((*rows, rank), (rank, columns)):
                raise UserError(
                    f"{source} updates {path!r} by matrices of shapes {shapes[0]} and {shapes[1]}, and the layer is "
                    f"{'x'.join(map(str, kernels[path].shape))}: it belongs to another model."
                )
            if self.where and not re.search(self.where, path):
                raise UserError(
                    f"{source} updates {path!r}, which config.method.grafts.{name}.where={self.where!r} does not "
                    "choose; leave `where` out, so that the layers are those of the file."
                )
            if self.rank not in (0, rank):
                raise UserError(
                    f"{source} updates {path!r} by a rank of {rank}, and config.method.grafts.{name}.rank is "
                    f"{self.rank}: leave `rank` out."
                )
        return part

    def onto(self, trained: Method) -> Method:
        return with_network(trained, self.group, lambda network: Hooked(network, self._hooks))

    def grafted(self, params: Params, part: Tree) -> Params:
        return {**params, self.group: {"network": params[self.group], "part": part}}

    def merged(self, params: Params, part: Tree, scale: float = 1.0) -> Params:
        """Returns the method's own parameters with `scale` times the update added to its weights, in float32.

        Several updates are merged one after the other, each with a scale of its own.
        """
        updates = {path: (a, scale * b) for path, (a, b) in self.scaled(part).items()}
        return {**params, self.group: _merged(params[self.group], updates)}

    def unmerged(self, params: Params, part: Tree, scale: float = 1.0) -> Params:
        """Returns the parameters without an update that `merged` added with this scale, up to rounding in float32."""
        return self.merged(params, part, -scale)

    def scaled(self, part: Tree) -> dict[str, tuple[Array, Array]]:
        """Returns `{path of a layer: (A [in, rank], B [rank, out])}`, with the factor alpha / rank in B."""
        return {
            key.replace("|", "/"): (matrices["a"], self._factor(matrices) * matrices["b"])
            for key, matrices in part.items()
        }

    def _hooks(self, part: Tree) -> Mapping[str, Hook | WithModule]:
        found: dict[str, Hook | WithModule] = {}
        for key, matrices in part.items():
            options = {"part": matrices, "scale": self._factor(matrices)}
            convolves = matrices["a"].ndim == 4
            hook = functools.partial(_updated_convolution if convolves else _updated, **options)
            found[key.replace("|", "/")] = WithModule(hook) if convolves else hook
        return found

    def _factor(self, matrices: Tree) -> float:
        return self.alpha / matrices["a"].shape[-1] if self.alpha else 1.0

    def _sides(self, where: str, path: str, kernel: Array, trained: Method) -> tuple[tuple[int, ...], int]:
        """Returns the shape of A without the rank, and the width of B. Raises a UserError where there can be none."""
        if kernel.ndim == 2:
            return kernel.shape[:1], kernel.shape[1]
        if kernel.ndim == 4 and isinstance(bare_network(network_of(trained, self.group)), UNet):
            return kernel.shape[:3], kernel.shape[3]
        raise UserError(
            f"{where}: {path!r} has a kernel of shape {kernel.shape}, and only linear layers [in, out] that are not "
            "scanned, and a U-Net's convolutions, can be updated; narrow `where`, or unset the network's scan_blocks."
        )


def layers(params: Tree) -> dict[str, Array]:
    """Returns `{path: kernel}` of the layers of a network that have a kernel; the inner part of a hooked network's."""
    found = flatten_dict(bare_params(params))
    return {"/".join(path[:-1]): leaf for path, leaf in found.items() if path[-1] == "kernel"}


def _updated(
    output: Float[Array, "*B out"], x: Float[Array, "*B in"], *_: Any, part: Tree, scale: float
) -> Float[Array, "*B out"]:
    update = (x.astype(jnp.float32) @ part["a"].astype(jnp.float32)) @ part["b"].astype(jnp.float32)
    return output + (scale * update).astype(output.dtype)


def _updated_convolution(
    output: Float[Array, "B h w out"],
    module: Conv,
    x: Float[Array, "B H W in"],
    *_: Any,
    part: Tree,
    scale: float,
) -> Float[Array, "B h w out"]:
    update = module.convolved(x.astype(jnp.float32), part["a"].astype(jnp.float32)) @ part["b"].astype(jnp.float32)
    return output + (scale * update).astype(output.dtype)


def _merged(params: Tree, updates: Mapping[str, tuple[Array, Array]], above: str = "") -> Tree:
    found = {}
    for name, entry in params.items():
        if isinstance(entry, Mapping):
            entry = _merged(entry, updates, f"{above}/{name}" if above else name)
        elif name == "kernel" and above in updates:
            entry = entry.astype(jnp.float32) + jnp.matmul(*updates[above], precision="highest")
        found[name] = entry
    return found
