"""The variational autoencoder (Kingma & Welling 2014), conditional on labels where its networks take them."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.errors import UserError
from jaxgen.methods.base import Batch, Method, Model, Params, Turn
from jaxgen.variational import likelihood as likelihoods
from jaxgen.variational.bounds import elbo, free_bits, importance_bound
from jaxgen.variational.gaussian import Gaussian, standard_log_prob
from jaxgen.variational.likelihood import Likelihood

ACTIVE = 0.01  # variance of the posterior's mean over data above which a latent is in use (Burda et al. 2016, Sec. 5.1)


@dataclasses.dataclass(frozen=True)
class VAE(Method):
    """One turn, groups `encoder` and `decoder`. All bounds are nats per image, summed over pixels and latents.

    Scores on held-out data: `negative_elbo`, `negative_log_likelihood` and `kl`, whose sum it is; `negative_iwae_<k>`
    where `importance_samples` is k; `squared_error` of the reconstruction from the posterior's mean.

    Attributes:
      encoder: `x -> [B, outputs]`, cloned with `outputs = 2 latents`. decoder: `z [B, D] -> [B, H, W, C]`, outputs
        that the likelihood takes. Both are given labels where their `num_classes` is above 0 (a conditional VAE,
        Sohn et al. 2015).
      latents: D. likelihood: p(x | z). beta: weight of the KL (Higgins et al. 2017).
      warmup_images: the KL's weight rises linearly from 0 over so many images.
      free_bits: nats for each latent that cost nothing (Kingma et al. 2016).
      importance_samples: k of the importance-weighted bound that judges; 0 leaves it out.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    latents: int = 16
    likelihood: Likelihood = likelihoods.bernoulli()
    beta: float = 1.0
    warmup_images: int = 0
    free_bits: float = 0.0
    importance_samples: int = 0

    def __post_init__(self) -> None:
        classes = {getattr(network, "num_classes", 0) for network in (self.encoder, self.decoder)}
        if len(classes) > 1:
            raise UserError("Encoder and decoder of a VAE must both see labels or neither: set both num_classes.")
        if self.latents < 1 or self.beta < 0 or self.free_bits < 0 or self.warmup_images < 0:
            raise UserError("A VAE needs at least one latent, and beta, free_bits and warmup_images of at least 0.")

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("label",) if getattr(self.decoder, "num_classes", 0) else ()

    def init(self, key: jax.Array, batch: Batch, stage: int, given: Params, params: Params, memory: dict):
        of_encoder, of_decoder = jax.random.split(key)
        labels = self._labels(batch)
        encoder = self._encoder().init(of_encoder, batch["image"], **labels)["params"]
        decoder = self.decoder.init(of_decoder, jnp.zeros((len(batch["image"]), self.latents)), **labels)["params"]
        return {"encoder": encoder, "decoder": decoder}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("bound", ("encoder", "decoder"), self.loss),)

    def loss(self, params: Params, batch: Batch, key: jax.Array, state: Any):
        of_image, of_latent = jax.random.split(key)
        labels, image = self._labels(batch), self.likelihood.prepare(batch["image"], of_image)
        posterior = self.encode(params, image, **labels)
        z = posterior.at(jax.random.normal(of_latent, posterior.mean.shape))
        found = self.likelihood.log_prob(image, self.decode(params, z, **labels)).mean()
        kl = posterior.kl()
        charged = free_bits(kl, self.free_bits).sum() if self.free_bits else kl.sum(axis=1).mean()
        weight = self.beta * self._warmth(state.images)
        metrics = {
            "negative_log_likelihood": -found,
            "kl": kl.sum(axis=1).mean(),
            "active_latents": (posterior.mean.var(axis=0) > ACTIVE).sum(),
        }
        return weight * charged - found, (metrics, {})

    def encode(self, params: Params, image: jax.Array, **labels: jax.Array) -> Gaussian:
        """q(z | x) over `[B, D]`."""
        return Gaussian.of(self._encoder().apply({"params": params["encoder"]}, image, **labels))

    def decode(self, params: Params, z: jax.Array, **labels: jax.Array) -> jax.Array:
        """The outputs that the likelihood takes; `likelihood.mean` makes images of them."""
        return self.decoder.apply({"params": params["decoder"]}, z, **labels)

    def sample(self, model: Model, keys: jax.Array, batch: Batch) -> jax.Array:
        z = jax.vmap(lambda key: jax.random.normal(key, (self.latents,)))(keys)
        images = self.likelihood.mean(self.decode(model.params, z, **self._labels(batch)))
        return jnp.clip(images, -1, 1)

    def scores(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        labels = self._labels(batch)
        prepared = jax.vmap(lambda key, x: self.likelihood.prepare(x[None], jax.random.fold_in(key, 0))[0])
        image = prepared(keys, batch["image"])
        posterior = self.encode(model.params, image, **labels)

        def look(k: jax.Array) -> tuple[jax.Array, jax.Array]:
            noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1 + k), (self.latents,)))(keys)
            z = posterior.at(noise)
            found = self.likelihood.log_prob(image, self.decode(model.params, z, **labels))
            return found, found + standard_log_prob(z) - posterior.log_prob(z)

        likelihood, _ = look(jnp.uint32(0))
        kl = posterior.kl()
        mean = self.likelihood.mean(self.decode(model.params, posterior.mean, **labels))
        scores = {
            "negative_elbo": -elbo(likelihood, kl),
            "negative_log_likelihood": -likelihood,
            "kl": kl.sum(axis=1),
            "squared_error": jnp.square(mean - image).reshape(len(image), -1).sum(axis=1),
        }
        if self.importance_samples:
            weights = jax.lax.map(lambda k: look(k)[1], jnp.arange(self.importance_samples, dtype=jnp.uint32))
            scores[f"negative_iwae_{self.importance_samples}"] = -importance_bound(weights)
        return scores

    def panels(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """`traversal`: each latent in turn from -3 to 3, the others those of the first image; with two latents,
        `manifold`: the plane of their quantiles (Kingma & Welling 2014, Figure 4)."""
        labels = {name: x[:1] for name, x in self._labels(batch).items()}

        def draw(z: jax.Array) -> jax.Array:
            repeated = {name: jnp.repeat(x, len(z), axis=0) for name, x in labels.items()}
            return jnp.clip(self.likelihood.mean(self.decode(model.params, z, **repeated)), -1, 1)

        start = jax.random.normal(keys[0], (self.latents,))
        across = jnp.linspace(-3, 3, 8)
        rows = [jnp.tile(start, (8, 1)).at[:, i].set(across) for i in range(min(self.latents, 8))]
        panels = {"traversal": draw(jnp.concatenate(rows))}
        if self.latents == 2:
            quantiles = jax.scipy.stats.norm.ppf(jnp.linspace(0.02, 0.98, 16))
            plane = jnp.stack(jnp.meshgrid(quantiles, quantiles[::-1]), axis=-1).reshape(-1, 2)
            panels["manifold"] = draw(plane)
        return panels

    def _encoder(self) -> nn.Module:
        return self.encoder.clone(outputs=2 * self.latents)

    def _labels(self, batch: Batch) -> Batch:
        return {"label": batch["label"]} if self.conditions else {}

    def _warmth(self, images: jax.Array) -> jax.Array | float:
        if not self.warmup_images:
            return 1.0
        return jnp.minimum(jnp.asarray(images, jnp.float32) / self.warmup_images, 1.0)
