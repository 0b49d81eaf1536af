"""A latent diffusion model whose autoencoder loses nothing: its latents are known without training."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.latent_diffusion import LatentDiffusion
from jaxgen.networks.pretrained.text_encoder import TextEncoder
from jaxgen.networks.unet import UNet

SHAPE = (16, 16, 1)
MOMENTS = {"autoencoder": {"weight": jnp.float32(1), "mean": jnp.float32(0), "square": jnp.float32(0.25)}}


class Folded(nn.Module):
    """An autoencoder without loss: 2x2 pixels are four latents of a posterior of hardly any width, times a weight."""

    factor = 2
    latent_channels = 4

    def setup(self):
        self.weight = self.param("weight", nn.initializers.ones_init(), ())

    def encode(self, x):
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 2, 4)
        z = self.weight * x.reshape(batch, height // 2, width // 2, 4)
        return jnp.concatenate([z, jnp.full_like(z, -20.0)], -1)

    def decode(self, z):
        batch, height, width, _ = z.shape
        x = (z / self.weight).reshape(batch, height, width, 2, 2).transpose(0, 1, 3, 2, 4)
        return x.reshape(batch, 2 * height, 2 * width, 1)

    def __call__(self, x):
        return self.decode(jnp.split(self.encode(x), 2, -1)[0])


def make(classes=0, text=False, **options):
    network = UNet(
        out_channels=4, channels=8, channel_multipliers=(1,), blocks=1, attention_resolutions=(8,),
        middle_attention=False, norm_groups=4, num_classes=classes, context_dim=8 if text else 0,
    )  # fmt: skip
    options = {"autoencoder": Folded(), "sampler": DDIM(steps=3, clip=False), "prediction_type": V()} | options
    if text:
        options["text"] = TextEncoder(vocabulary=9, length=5, width=8, depth=1, heads=2)
    return LatentDiffusion(network, schedules.Cosine(), image_shape=SHAPE, num_classes=classes, **options)


def batch():
    image = np.random.default_rng(0).uniform(-1, 1, (3, *SHAPE)).astype(np.float32)
    tokens = jnp.array([[4, 5, 1, 0, 0], [6, 1, 0, 0, 0], [6, 7, 8, 4, 1]], jnp.int32)
    return {"image": jnp.asarray(image), "label": jnp.array([0, 1, 2]), "tokens": tokens}


@functools.cache
def given():
    return {"autoencoder": Folded().init(jax.random.key(0), batch()["image"])["params"]}


@functools.cache
def begun(classes=0, text=False):
    method = make(classes, text)
    known = given()  # outside of the trace, since it is kept
    init = jax.jit(lambda key: method.init(key, batch(), 0, known, {}, MOMENTS))
    params, memory = init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)  # what starts at zero is to have a say
    params = jax.tree.unflatten(tree, [x + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves])
    return Model({**given(), **params}, {**MOMENTS, **memory})
