"""Holds the first stage of latent diffusion (Rombach et al. 2022, section 3.1): a slightly regular autoencoder.

Reconstruction, perceptual distance and discriminator are those of `jaxgen.methods.autoencoders.first_stage`; between
encoder and decoder are Gaussians with a very small KL.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.codecs.latents import scale_of
from jaxgen.methods.autoencoders.first_stage import Bottleneck, FirstStage
from jaxgen.methods.base import Model
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.variational.gaussian import Gaussian

KEPT = 0.99  # share of the latents' moments that is kept at each step, for a mean over about a hundred batches
Moments = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class KLAutoencoder(FirstStage):
    """Adds `kl_weight` times the KL, summed over latents, to the loss of `FirstStage`.

    `network` has `encode(x) -> moments` and `decode(z)`, as `autoencoder_kl`. The memory `autoencoder` holds the
    moments of sampled latents over about a hundred batches. `scale_of` computes from them the factor that gives latents
    a standard deviation of 1, which latent diffusion reads. There is one more score, `kl` (nats per image); images are
    decoded from the posterior's mean.
    """

    kl_weight: float = 1e-6

    encodes = "moments"
    _not_negative = (*FirstStage._not_negative, "kl_weight")

    def fresh_memory(self, params: Tree, image: Float[Array, "B H W C"], key: Array) -> Moments:
        return {name: jnp.zeros(()) for name in ("weight", "mean", "square")}

    def bottleneck(self, params: Tree, memory: Moments, image: Float[Array, "B H W C"], key: Array) -> Bottleneck:
        posterior = self._posterior(params, image)
        z = posterior.at(jax.random.normal(key, posterior.mean.shape))
        kl = posterior.kl().sum(axis=(1, 2, 3)).mean()
        moments = self.updated_moments(memory, z)
        return Bottleneck(z, self.kl_weight * kl, {"kl": kl, "latent_std": 1 / scale_of(moments)}, moments)

    def most_likely(self, params: Tree, memory: Tree, image: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        return self._posterior(params, image).mean

    def encode_images(self, model: Model, image: Float[Array, "B H W C"]) -> Float[Array, "B h w 2*D"]:
        return apply_params(self.network, model.params["autoencoder"], image, method="encode")

    def encode(self, params: Params, image: Float[Array, "B H W C"]) -> Gaussian:
        """Returns q(z | x), over latents `[B, h, w, D]`."""
        return self._posterior(params["autoencoder"], image)

    def _posterior(self, network: Tree, image: Array) -> Gaussian:
        return Gaussian.of(apply_params(self.network, network, image, method="encode"))

    @staticmethod
    def updated_moments(moments: Moments, z: Array) -> Moments:
        """Returns the running moments of latents after a batch of latents."""
        now = {"weight": jnp.ones(()), "mean": z.mean(), "square": jnp.square(z).mean()}
        return {name: jax.lax.stop_gradient(KEPT * moments[name] + (1 - KEPT) * now[name]) for name in now}

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        kl = self.encode(model.params, batch["image"]).kl().sum(axis=(1, 2, 3))
        return super().scores(model, keys, batch) | {"kl": kl}

    def better(self, score: str) -> str | None:
        return None if score == "kl" else super().better(score)
