"""Holds the variational autoencoder (Kingma & Welling 2014), conditional on labels where its networks take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.adversarial.sampling import between_corners, slerp
from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.autoencoders.autoencoder import stacked
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.layers.calls import check_outputs
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.variational.bounds import elbo, free_bits, importance_bound
from jaxgen.variational.gaussian import Gaussian, standard_log_prob
from jaxgen.variational.latents import ACTIVE, TAIL, active, line, plane, traverse
from jaxgen.variational.likelihood import Bernoulli, Likelihood

SIDE = 8  # rows and columns of walks through latent space
PLANE = 16  # rows and columns of the plane of two latents


@dataclasses.dataclass(frozen=True)
class VAE(Method):
    """It has one turn and the groups `encoder` and `decoder`.

    All bounds are nats per image, summed over pixels and latents.

    Scores on held-out data:

    - `negative_elbo`, the sum of `negative_log_likelihood` and `kl`;
    - `negative_iwae_<k>`, if `importance_samples` is k;
    - `squared_error` of the reconstruction from the posterior's mean, and `squared_error_shuffled` of that from the
      mean of another image, which equals it if the latents have collapsed;
    - `active_latents` over the data set.

    Encoder and decoder are given labels where their `num_classes` is above 0 (a conditional VAE, Sohn et al. 2015).
    With `samples` above 1 training maximises the importance-weighted bound (Burda et al. 2016). The KL is then part of
    the weights, with beta as its exponent.
    """

    encoder: nn.Module  # `x -> [B, outputs]`, cloned with `outputs = 2 z_dim`
    decoder: nn.Module  # `z [B, D] -> [B, H, W, C]`, outputs that the likelihood takes
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    z_dim: int = 16  # D, the number of latents
    likelihood: Likelihood = Bernoulli()  # p(x | z)
    beta: float = 1.0  # weight of the KL (Higgins et al. 2017)
    warmup_images: int = 0  # the KL's weight rises linearly from 0 over so many images
    free_bits: float = 0.0  # nats for each latent that cost nothing (Kingma et al. 2016)
    samples: int = 1  # z drawn for an image in training
    importance_samples: int = 0  # k of the importance-weighted bound among the scores; 0 leaves it out
    # The decoder's last bias begins where it gives the mean of the first batch, as in the code of Burda et al. (2016).
    # Otherwise the first updates teach the mean by way of the latents, and many latents die of it.
    start_at_mean: bool = False

    network_needs = {"encoder": ("outputs",)}

    def __post_init__(self) -> None:
        classes = {getattr(network, "num_classes", 0) for network in (self.encoder, self.decoder)}
        if len(classes) > 1:
            raise UserError("Encoder and decoder of a VAE must both see labels or neither: set both num_classes.")
        if self.z_dim < 1 or self.beta < 0 or self.free_bits < 0 or self.warmup_images < 0:
            raise UserError("A VAE needs at least one latent, and beta, free_bits and warmup_images of at least 0.")
        if self.samples < 1 or self.importance_samples < 0:
            raise UserError("A VAE draws at least one sample in training; importance_samples of 0 is none.")
        if self.samples > 1 and self.free_bits:
            raise UserError("With method.samples above 1 the KL is no term of its own: set method.free_bits to 0.")

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("label",) if getattr(self.decoder, "num_classes", 0) else ()

    @property
    def panel_inputs(self) -> tuple[str, ...]:
        return ("image", *self.conditions)

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_encoder, of_decoder = jax.random.split(key)
        labels = self._labels(batch)
        encoder = init_params(self._encoder(), of_encoder, batch["image"], **labels)
        decoder = init_params(self.decoder, of_decoder, jnp.zeros((len(batch["image"]), self.z_dim)), **labels)
        if self.start_at_mean:
            decoder = self._at_mean(decoder, batch["image"].mean(axis=0))
        return {"encoder": encoder, "decoder": decoder}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("bound", ("encoder", "decoder"), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_image, of_latent = jax.random.split(key)
        labels, image = self._labels(batch), self.likelihood.prepare(batch["image"], of_image)
        posterior = self.encode(params, image, **labels)
        kl, weight = posterior.kl(), self.beta * self._warmth(state.images)
        z = posterior.at(jax.random.normal(of_latent, (self.samples, *posterior.mean.shape)))
        found = jax.vmap(lambda z: self.likelihood.log_prob(image, self.decode(params, z, **labels)))(z)
        if self.samples > 1:
            bound = importance_bound(found + weight * (standard_log_prob(z) - posterior.log_prob(z))).mean()
        else:
            charged = free_bits(kl, self.free_bits).sum() if self.free_bits else kl.sum(axis=1).mean()
            bound = found.mean() - weight * charged
        metrics = {
            "negative_log_likelihood": -found.mean(),
            "kl": kl.sum(axis=1).mean(),
            "active_latents": (posterior.mean.var(axis=0) > ACTIVE).sum(),
        }
        return -bound, (metrics, {})

    def encode(self, params: Params, image: Float[Array, "B H W C"], **labels: Array) -> Gaussian:
        """Returns q(z | x), over latents `[B, D]`."""
        outputs = apply_params(self._encoder(), params["encoder"], image, **labels)
        return Gaussian.of(check_outputs(self.encoder, outputs))

    def decode(self, params: Params, z: Float[Array, "B D"], **labels: Array) -> Float[Array, "B H W C"]:
        """Returns the outputs that the likelihood takes; `likelihood.mean` turns them into images."""
        return check_outputs(self.decoder, apply_params(self.decoder, params["decoder"], z, **labels))

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        images = self.likelihood.mean(self.decode(model.params, self._prior(keys), **self._labels(batch)))
        return jnp.clip(images, -1, 1)

    def latent_plane(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        """Returns the images at places of the plane of quantiles of two latents; of more, between four of the prior."""
        place = batch["place"]
        if self.z_dim == 2:
            z = jax.scipy.stats.norm.ppf(TAIL + (1 - 2 * TAIL) * place)
        else:
            drawn = jax.vmap(lambda key: jax.random.normal(key, (4, self.z_dim)))(keys)
            z = between_corners(jax.vmap(slerp), [drawn[:, i : i + 1] for i in range(4)], place)[:, 0]
        images = self.likelihood.mean(self.decode(model.params, z, **self._labels(batch)))
        return jnp.clip(images, -1, 1)

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        labels = self._labels(batch)
        image = self._prepared(keys, batch["image"])
        posterior = self.encode(model.params, image, **labels)

        def look(k: Array) -> tuple[Array, Array]:
            noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1 + k), (self.z_dim,)))(keys)
            z = posterior.at(noise)
            found = self.likelihood.log_prob(image, self.decode(model.params, z, **labels))
            return found, found + standard_log_prob(z) - posterior.log_prob(z)

        def gap(z: Array) -> Array:
            mean = self.likelihood.mean(self.decode(model.params, z, **labels))
            return jnp.square(mean - image).reshape(len(image), -1).sum(axis=1)

        likelihood, _ = look(jnp.uint32(0))
        kl = posterior.kl()
        scores = {
            "negative_elbo": -elbo(likelihood, kl),
            "negative_log_likelihood": -likelihood,
            "kl": kl.sum(axis=1),
            "squared_error": gap(posterior.mean),
            "squared_error_shuffled": gap(jnp.roll(posterior.mean, 1, axis=0)),
            "posterior_mean": posterior.mean,
        }
        if self.importance_samples:
            weights = jax.lax.map(lambda k: look(k)[1], jnp.arange(self.importance_samples, dtype=jnp.uint32))
            scores[f"negative_iwae_{self.importance_samples}"] = -importance_bound(weights)
        return scores

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        means = super().summary({name: values for name, values in scores.items() if name != "posterior_mean"})
        return {**means, "active_latents": float(active(scores["posterior_mean"]))}

    def better(self, score: str) -> str | None:
        return None if score in ("kl", "squared_error_shuffled", "active_latents") else super().better(score)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns the pictures that the data and the latents allow.

        - `traversal`: each row moves one latent from -3 to 3; latents whose posterior means vary most come first.
        - `reconstruction`, with held-out images: an image, its reconstruction, and the reconstruction from the latents
          of another image, below each other.
        - `interpolation`, with held-out images: from the posterior mean of one image to that of another.
        - `manifold`, with two latents: the plane of their quantiles.
        - `analogies`, with labels: each row has the latents of one image and every label in turn.
        """
        labels = self._labels(batch)
        rows, base, order, panels = jnp.arange(SIDE), self._prior(keys), jnp.arange(self.z_dim), {}

        def draw(z: Array, **labels: Array) -> Array:
            return jnp.clip(self.likelihood.mean(self.decode(model.params, z, **labels)), -1, 1)

        def walk(ways: Array, of: Array) -> Array:
            """Returns images of latents `[R, N, D]`; row r has the label of example `of[r]`."""
            index = jnp.repeat(of, ways.shape[1])
            return draw(ways.reshape(-1, self.z_dim), **{name: x[index] for name, x in labels.items()})

        if "image" in batch:
            image = self._prepared(keys, batch["image"])
            base = self.encode(model.params, image, **labels).mean
            order = jnp.argsort(-base.var(axis=0))
            others = jnp.roll(base, 1, axis=0)
            panels["reconstruction"] = stacked(image, draw(base, **labels), draw(others, **labels))
            start, end = rows % len(base), (rows + SIDE) % len(base)
            panels["interpolation"] = walk(line(base[start], base[end], SIDE), start)
        start = rows // self.z_dim % len(base)
        panels["traversal"] = walk(traverse(base[start], order[rows % self.z_dim], SIDE), start)
        if self.z_dim == 2:
            panels["manifold"] = walk(plane(PLANE), jnp.zeros(PLANE, int))
        if labels:
            count = min(self.num_classes, len(base))
            each = jnp.arange(count, dtype=jnp.int32)
            panels["analogies"] = draw(jnp.repeat(base[:count], count, axis=0), label=jnp.tile(each, count))
        return panels

    def _encoder(self) -> nn.Module:
        return self.encoder.clone(outputs=2 * self.z_dim)

    def _at_mean(self, decoder: Params, image: Array) -> Params:
        """Returns the decoder's parameters with the bias of `out`, per pixel or per channel, that gives an image."""
        if "bias" not in decoder.get("out", {}):
            raise UserError("This decoder has no layer `out` with a bias: set method.start_at_mean=False.")
        bias = decoder["out"]["bias"]
        mean = image if bias.size == image.size else image.mean(axis=(0, 1))
        return {**decoder, "out": {**decoder["out"], "bias": self.likelihood.start(mean).reshape(bias.shape)}}

    def _prior(self, keys: Array) -> Array:
        return jax.vmap(lambda key: jax.random.normal(key, (self.z_dim,)))(keys)

    def _prepared(self, keys: Array, image: Array) -> Array:
        """Returns each image in the form that the likelihood explains, prepared by its own key."""
        return jax.vmap(lambda key, x: self.likelihood.prepare(x[None], jax.random.fold_in(key, 0))[0])(keys, image)

    def _labels(self, batch: Batch) -> Batch:
        return {"label": batch["label"]} if self.conditions else {}

    def _warmth(self, images: Array) -> Array | float:
        if not self.warmup_images:
            return 1.0
        return jnp.minimum(jnp.asarray(images, jnp.float32) / self.warmup_images, 1.0)
