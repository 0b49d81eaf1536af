"""StyleGAN2 (Karras et al. 2020a): a style-based generator, lazy penalties on both networks, mixed styles.

StyleGAN (Karras et al. 2019) is the same method with `style_generator`, and `path_length=0`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial import penalties
from jaxgen.adversarial.sampling import NORMAL, GANSampler, Truncation, between_corners
from jaxgen.arrays import Array, Batch, Memory, Params, Tree
from jaxgen.data_shards import shard_rows
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Model, Turn
from jaxgen.methods.gans.gan import FRAMES, GAN, ROWS
from jaxgen.networks.gans.gan_layers import told

MIXED = 6  # images along each side of the table of mixed styles


@dataclasses.dataclass(frozen=True)
class StyleGAN2(GAN):
    """Adds the lazy turn `path`, style mixing and the mean of w to a GAN with a lazy `r1`.

    The slope of the images in w is drawn towards one length (`penalties.path_lengths`), every `path_every` steps with
    as many times the weight. In the config the optimiser of a group whose penalty comes every n steps has n / (n + 1)
    times the learning rate, and its betas to that power, since it makes n + 1 updates in n steps.

    The mean of the lengths is in memory as `path_length`, and the mean of w as `generator` `style`. Images are sampled
    with `config.sampler`, a `Truncation`. Panels: `interpolation` in W, `truncation` (each row from the mean image to
    an image), and `mixing` (each row's coarse half of layers with each column's other half).

    `styles` and `paint` take the two halves of a generator apart, for what is done with pictures in W.
    """

    config_name = "stylegan2"

    path_length: float = 2.0  # weight of (length - mean)**2; 0 leaves the turn out
    path_every: int = 4  # the turn `path` is due at steps divisible by this
    path_shrink: int = 2  # it sees a batch smaller by this
    path_decay: float = 0.01  # share of a step in the mean of the lengths
    mixing: float = 0.9  # probability of a second style from a random layer on, in training
    sampler: Truncation = Truncation()

    network_needs = {
        "generator": ("z_dim", "reads", "layers", "noise_shapes"),
        "discriminator": ("reads",),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path_every < 1 or self.path_shrink < 1:
            raise UserError("config.method: path_every and path_shrink are at least 1.")
        if not (0 <= self.mixing <= 1 and 0 < self.path_decay <= 1):
            raise UserError("config.method: mixing is in [0, 1], and path_decay in (0, 1].")
        if self.sampler.layers is not None and self.sampler.layers > self.generator.layers:
            raise UserError(
                f"config.sampler.layers is {self.sampler.layers}; this generator has {self.generator.layers} layers."
            )

    @property
    def columns(self) -> Mapping[str, int]:
        return {**super().columns, "truncation": FRAMES, "mixing": MIXED + 1}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        params, memory = super().init(key, batch, stage, given, params, memory)
        return params, {**memory, "path_length": jnp.zeros(())} if self.path_length else memory

    def turns(self, stage: int) -> tuple[Turn, ...]:
        path = Turn("path", self.generator_groups, self.path_loss, every=self.path_every)
        return (*super().turns(stage), path) if self.path_length else super().turns(stage)

    def sample_z(self, keys: Key[Array, " B"], sampler: GANSampler = NORMAL) -> tuple[dict[str, Array], None]:
        """Returns the tree that a style-based generator takes, mixed in training and truncated in use."""
        layers, psi = self.generator.layers, None
        if isinstance(sampler, Truncation) and sampler.truncation != 1:
            cut = layers if sampler.layers is None else sampler.layers
            psi = jnp.where(jnp.arange(layers) < cut, sampler.truncation, 1.0)

        def one(key: Array) -> dict[str, Array]:
            of_noise, of_other, of_mixing, of_layer = (jax.random.fold_in(key, i) for i in range(1, 5))
            found = {"z": sampler.noise(key, (self.generator.z_dim,)), "key": of_noise}
            if psi is not None:
                found["truncation"] = psi
            if not isinstance(sampler, Truncation):
                if self.mixing:
                    mixed = jax.random.uniform(of_mixing) < self.mixing
                    found["other"] = sampler.noise(of_other, (self.generator.z_dim,))
                    found["crossover"] = jnp.where(mixed, jax.random.randint(of_layer, (), 1, layers), layers)
            elif sampler.noise_inputs == "fixed":
                found["key"] = jax.random.key(0)
            elif sampler.noise_inputs == "none":
                del found["key"]
            return found

        return jax.vmap(one)(keys), None

    def between(self, a: Tree, b: Tree, t: Float[Array, ""]) -> Tree:
        return {**a, "z": super().between(a["z"], b["z"], t)}

    def path_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        """Draws the lengths of the slopes in w towards their running mean (Karras et al. 2020a, Eq. 4)."""
        of_z, of_y = jax.random.split(key)
        part = {name: value[:: self.path_shrink] for name, value in batch.items()}
        count = len(part["image"])
        z, _ = self.sample_z(jax.random.split(of_z, len(batch["image"])))
        z = jax.tree.map(lambda x: x[:: self.path_shrink], shard_rows(z))
        y = jax.vmap(lambda key: jax.random.normal(key, self.image_shape))(jax.random.split(of_y, count))
        w = self._apply("styles", params, state.memory, z, **told(self.generator, part))
        lengths = penalties.path_lengths(lambda w: self._apply("synthesis", params, state.memory, w, z["key"]), w, y)
        mean = state.memory["path_length"]
        mean = mean + self.path_decay * (jax.lax.stop_gradient(lengths).mean() - mean)
        penalty = jnp.square(lengths - mean).mean()
        return self.path_length * self.path_every * penalty, ({"length": lengths.mean()}, {"path_length": mean})

    def _apply(self, name: str, params: Params, memory: Memory, *inputs: Any, **options: Any) -> Any:
        variables = {"params": params["generator"], **memory["generator"]}
        return self.generator.apply(variables, *inputs, **options, method=name)

    # the two halves of the generator in use

    def styles(self, model: Model, z: Tree, batch: Batch) -> Float[Array, "B L D"]:
        """Returns the style of each layer of inputs as `sample_z` draws them, by the averaged generator."""
        return self._apply("styles", model.params, model.memory, z, **told(self.generator, batch))

    def paint(self, model: Model, w: Float[Array, "B L D"], noise: Any = None) -> Float[Array, "B H W C"]:
        """Returns the images of styles by the averaged generator, in [-1, 1].

        Args:
          noise: random keys [B], a map for each noise input, or None for no noise.
        """
        return jnp.clip(self._apply("synthesis", model.params, model.memory, w, noise), -1, 1)

    def latent_plane(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        """Returns the images at places between four styles, which are at the corners of the plane: straight in W."""

        def of_corner(i: int) -> tuple[Array, Any]:
            z, _ = self.sample_z(jax.vmap(lambda key: jax.random.split(key, 4)[i])(keys), self.sampler)
            return self.styles(model, z, batch), z.get("key")

        corners, noises = zip(*map(of_corner, range(4)), strict=True)
        w = between_corners(lambda a, b, t: a + t[:, None, None] * (b - a), corners, batch["place"])
        return self.paint(model, w, noises[0])

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `interpolation`, `truncation` and `mixing`; see the class. Few keys make fewer of them."""
        rows = min(ROWS, len(keys) // 2)
        if rows == 0:
            return {}
        kept = {name: batch[name][: 2 * rows] for name in self.conditions}
        z, _ = self.sample_z(keys[: 2 * rows], self.sampler)
        w, noise = self.styles(model, z, kept), z.get("key")
        plain = self.styles(model, {"z": z["z"]}, kept)[:rows]
        steps = jnp.linspace(0, 1, FRAMES)[:, None, None]
        mean = model.memory["generator"]["style"]["mean_w"]
        walks = {
            "interpolation": w[:rows, None] + steps * (w[rows:] - w[:rows])[:, None],
            "truncation": mean + steps * (plain - mean)[:, None],
        }
        own = None if noise is None else jnp.repeat(noise[:rows], FRAMES)
        found = {name: self.paint(model, walk.reshape(-1, *w.shape[1:]), own) for name, walk in walks.items()}
        if rows >= MIXED:
            found["mixing"] = self._mixing(model, w[:MIXED], w[rows : rows + MIXED], noise)
        return found

    def _mixing(self, model: Model, coarse: Array, fine: Array, noise: Array | None) -> Array:
        """Returns a table: its left column and upper row are the images whose styles meet, its first image is black."""
        count, half = len(coarse), coarse.shape[1] // 2

        def painted(w: Array) -> Array:
            keys = None if noise is None else jnp.broadcast_to(noise[:1], (len(w),))
            return self.paint(model, w, keys)

        shape = (count, count, *coarse.shape[1:])
        first = jnp.arange(coarse.shape[1])[:, None] < half
        met = jnp.where(first, jnp.broadcast_to(coarse[:, None], shape), jnp.broadcast_to(fine, shape))
        inner = painted(met.reshape(-1, *coarse.shape[1:])).reshape(count, count, *self.image_shape)
        corner = jnp.full((1, *self.image_shape), -1.0)
        left, upper = painted(coarse), jnp.concatenate([corner, painted(fine)])
        table = jnp.concatenate([upper[None], jnp.concatenate([left[:, None], inner], axis=1)])
        return table.reshape(-1, *self.image_shape)
