"""A GAN of points in the plane, of a few dozen weights; named in configs as `point_gan:PointGAN`."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial import penalties
from jaxgen.adversarial.diagnostics import accuracy
from jaxgen.adversarial.losses import GANLoss, NonSaturating
from jaxgen.adversarial.regularisers import spectral_norm, spectral_vectors
from jaxgen.methods.base import Method, Turn


class Net(nn.Module):
    out: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.out)(nn.tanh(nn.Dense(16)(x)))


@dataclasses.dataclass(frozen=True)
class PointGAN(Method):
    image_shape: tuple[int, int, int]
    loss: GANLoss = dataclasses.field(default_factory=NonSaturating)
    gamma: float = 0.1

    def init(self, key, batch, stage, given, params, memory):
        keys = jax.random.split(key, 3)
        discriminator = Net(1).init(keys[0], jnp.zeros((1, 2)))["params"]
        params = {"generator": Net(2).init(keys[1], jnp.zeros((1, 4)))["params"], "discriminator": discriminator}
        return params, {"spectral": spectral_vectors(discriminator, keys[2])}

    def turns(self, stage):
        return (
            Turn("discriminator", ("discriminator",), self.discriminator_loss, repeats=2),
            Turn("generator", ("generator",), self.generator_loss),
        )

    def fakes(self, params, keys):
        z = jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)
        return Net(2).apply({"params": params["generator"]}, z).reshape(-1, *self.image_shape)

    def discriminator(self, params, memory, iterations):
        normed, vectors = spectral_norm(params["discriminator"], memory["spectral"], iterations)
        return lambda x: Net(1).apply({"params": normed}, x.reshape(len(x), -1))[:, 0], vectors

    def discriminator_loss(self, params, batch, key, state):
        real = batch["image"]
        discriminator, vectors = self.discriminator(params, state.memory, 1)
        real_logits, fake_logits = (
            discriminator(real),
            discriminator(self.fakes(params, jax.random.split(key, len(real)))),
        )
        on_real, on_fake = self.loss.discriminator(real_logits, fake_logits)
        total = (on_real + on_fake + self.gamma * penalties.r1(discriminator, real)).mean()
        right = accuracy(real_logits, fake_logits, self.loss.boundary)
        return total, (dict(zip(("right_on_real", "right_on_fake"), right, strict=True)), {"spectral": vectors})

    def generator_loss(self, params, batch, key, state):
        discriminator, _ = self.discriminator(params, state.memory, 0)
        fakes = self.fakes(params, jax.random.split(key, len(batch["image"])))
        return self.loss.generator(discriminator(fakes)).mean(), ({}, {})

    def sample(self, model, keys, batch):
        return self.fakes(model.params, keys)
