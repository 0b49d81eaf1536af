"""A GAN whose z and logits are trees and whose networks read a picture; named in configs as `tiny_games:<Name>`."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial.sampling import NORMAL
from jaxgen.methods.gans.gan import GAN
from jaxgen.networks.gans.gan_layers import GANNetwork


class Scales(GANNetwork):
    """A discriminator of two maps, the second of the image at half its side, that also sees a picture."""

    reads = ("outline",)

    @nn.compact
    def __call__(self, x, outline, train=False):
        seen = jnp.concatenate([x, outline], axis=-1)
        half = nn.avg_pool(seen, (2, 2), (2, 2))
        maps = {"fine": nn.Conv(1, (3, 3))(nn.relu(nn.Conv(4, (3, 3))(seen))), "coarse": nn.Conv(1, (3, 3))(half)}
        return {"logits": {name: found[..., 0] for name, found in maps.items()}, "features": half}


class Rooms(GANNetwork):
    """A generator that reads a picture, and whose z is a tree: numbers, and a key for the noise of each image."""

    z_dim: int = 4
    channels: int = 1
    reads = ("outline",)

    @nn.compact
    def __call__(self, z, outline, train=False):
        noise = jax.vmap(lambda key: jax.random.normal(key, outline.shape[1:]))(z["key"])
        told = nn.Dense(4)(z["numbers"])[:, None, None]
        seen = jnp.concatenate([outline, noise], axis=-1)
        return nn.tanh(nn.Conv(self.channels, (3, 3))(seen) + told.mean(-1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class OnTrees(GAN):
    uses_real = True

    def sample_z(self, keys, sampler=NORMAL):
        numbers, _ = super().sample_z(keys, sampler)
        return {"numbers": numbers, "key": jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)}, None

    def generator_terms(self, step):
        difference = jnp.abs(step.outputs["features"] - step.real_outputs["features"]).mean()
        return difference, {"feature_distance": difference}
