"""CLIP (Radford et al. 2021) is an image tower and a text tower that map into one space.

The text tower alone is the text encoder of Stable Diffusion. Parameters are float32; `dtype` is the type of the
arithmetic, while statistics, softmax and embeddings' lengths are always float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError, nearest
from jaxgen.networks.layers.basic import kernel_init, sinusoidal
from jaxgen.networks.layers.patches import patchify

TEMPERATURE = 0.07  # at the start of training


def quick_gelu(x: Array) -> Array:
    """Returns x sigmoid(1.702 x): the GELU of the published CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Array) -> Array:
    """Returns the exact GELU, as OpenCLIP's later models have it."""
    return nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"quick_gelu": quick_gelu, "gelu": gelu}


class Block(nn.Module):
    """Adds attention and then an MLP to its input, each after a LayerNorm: [B, N, D] -> [B, N, D].

    `mask` is boolean, broadcast to [B, heads, N, N]: true where a query (axis 2) may look at a key (axis 3).
    Its parameters are `norm_1`, `query`, `key`, `value`, `out`, `norm_2`, `mlp_in` and `mlp_out`.

    Attributes:
      depth: blocks in the tower, on which the initialisation depends.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    mlp_features: int
    depth: int
    activation: str
    norm_eps: float
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Array, mask: Array | np.ndarray | None = None) -> Array:
        batch, length, width = x.shape
        residual_std = (2 * self.depth * width) ** -0.5

        def dense(features: int, std: float, name: str) -> nn.Dense:
            return nn.Dense(features, kernel_init=nn.initializers.normal(std), dtype=self.dtype, name=name)

        h = layer_norm(self.norm_eps, self.dtype, "norm_1")(x)
        query, key, value = (
            dense(width, width**-0.5, name)(h).reshape(batch, length, self.heads, width // self.heads)
            for name in ("query", "key", "value")
        )
        h = jax.nn.dot_product_attention(query, key, value, mask=mask).reshape(batch, length, width)
        x = x + dense(width, residual_std, "out")(h)

        h = layer_norm(self.norm_eps, self.dtype, "norm_2")(x)
        h = ACTIVATIONS[self.activation](dense(self.mlp_features, (2 * width) ** -0.5, "mlp_in")(h))
        return x + dense(width, residual_std, "mlp_out")(h)


def layer_norm(eps: float, dtype: str | None, name: str) -> nn.LayerNorm:
    """Returns a LayerNorm with parameters, which computes its variance in two passes."""
    return nn.LayerNorm(eps, dtype=dtype, use_fast_variance=False, name=name)


def check_tower(tower: ImageTower | TextTower) -> None:
    """Raises a UserError for options that make no tower."""
    if tower.activation not in ACTIVATIONS:
        raise UserError(f"unknown activation {tower.activation!r} of CLIP; {nearest(tower.activation, ACTIVATIONS)}")
    if tower.heads < 1 or tower.width % tower.heads:
        raise UserError(f"{tower.heads} attention heads do not divide CLIP's width of {tower.width}.")


class TextTower(nn.Module):
    """The text tower is a causal transformer over token ids.

    Its parameters are `token`, `position`, `block_<i>` and `norm_out`, and `projection` where there is one.

    Attributes:
      vocabulary: number of token ids.
      length: the most tokens of a text.
      width, depth, heads, mlp_features: sizes of the transformer.
      end: the id whose first occurrence is pooled; None where that is the text's largest id, as in CLIP's own
        vocabulary, whose last entry it is.
      projection: features of the space of images and texts that the pooled text is projected into; 0 does not project.
    """

    vocabulary: int = 49408
    length: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_features: int = 2048
    activation: str = "quick_gelu"
    end: int | None = None
    norm_eps: float = 1e-5
    dtype: str | None = None
    projection: int = 0

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], mask: Shaped[Array, "B L"] | None = None, layer: int = -1, norm: bool = True
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B D"]]:
        """Returns hidden states [B, L, D] and the pooled text, of int token ids [B, L].

        The pooled text is [B, D], or [B, projection] where it is projected; it is not of unit length.

        Args:
          mask: [B, L], nonzero on tokens that may be looked at. CLIP and Stable Diffusion use none: padding comes
            after the end token, which cannot see it.
          layer: the block whose hidden states are returned: -1 is the last one, -2 the penultimate one.
          norm: whether the last LayerNorm is applied to them. The pooled text is the last block's, with it.

        Raises:
          UserError: for tokens of another shape or type, too long a text, or a layer that is not there.
        """
        check_tower(self)
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise UserError(f"CLIP's text tower takes token ids [B, L], not {tokens.dtype} of shape {tokens.shape}.")
        if tokens.shape[1] > self.length:
            raise UserError(f"CLIP reads {self.length} tokens at most, not {tokens.shape[1]}: truncate the texts.")
        if not -self.depth <= layer <= -1:
            raise UserError(f"layer is {layer}, but CLIP's {self.depth} layers count back from -1 to {-self.depth}.")
        batch, length = tokens.shape
        normal = nn.initializers.normal
        h = nn.Embed(self.vocabulary, self.width, embedding_init=normal(0.02), dtype=self.dtype, name="token")(tokens)
        position = self.param("position", normal(0.01), (self.length, self.width), jnp.float32)
        h = h + position[:length].astype(h.dtype)

        sees: Array | np.ndarray = np.tril(np.ones((length, length), bool))[None, None]
        if mask is not None:
            sees = sees & mask.astype(bool)[:, None, None, :]
        options = (self.heads, self.mlp_features, self.depth, self.activation, self.norm_eps, self.dtype)
        hidden = h
        for i in range(self.depth):
            h = Block(*options, name=f"block_{i}")(h, sees)
            if i == self.depth + layer:
                hidden = h
        norm_out = layer_norm(self.norm_eps, self.dtype, "norm_out")
        pooled = norm_out(h[jnp.arange(batch), self.ends(tokens)])
        return norm_out(hidden) if norm else hidden, projected(pooled, self.projection, self.dtype)

    def ends(self, tokens: Int[Array, "B L"]) -> Int[Array, " B"]:
        """Returns the place of each text's end, int [B]."""
        return (tokens if self.end is None else tokens == self.end).argmax(-1)


class ImageTower(nn.Module):
    """The image tower is a vision transformer (Dosovitskiy et al. 2021) with a class token and a first LayerNorm.

    Its parameters are `patch`, `class`, `position`, `norm_in`, `block_<i>` and `norm_out`, and `projection` and `time`
    where these are asked for.

    Attributes:
      size: height and width of the images.
      patch: height and width of the patches; it divides `size`.
      projection: features of the space of images and texts that the pooled image is projected into; 0 does not project.
      timed: whether it sees noisy images and their time (Nichol et al. 2022, "GLIDE", section 2.4), of which features
        are added to every token. At the start they are zero, so that weights without them can be continued.
    """

    size: int = 224
    patch: int = 32
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_features: int = 3072
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    dtype: str | None = None
    projection: int = 0
    timed: bool = False

    @property
    def sees_time(self) -> bool:
        """Returns whether it is called with the time of noisy images."""
        return self.timed

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W C"], time: Float[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B D"]]:
        """Returns hidden states [B, 1 + patches, D] of the last block, class token first, and the pooled image.

        The pooled image is the class token behind the last LayerNorm, [B, D], or [B, projection] where it is projected;
        it is not of unit length. Hidden states are before that LayerNorm.

        Args:
          images: [B, size, size, channels], normalised as the weights were trained (`jaxgen.metrics.pairs.clip_score`
            has the mean and standard deviation of the published ones).
          time: [B], 0..999, where `timed`.

        Raises:
          UserError: for images of another shape, a patch that does not divide the size, or a time where none is read.
        """
        check_tower(self)
        if self.size % self.patch:
            raise UserError(f"CLIP's patch of {self.patch} does not divide its image size of {self.size}.")
        wanted = (self.size, self.size, self.channels)
        if images.ndim != 4 or images.shape[1:] != wanted:
            raise UserError(f"this CLIP sees images {wanted}, not an array [B, ...] of shape {images.shape}.")
        check_time(self.timed, time)
        batch, width = images.shape[0], self.width
        normal = nn.initializers.normal
        kernel = self.param("patch", kernel_init, (self.patch, self.patch, self.channels, width), jnp.float32)
        first = self.param("class", normal(width**-0.5), (width,), jnp.float32)
        count = 1 + (self.size // self.patch) ** 2
        position = self.param("position", normal(width**-0.5), (count, width), jnp.float32)

        images, kernel, first, position = nn.dtypes.promote_dtype(images, kernel, first, position, dtype=self.dtype)
        h = patchify(images, self.patch) @ kernel.reshape(-1, width)
        h = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, width)), h], 1) + position
        if time is not None:
            h = h + TimeFeatures(width, width, self.dtype, name="time")(time)[:, None]
        h = layer_norm(self.norm_eps, self.dtype, "norm_in")(h)
        options = (self.heads, self.mlp_features, self.depth, self.activation, self.norm_eps, self.dtype)
        for i in range(self.depth):
            h = Block(*options, name=f"block_{i}")(h)
        pooled = layer_norm(self.norm_eps, self.dtype, "norm_out")(h[:, 0])
        return h, projected(pooled, self.projection, self.dtype)


class TimeFeatures(nn.Module):
    """Gives features [B, features] of times [B], 0..999, which are zero at the start of training.

    Its parameters are `in` and `out`.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    width: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, time: Float[Array, " B"]) -> Float[Array, "B D"]:
        wave = sinusoidal(time, 2 * ((self.width + 1) // 2))
        h = nn.silu(nn.Dense(self.width, dtype=self.dtype, name="in")(wave))
        return nn.Dense(self.features, kernel_init=nn.initializers.zeros_init(), dtype=self.dtype, name="out")(h)


def with_time(loaded: Tree, fresh: Tree) -> Tree:
    """Returns the parameters of a tower of clean images with those of the time, at every depth, from fresh ones."""
    if not isinstance(fresh, Mapping) or not isinstance(loaded, Mapping):
        return loaded
    found = {name: with_time(value, fresh.get(name)) for name, value in loaded.items()}
    return found if "time" in loaded or "time" not in fresh else {**found, "time": fresh["time"]}


def check_time(timed: bool, time: Array | None) -> None:
    """Raises a UserError where a tower of noisy images is given no time, or one of clean images is given one."""
    if timed != (time is not None):
        raise UserError(
            "this tower sees noisy images and needs their time."
            if timed
            else "this tower sees clean images and takes no time; set timed=True for one that sees noisy ones."
        )


def projected(pooled: Float[Array, "B D"], features: int, dtype: str | None) -> Float[Array, "B P"]:
    """Projects pooled states without a bias, inside the network that calls it; returns them as they are for 0."""
    if not features:
        return pooled
    init = nn.initializers.normal(pooled.shape[-1] ** -0.5)
    return nn.Dense(features, use_bias=False, kernel_init=init, dtype=dtype, name="projection")(pooled)


class CLIP(nn.Module):
    """CLIP has both towers, each with a linear projection into the common space of `projection` features.

    Its parameters are `image`, `text`, `image_projection`, `text_projection`, and the scalar `logit_scale`, the
    logarithm of 1 / temperature.
    """

    image: ImageTower
    text: TextTower
    projection: int = 512
    dtype: str | None = None

    def setup(self) -> None:
        def project(width: int) -> nn.Dense:
            init = nn.initializers.normal(width**-0.5)
            return nn.Dense(self.projection, use_bias=False, kernel_init=init, dtype=self.dtype)

        self.image_projection = project(self.image.width)
        self.text_projection = project(self.text.width)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(-np.log(TEMPERATURE)), (), jnp.float32)

    def embed_image(self, images: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
        """Returns [B, projection] embeddings of images as `ImageTower` takes them, not of unit length."""
        return self.image_projection(self.image(images)[1])

    def embed_text(self, tokens: Int[Array, "B L"], mask: Shaped[Array, "B L"] | None = None) -> Float[Array, "B D"]:
        """Returns [B, projection] embeddings of token ids [B, L], not of unit length."""
        return self.text_projection(self.text(tokens, mask)[1])

    def __call__(
        self, images: Float[Array, "B H W C"], tokens: Int[Array, "K L"], mask: Shaped[Array, "K L"] | None = None
    ) -> tuple[Float[Array, "B D"], Float[Array, "K D"], Float[Array, ""]]:
        """Returns unit embeddings of images [B, projection] and texts [B', projection], float32, and 1 / temperature.

        The logits of an image for all texts are the scale times its products with their embeddings.
        """
        image, text = unit(self.embed_image(images)), unit(self.embed_text(tokens, mask))
        return image, text, jnp.exp(self.logit_scale)


def unit(x: Array) -> Array:
    """Returns x / |x| over the last axis, float32."""
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
