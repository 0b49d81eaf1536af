"""Holds a generator of three planes of features, which volume rendering makes pictures of (EG3D, Chan et al. 2022).

With a vocabulary it reads captions, as TPA3D does (Wu et al. 2024, whose code and sizes are not published): noise and
the sentence style three planes, and at small sides each pixel of a plane looks at its own plane, at all three, and at
the words. Its contract is that of `jaxgen.networks.gans.gan_layers`, with z a tree: `noise` [B, Z], and `rays`, a key
for each image, which moves the samples of its rays in training.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.geometry import planes as triplanes
from jaxgen.geometry import surface_rendering, volume
from jaxgen.networks.gans.equalised import HE, EqualConv, EqualDense, pixel_norm
from jaxgen.networks.gans.gan_layers import GANNetwork, leaky_relu
from jaxgen.networks.layers.convolution import zeros_init
from jaxgen.networks.pretrained.text_encoder import TextEncoder
from jaxgen.networks.three_d.words import read, read_words
from jaxgen.networks.transformer import TokenAttention, layer_norm

START = 4  # pixels of a plane's side at the first level
SPHERE = 0.5  # the radius that a surface begins with
CAMERA = 64  # width of what a style is told of the camera
normal_init = nn.initializers.normal(1.0)


class WordAttention(nn.Module):
    """Refines planes [B, 3, s, s, D] by attention in each plane, across the planes, and to words (TPA3D, section 3.3).

    Each is a residual that begins at zero.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    cross_plane: bool
    cross_word: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "B 3 s s D"], words: Float[Array, "B L K"] | None, mask: Array | None
    ) -> Float[Array, "B 3 s s D"]:
        batch, count, side, _, width = x.shape
        own, together = (batch * count, side * side, width), (batch, count * side * side, width)

        def attended(x: Array, shape: tuple[int, ...], name: str, context: Array | None, mask: Array | None) -> Array:
            layer = TokenAttention(self.heads, out_init=zeros_init, name=name)
            return x + layer(layer_norm(x.reshape(shape)), context, mask).reshape(x.shape)

        x = attended(x, own, "in_plane", None, None)
        if self.cross_plane:
            everything = jnp.repeat(layer_norm(x.reshape(together)), count, axis=0)
            x = attended(x, own, "cross_plane", everything, None)
        if self.cross_word and words is not None:
            x = attended(x, together, "cross_word", words, mask)
        return x


class Planes(nn.Module):
    """Maps noise [B, Z], and words [B, L, K] where there are some, to planes of features [B, N, R, R, C].

    From 4x4 pixels each level doubles the side. A level divides its pixels by their root mean square, scales and shifts
    their channels by the style, and convolves; the planes share the kernels and differ in what they begin with. Where
    a camera is given, the style is told it too.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    widths: tuple[int, ...]
    heads: int
    attention_side: int
    cross_plane: bool
    cross_word: bool
    count: int = triplanes.PLANES

    @nn.compact
    def __call__(
        self,
        noise: Float[Array, "B Z"],
        words: Float[Array, "B L K"] | None,
        mask: Array | None,
        camera: Float[Array, "B 25"] | None = None,
    ) -> Float[Array, "B N R R C"]:
        style = pixel_norm(noise)
        if words is not None and mask is not None:
            sentence = (words * mask[..., None]).sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
            style = jnp.concatenate([style, pixel_norm(sentence)], -1)
        if camera is not None:
            h = leaky_relu(EqualDense(CAMERA, HE, name="camera_in")(camera))
            style = jnp.concatenate([style, pixel_norm(EqualDense(CAMERA, name="camera_out")(h))], -1)
        for i in range(2):
            style = leaky_relu(EqualDense(self.widths[0], HE, name=f"mapping_{i}")(style))
        shape = (self.count, START, START, self.widths[0])
        x = jnp.broadcast_to(self.param("start", normal_init, shape, jnp.float32), (len(noise), *shape))
        for i, width in enumerate(self.widths):
            x = self._level(x, style, i, width)
            if x.shape[2] <= self.attention_side:
                attention = WordAttention(self.heads, self.cross_plane, self.cross_word, name=f"attention_{i}")
                x = attention(x, words, mask)
        batch, count, side = x.shape[:3]
        h = pixel_norm(x).reshape(batch * count, side, side, -1)
        return EqualConv(self.features, 1, name="planes")(h).reshape(batch, count, side, side, self.features)

    def _level(self, x: Array, style: Array, level: int, width: int) -> Array:
        before = x.shape[-1]
        scale, shift = jnp.split(EqualDense(2 * before, name=f"style_{level}")(style), 2, -1)
        own = self.param(f"plane_{level}", zeros_init, (self.count, 1, 1, before), jnp.float32)
        h = pixel_norm(x) * (1 + scale[:, None, None, None]) + shift[:, None, None, None] + own
        conv = EqualConv(width, gain=HE, resampling="nearest" if level else "", name=f"conv_{level}")
        h = leaky_relu(conv(h.reshape(-1, *h.shape[2:])))
        return h.reshape(len(x), self.count, *h.shape[1:])


class PlaneDecoder(nn.Module):
    """Maps a point's feature [B, N, C] to its density [B, N] and colour [B, N, 3] in [-1, 1] (EG3D, section 3).

    The density is softplus(o - 1) times `scale`, or o / 4 where it is `signed`. The colour is a sigmoid that reaches a
    little beyond its range, as in EG3D's code, so that its ends can be met.
    """

    config_name = ""  # a part of other networks; no config names it

    hidden: int
    scale: float
    signed: bool = False

    @nn.compact
    def __call__(self, features: Float[Array, "B N C"]) -> tuple[Float[Array, "B N"], Float[Array, "B N 3"]]:
        h = jax.nn.softplus(nn.Dense(self.hidden, name="hidden")(features))
        out = nn.Dense(4, name="out")(h)
        colour = jax.nn.sigmoid(out[..., 1:]) * 1.002 - 0.001
        first = out[..., 0] / 4 if self.signed else self.scale * jax.nn.softplus(out[..., 0] - 1)
        return first, 2 * colour - 1


class TriplaneGenerator(GANNetwork):
    """Maps z and a camera [B, 25], and tokens [B, L] with a vocabulary, to images [B, H, W, 3] on white.

    `planes` gives the planes of features, `views` what cameras see of them, with depth and opacity, and `field` density
    and colour of points, from which a mesh is made. With `surface` the field has a signed distance in the place of the
    density, which begins as a sphere, and cameras see the textured surface where it is 0: the route of GET3D (Gao et
    al. 2022) and TPA3D, by rays in the place of a mesh.

    Raises:
      UserError: images that are not RGB, sizes below 1, or fewer than 2 samples on a ray.
    """

    config_name = "triplane_generator"

    image_shape: tuple[int, int, int]  # (H, W, 3)
    z_dim: int = 64  # the width of the noise that a method draws
    widths: tuple[int, ...] = (96, 64, 48)  # channels at 4, 8, 16, ... pixels of a plane's side
    features: int = 12  # channels of the finished planes
    hidden: int = 32  # of the decoder
    density: float = 4.0  # times softplus(o - 1)
    samples: int = 12  # on each ray
    surface: bool = False  # whether a surface is seen, and not a density
    sharpness: float = 30.0  # of a surface's outline
    more: int = 0  # further samples on each ray, where the first found matter
    vocabulary: int = 0  # number of token ids; 0 reads no captions
    frozen_text: bool = False  # whether the words are those of the frozen encoder of the method, which has no part here
    length: int = 8  # the most tokens of a caption
    words: int = 64  # width of a word's feature
    depth: int = 1  # blocks of the text encoder
    attention_heads: int = 4
    attention_side: int = 8  # the largest side of a plane with attention; 0 has none
    cross_plane: bool = True  # whether a pixel of a plane looks at the two other planes
    cross_word: bool = True  # whether it looks at the words, and not at the sentence alone

    @property
    def reads(self) -> tuple[str, ...]:
        return read(self.vocabulary, self.frozen_text)

    def setup(self) -> None:
        if self.image_shape[-1] != 3:
            raise UserError(f"A field's colours are RGB, not {self.image_shape[-1]}: set config.data.channels to 3.")
        if self.samples < 2 or self.more < 0 or not self.widths or min(self.features, self.hidden, *self.widths) < 1:
            raise UserError("config.method.generator: samples is at least 2, more 0; widths, features and hidden 1.")
        if self.surface and self.more:
            raise UserError(
                f"config.method.generator.more={self.more} adds samples where a density is, and surface=True has none: "
                "set more=0, and samples higher for a finer search of the surface."
            )
        sizes = (self.attention_heads, self.attention_side, self.cross_plane, self.cross_word)
        self.of_z = Planes(self.features, self.widths, *sizes)
        self.decoder = PlaneDecoder(self.hidden, self.density, self.surface)
        own = self.vocabulary and not self.frozen_text
        sizes_of_text = (self.vocabulary, self.length, self.words, self.depth, self.attention_heads)
        self.text = TextEncoder(*sizes_of_text) if own else None

    def __call__(
        self,
        z: Mapping[str, Array],
        camera: Float[Array, "B 25"],
        tokens: Int[Array, "B L"] | None = None,
        words: Float[Array, "B L K"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W 3"]:
        return self.views(self.planes(z, tokens, words), camera, z["rays"] if train else None)["image"]

    def planes(
        self,
        z: Mapping[str, Array],
        tokens: Int[Array, "B L"] | None = None,
        words: Float[Array, "B L K"] | None = None,
    ) -> Float[Array, "B 3 R R C"]:
        """Returns planes of features."""
        if not self.vocabulary:
            return self.of_z(z["noise"], None, None)
        return self.of_z(z["noise"], *read_words(self.text, tokens, words))

    def views(
        self, planes: Float[Array, "B 3 R R C"], camera: Float[Array, "B 25"], keys: Key[Array, " B"] | None = None
    ) -> dict[str, Array]:
        """Returns `image`, `depth` and `mask` as `jaxgen.geometry.volume.render` does, of the network's image size."""
        size = self.image_shape[0], self.image_shape[1]
        if not self.surface:
            return volume.render(lambda p: self.field(planes, p), camera, size, self.samples, self.more, keys)

        if self.is_initializing():  # the search is a loop, in which no parameter may be made
            self.field(planes, jnp.zeros((len(planes), 1, 3)))

        def distance(points: Array) -> Array:
            return self.field(planes, points)[0]

        def colour(points: Array) -> Array:
            return self.field(planes, points)[1]

        return surface_rendering.render(distance, colour, camera, size, self.samples, self.sharpness)

    def field(
        self, planes: Float[Array, "B 3 R R C"], points: Float[Array, "B N 3"]
    ) -> tuple[Float[Array, "B N"], Float[Array, "B N 3"]]:
        """Returns density, or signed distance with `surface`, and colour of points."""
        first, colour = self.decoder(triplanes.sample(planes, points))
        if self.surface:
            # the root of a sum of squares has no slope at the origin
            first = first + jnp.sqrt(jnp.square(points).sum(-1) + 1e-6) - SPHERE
        return first, colour
