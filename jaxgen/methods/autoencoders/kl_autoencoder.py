"""The first stage of latent diffusion (Rombach et al. 2022, section 3.1): an autoencoder, sharp and slightly regular.

Absolute error, a perceptual distance, a patch discriminator whose weight adapts itself (Esser et al. 2021, "Taming
Transformers", Eq. 7), and a very small KL.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial import diagnostics, losses
from jaxgen.adversarial.losses import GANLoss
from jaxgen.arrays import Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn, check_loaded
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful
from jaxgen.networks.pretrained.perceptual import perceptual_distance
from jaxgen.variational.gaussian import Gaussian

KEPT = 0.99  # share of the latents' moments that is kept at each step: those of the last hundred batches or so
SMALL = 1e-4  # beside a gradient's norm, as in the authors' code
Moments = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class KLAutoencoder(Method):
    """Turns `autoencoder` and, from `adversarial_start` on, `discriminator`; the groups bear these names.

    What the autoencoder descends is a mean over images of sums: absolute errors over values, the perceptual distance
    times the number of values, and the KL over latents. With `learn_log_variance` the first two, r of n values,
    become r / exp(s) + n s, with s in the group `log_variance`. The discriminator begins at a stage's boundary, where
    all optimisers start again.

    Memory `autoencoder` holds the moments of sampled latents over the last hundred batches or so: `scale_of` them is
    the factor that gives latents a standard deviation of 1, which latent diffusion reads. It has no sampler.
    Scores of held-out images, decoded from the posterior's mean and clipped: `psnr` (dB), `l1` (per value, of images
    in [-1, 1]), `kl` (nats per image), and `feature_distance`, in the perceptual network, where there is one.

    Attributes:
      network: with `encode(x) -> moments` and `decode(z)`, such as `autoencoder_kl`.
      discriminator: `x -> {"logits"}`, of any shape, such as `patch_discriminator`; None for no game.
      perceptual: `lpips`, or a classifier of such images; its trained weights are `config.init_from.perceptual`.
      loss: the game: `hinge`, or `non_saturating`.
      perceptual_weight, kl_weight: see above.
      adversarial_weight: times the adaptive weight, where that is on.
      adversarial_start: images after which the game begins.
      adaptive_limit: the adaptive weight, the ratio of the norms of the reconstruction's and the game's gradients at
        `last_layer`, is cut at this; 0 leaves it out, for a constant `adversarial_weight`.
      last_layer: path of a parameter in the group `autoencoder`.
    """

    network: nn.Module
    discriminator: nn.Module | None = None
    perceptual: nn.Module | None = None
    loss: GANLoss = losses.Hinge()
    perceptual_weight: float = 1.0
    kl_weight: float = 1e-6
    adversarial_weight: float = 0.5
    adversarial_start: int = 0
    adaptive_limit: float = 1e4
    learn_log_variance: bool = False
    last_layer: str = "decoder/conv_out/kernel"

    ema_groups = ("autoencoder",)
    panel_inputs = ("image",)

    def __post_init__(self) -> None:
        numbers = ("perceptual_weight", "kl_weight", "adversarial_weight", "adversarial_start", "adaptive_limit")
        for name in numbers:
            if getattr(self, name) < 0:
                raise UserError(f"config.method.{name} is {getattr(self, name)}; it must be at least 0.")

    @property
    def required_groups(self) -> tuple[str, ...]:
        return () if self.perceptual is None else ("perceptual",)

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """Stage 1 has a discriminator, stage 0 has none."""
        if self.discriminator is None:
            return ((0, 0),)
        return ((0, 0), (self.adversarial_start, 1)) if self.adversarial_start else ((0, 1),)

    def init(
        self, key: jax.Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_network, of_discriminator = jax.random.split(key)
        learned, carried = dict(params), dict(memory)
        if "autoencoder" not in learned:
            learned["autoencoder"] = self.network.init(of_network, batch["image"])["params"]
            self._split(learned["autoencoder"])  # a last layer that is not there is found now
            carried["autoencoder"] = {name: jnp.zeros(()) for name in ("weight", "mean", "square")}
            if self.learn_log_variance:
                learned["log_variance"] = {"value": jnp.zeros(())}
        if stage:
            learned["discriminator"], carried["discriminator"] = init_stateful(
                self.discriminator, of_discriminator, batch["image"]
            )
            if "discriminator" in given:  # weights that are given at the first stage are looked after by the state
                check_loaded("discriminator", given["discriminator"], learned["discriminator"])
                learned["discriminator"] = given["discriminator"]
        return learned, carried

    def turns(self, stage: int) -> tuple[Turn, ...]:
        groups = ("autoencoder", "log_variance") if self.learn_log_variance else ("autoencoder",)
        turn = Turn("autoencoder", groups, functools.partial(self.autoencoder_loss, game=stage > 0))
        return (turn, Turn("discriminator", ("discriminator",), self.discriminator_loss)) if stage else (turn,)

    # what the turns descend

    def autoencoder_loss(
        self, params: Params, batch: Batch, key: jax.Array, state: LossState, game: bool = True
    ) -> LossResult:
        image = batch["image"]
        posterior = self.encode(params, image)
        z = posterior.at(jax.random.normal(key, posterior.mean.shape))
        rest, last = self._split(params["autoencoder"])
        # `to_last` brings a gradient at the images back to the last layer, and no further
        again, to_last = jax.vjp(lambda kernel: self._decode(rest(kernel), z), last)

        seen = jax.lax.stop_gradient(again)
        (value, far), slope = jax.value_and_grad(functools.partial(self._far, params, image), has_aux=True)(seen)
        metrics = {}
        log_variance = params["log_variance"]["value"] if self.learn_log_variance else jnp.zeros(())
        values = image[0].size
        kl = posterior.kl().sum(axis=(1, 2, 3)).mean()
        total = follow(again, value, slope) / jnp.exp(log_variance) + values * log_variance + self.kl_weight * kl
        if game:
            against, push = jax.value_and_grad(functools.partial(self._game, params, state.memory))(seen)
            weight = jnp.asarray(self.adversarial_weight)
            if self.adaptive_limit:
                norms = [jnp.linalg.norm(to_last(x)[0]) for x in (slope / jnp.exp(log_variance), push)]
                weight = weight * jnp.clip(norms[0] / (norms[1] + SMALL), 0, self.adaptive_limit)
            weight = jax.lax.stop_gradient(weight)
            total = total + weight * follow(again, against, push)
            metrics = {"game": against, "weight": weight}
        moments = self.watch(state.memory["autoencoder"], z)
        metrics |= {name: x.mean() for name, x in far.items()} | {"kl": kl, "latent_std": 1 / scale_of(moments)}
        if self.learn_log_variance:
            metrics["log_variance"] = log_variance
        return total, (metrics, {"autoencoder": moments})

    def discriminator_loss(self, params: Params, batch: Batch, key: jax.Array, state: LossState) -> LossResult:
        posterior = self.encode(params, batch["image"])
        fake = self.decode(params, posterior.at(jax.random.normal(key, posterior.mean.shape)))
        look = functools.partial(apply_stateful, self.discriminator, params["discriminator"], train=True)
        on_real, memory = look(state.memory["discriminator"], batch["image"])
        on_fake, memory = look(memory, jax.lax.stop_gradient(fake))
        real, fake = on_real["logits"], on_fake["logits"]
        of_real, of_fake = self.loss.discriminator(real, fake)
        metrics = {"gap": real.mean() - fake.mean()}
        if self.loss.boundary is not None:
            right = diagnostics.accuracy(real, fake, self.loss.boundary)
            metrics |= {"accuracy_on_real": right[0], "accuracy_on_fake": right[1]}
        return of_real.mean() + of_fake.mean(), (metrics, {"discriminator": memory})

    def errors(self, params: Params, image: jax.Array, again: jax.Array) -> dict[str, jax.Array]:
        """`l1`, the mean absolute error, and `feature_distance` where there is a network for it: [B] each."""
        found = {"l1": jnp.abs(again - image).mean(axis=(1, 2, 3))}
        if self.perceptual is not None:
            found["feature_distance"] = perceptual_distance(self.perceptual, params["perceptual"], image, again)
        return found

    def _far(self, params: Params, image: jax.Array, again: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The reconstruction's loss, a sum over values and a mean over images, and the errors it is made of."""
        errors = self.errors(params, image, again)
        each = errors["l1"] + self.perceptual_weight * errors.get("feature_distance", 0.0)
        return each.mean() * image[0].size, errors

    def _game(self, params: Params, memory: Memory, again: jax.Array) -> jax.Array:
        outputs, _ = apply_stateful(
            self.discriminator, params["discriminator"], memory["discriminator"], again, train=True
        )
        return self.loss.generator(outputs["logits"]).mean()

    # the autoencoder itself

    def encode(self, params: Params, image: jax.Array) -> Gaussian:
        """q(z | x) over `[B, h, w, D]`."""
        variables = {"params": params["autoencoder"]}
        return Gaussian.of(self.network.apply(variables, image, method="encode"))

    def decode(self, params: Params, z: jax.Array) -> jax.Array:
        """Images `[B, H, W, C]` of latents `[B, h, w, D]`, not clipped."""
        return self._decode(params["autoencoder"], z)

    def _decode(self, params: Any, z: jax.Array) -> jax.Array:
        return self.network.apply({"params": params}, z, method="decode")

    def _split(self, params: Any) -> tuple[Callable[[jax.Array], Any], jax.Array]:
        """The last layer's parameter, and a function that puts another one in its place."""
        *path, leaf = self.last_layer.split("/")

        def put(tree: Any, path: list[str], value: jax.Array) -> Any:
            return {**tree, path[0]: put(tree[path[0]], path[1:], value)} if path else value

        try:
            last = functools.reduce(lambda tree, name: tree[name], [*path, leaf], params)
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(f"config.method.last_layer={self.last_layer!r} is no parameter of the network.") from error
        return functools.partial(put, params, [*path, leaf]), last

    @staticmethod
    def watch(moments: Moments, z: jax.Array) -> Moments:
        """The moments after a batch of latents."""
        now = {"weight": jnp.ones(()), "mean": z.mean(), "square": jnp.square(z).mean()}
        return {name: jax.lax.stop_gradient(KEPT * moments[name] + (1 - KEPT) * now[name]) for name in now}

    # judging

    def scores(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        posterior = self.encode(model.params, batch["image"])
        again = jnp.clip(self.decode(model.params, posterior.mean), -1, 1)
        squared = jnp.square(again - batch["image"]).mean(axis=(1, 2, 3))
        psnr = 10 * jnp.log10(4 / jnp.maximum(squared, 1e-10))  # the range of values is 2
        errors = self.errors(model.params, batch["image"], again)
        return errors | {"psnr": psnr, "kl": posterior.kl().sum(axis=(1, 2, 3))}

    def better(self, score: str) -> str | None:
        return {"psnr": "higher", "kl": None}.get(score, super().better(score))

    def panels(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """`reconstructions`: each held-out image, and beside it what is decoded from its posterior's mean."""
        again = self.decode(model.params, self.encode(model.params, batch["image"]).mean)
        return {"reconstructions": jnp.concatenate([batch["image"], jnp.clip(again, -1, 1)], axis=2)}


def follow(x: jax.Array, value: jax.Array, slope: jax.Array) -> jax.Array:
    """A scalar that is `value` and whose gradient in x is `slope`, both known already: nothing is computed twice."""
    value, slope = jax.lax.stop_gradient((value, slope))
    return value + (slope * (x - jax.lax.stop_gradient(x))).sum()


def scale_of(moments: Moments) -> jax.Array:
    """1 / std of the latents whose moments were watched (Rombach et al. 2022, Appendix G)."""
    mean, square = (moments[name] / moments["weight"] for name in ("mean", "square"))
    return 1 / jnp.sqrt(jnp.maximum(square - jnp.square(mean), 1e-12))
