"""Holds what both style-based generators share: a mapping of z to w, mixing, truncation, and a synthesis of w.

A generator of this kind is called as any other, `(z, label) -> images`, and its steps can be called apart, by
`network.apply({"params": params, **memory}, ..., method="mapping")`:

    w = mapping(z [B, Z], label)                  # [B, D], one style
    w = styles(z or a tree, label)                # [B, layers, D]: one for each layer, mixed and truncated
    images = synthesis(w [B, layers, D], noise)   # and, with features=True, the activations of all layers

The tree that stands in the place of z has, beside `z` [B, Z], what is there of these: `other` [B, Z] and `crossover`,
int32 [B], the first layer that takes its style from the other z; `truncation` [B, layers]; and `key`, random keys [B]
of the noise inputs, without which there is no noise. The mean of w is carried in the collection `style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.dcgan import levels
from jaxgen.networks.gans.equalised import EqualDense, pixel_norm
from jaxgen.networks.gans.gan_layers import GANNetwork, checked, leaky_relu

Noise = Array | Sequence[Array] | None  # keys [B]; a map [B or 1, h, w, 1] for each noise input; or no noise
Painted = Float[Array, "B H W C"] | tuple[Float[Array, "B H W C"], tuple[Float[Array, "B h w c"], ...]]


def sides(image_shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    """Returns the height and width of each level, from 4 to 7 pixels on, doubled at each.

    Raises:
      UserError: the sides are not 4 to 7 times one power of two.
    """
    height, width, _ = image_shape
    return tuple((height >> level, width >> level) for level in reversed(range(levels(height, width) + 1)))


def widths(count: int, channels: int, most: int) -> list[int]:
    """Returns the channels of each level: `channels` at the last one, twice as many at each before, up to `most`."""
    return [min(channels * 2**level, most) for level in reversed(range(count))]


def scaled_leaky_relu(x: Array, gain: float = 1.0) -> Array:
    """Returns a leaky ReLU times sqrt(2), which keeps the mean square of normal values, times a gain."""
    return leaky_relu(x) * (2**0.5 * gain)


class StyleMapping(nn.Module):
    """Maps z, or a label, or both, to w by linear layers with a slow learning rate (Karras et al. 2019, section 2).

    z is scaled to a mean square of 1. A label's embedding is scaled likewise and appended.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    depth: int
    multiplier: float
    num_classes: int = 0

    @nn.compact
    def __call__(self, z: Float[Array, "B Z"] | None, label: Int[Array, " B"] | None) -> Float[Array, "B D"]:
        parts = [] if z is None else [pixel_norm(z)]
        if self.num_classes:
            code = jax.nn.one_hot(checked(label, self.num_classes), self.num_classes)
            parts.append(pixel_norm(EqualDense(self.features, name="label")(code)))
        x = jnp.concatenate(parts, -1)
        for i in range(self.depth):
            x = scaled_leaky_relu(EqualDense(self.features, multiplier=self.multiplier, name=f"layer_{i}")(x))
        return x


class LatentGenerator(GANNetwork):
    """This is the base class of style-based generators; a subclass defines `noise_shapes` and `painter`.

    Raises:
      UserError: a label is missing, or the sides do not fit (`sides`).
    """

    config_name = ""  # a base class; no config names it

    image_shape: tuple[int, int, int]  # (H, W, C)
    z_dim: int = 512
    w_dim: int = 512
    depth: int = 8  # linear layers of the mapping
    mapping_rate: float = 0.01  # learning rate of the mapping beside that of the synthesis
    channels: int = 32  # at the images' own size; doubled at each level towards the coarsest
    max_channels: int = 512
    num_classes: int = 0
    conditioning: Literal["none", "embedding"] = "none"  # "embedding" appends that of the label to z
    mean_decay: float = 0.998  # of the mean of w, for each step

    @property
    def layers(self) -> int:
        """Returns the number of styles that an image is made from: two for each level."""
        return 2 * len(sides(self.image_shape))

    @property
    def noise_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Returns the shape (h, w, 1) of each noise input, in the order of the layers."""
        raise NotImplementedError

    def painter(self) -> nn.Module:
        """Returns the module that makes images of styles: `(w, maps or None) -> (images, activations)`."""
        raise NotImplementedError

    def setup(self) -> None:
        classes = self.num_classes if self.conditional else 0
        self.mapping_network = StyleMapping(self.w_dim, self.depth, self.mapping_rate, classes)
        self.synthesis_network = self.painter()
        self.mean_w = self.variable("style", "mean_w", jnp.zeros, (self.w_dim,), jnp.float32)

    def __call__(
        self,
        z: Float[Array, "B Z"] | dict[str, Array],
        label: Int[Array, " B"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W C"]:
        """Returns images of z, or of a tree as in the module's docstring. Training moves the mean of w."""
        noise = z.get("key") if isinstance(z, Mapping) else None
        images, _ = self.synthesis_network(self.styles(z, label, train), self.noise_maps(noise))
        return images

    def mapping(self, z: Float[Array, "B Z"], label: Int[Array, " B"] | None = None) -> Float[Array, "B D"]:
        """Returns the style w of each z."""
        return self.mapping_network(z, label)

    def styles(
        self,
        z: Float[Array, "B Z"] | dict[str, Array],
        label: Int[Array, " B"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """Returns the style of each layer, mixed and truncated as the tree z says."""
        parts: Mapping[str, Array] = z if isinstance(z, Mapping) else {"z": z}
        w = self.mapping(parts["z"], label)
        if train and not self.is_initializing():
            old, new = self.mean_w.value, jax.lax.stop_gradient(w).mean(0)
            self.mean_w.value = self.mean_decay * old + (1 - self.mean_decay) * new
        found = jnp.broadcast_to(w[:, None], (len(w), self.layers, w.shape[-1]))
        if "other" in parts:
            first = jnp.arange(self.layers) < parts["crossover"][:, None]
            found = jnp.where(first[..., None], found, self.mapping(parts["other"], label)[:, None])
        return self.truncated(found, parts["truncation"]) if "truncation" in parts else found

    def truncated(self, w: Float[Array, "B L D"], psi: Float[Array, "#B #L"]) -> Float[Array, "B L D"]:
        """Returns styles at psi times their distance from the mean of w (Karras et al. 2019, appendix B)."""
        return self.mean_w.value + psi[..., None] * (w - self.mean_w.value)

    def synthesis(self, w: Float[Array, "B L D"], noise: Noise = None, features: bool = False) -> Painted:
        """Returns the images of styles.

        Args:
          w: a style for each of `layers`.
          noise: one random key for each image, or a map [B or 1, h, w, 1] for each of `noise_shapes`; None adds none.
          features: whether the activations of all layers are returned too.

        Returns:
          images [B, H, W, C], or (images, (activations [B, h, w, c], ...)), from the coarsest layer to the finest.

        Raises:
          UserError: there are not as many styles as layers, or maps as noise inputs.
        """
        if w.ndim != 3 or w.shape[1] != self.layers:
            raise UserError(f"This generator takes styles [B, {self.layers}, {self.w_dim}], not {list(w.shape)}.")
        images, found = self.synthesis_network(w, self.noise_maps(noise))
        return (images, found) if features else images

    def noise_maps(self, noise: Noise) -> tuple[Array, ...] | None:
        """Returns a map [B or 1, h, w, 1] for each of `noise_shapes`, of random keys [B] or of such maps, or None.

        Raises:
          UserError: maps are of other shapes.
        """
        if noise is None:
            return None
        if isinstance(noise, Sequence):
            shapes = tuple(tuple(found.shape[1:]) for found in noise)
            if shapes != self.noise_shapes:
                raise UserError(f"This generator takes noise of the shapes {self.noise_shapes}, not {shapes}.")
            return tuple(noise)

        def drawn(key: Array) -> tuple[Array, ...]:
            return tuple(jax.random.normal(jax.random.fold_in(key, i), s) for i, s in enumerate(self.noise_shapes))

        return jax.vmap(drawn)(noise)
