"""Holds what the first stages of two-stage models share: reconstruction, a perceptual distance, and a game.

The loss has an absolute error, a perceptual distance and a patch discriminator whose weight adapts itself (Esser et al.
2021, "Taming Transformers", Eq. 7). What lies between encoder and decoder is the business of the methods that derive
from it: a Gaussian with a small KL (`kl_autoencoder`), or a codebook (`vq_autoencoder`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial import diagnostics, losses
from jaxgen.adversarial.losses import GANLoss
from jaxgen.arrays import Array, Batch, Memory, Metrics, Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn, check_loaded
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.pretrained.perceptual import perceptual_distance

SMALL = 1e-4  # added to a gradient's norm, as in the authors' code


class Bottleneck(NamedTuple):
    """Holds what lies between encoder and decoder for one batch.

    Attributes:
      z: what the decoder is given, float32 `[B, h, w, D]`, with gradients to the encoder.
      penalty: what is added to the loss, a scalar.
      metrics: scalars to be logged.
      memory: the new memory entry `autoencoder`.
    """

    z: Array
    penalty: Array
    metrics: Metrics
    memory: Tree


@dataclasses.dataclass(frozen=True)
class FirstStage(Method):
    """Turns `autoencoder` and, from `adversarial_start` on, `discriminator`; the groups have these names.

    The autoencoder minimises the mean over images of the sum of absolute errors over values and the perceptual distance
    times the number of values, plus the penalty of what lies between encoder and decoder. With `learn_log_variance` the
    first two terms, which are r together for n values, become r / exp(s) + n s, with s in the group `log_variance`. The
    discriminator begins with stage 1, where all optimisers start again.

    A subclass gives `fresh_memory`, `bottleneck`, `most_likely` and `encode_images`. There is no sampler. Scores of
    held-out images, decoded from `most_likely` and clipped: `psnr` (dB), `l1` (per value, of images in [-1, 1]), and
    `feature_distance`, in the perceptual network, where there is one.
    """

    config_name = ""  # a base of others: no config names it

    network: nn.Module  # with `encode(x)` and `decode(z)`, such as `autoencoder_kl`
    discriminator: nn.Module | None = None  # `x -> {"logits"}`, of any shape, as `patch_discriminator`; None: no game
    perceptual: nn.Module | None = None  # `lpips`, or a classifier; trained weights: `config.init_from.perceptual`
    loss: GANLoss = losses.Hinge()  # the game: `hinge`, or `non_saturating`
    perceptual_weight: float = 1.0  # times the number of an image's values
    adversarial_weight: float = 0.5  # times the adaptive weight, where that is on
    adversarial_start: int = 0  # images after which the game begins
    # The adaptive weight is the ratio of the norms of two gradients at `last_layer`: the reconstruction's and the
    # game's. It is cut at this limit; 0 leaves it out, for a constant `adversarial_weight`.
    adaptive_limit: float = 1e4
    learn_log_variance: bool = False
    last_layer: str = "decoder/conv_out/kernel"  # path of a parameter in the group `autoencoder`

    panel_inputs = ("image",)

    @property
    def ema_groups(self) -> tuple[str, ...]:
        return ("autoencoder",)

    network_needs = {"network": ("encode", "decode", "latent_channels")}
    _not_negative: ClassVar[tuple[str, ...]] = (
        "perceptual_weight", "adversarial_weight", "adversarial_start", "adaptive_limit"
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in self._not_negative:
            if getattr(self, name) < 0:
                raise UserError(f"config.method.{name} is {getattr(self, name)}; it must be at least 0.")

    def fresh_memory(self, params: Tree, image: Float[Array, "B H W C"], key: Array) -> Tree:
        """Returns the memory entry `autoencoder` at the start, of fresh parameters and a first batch of images."""
        raise NotImplementedError

    def bottleneck(self, params: Tree, memory: Tree, image: Float[Array, "B H W C"], key: Array) -> Bottleneck:
        """Returns what lies between encoder and decoder in training.

        Args:
          params: those of the group `autoencoder`.
          memory: the memory entry `autoencoder`.
          image: the images of a batch.
          key: for what is drawn.
        """
        raise NotImplementedError

    def most_likely(self, params: Tree, memory: Tree, image: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Returns what the decoder is given for held-out images."""
        raise NotImplementedError

    @property
    def required_groups(self) -> tuple[str, ...]:
        return () if self.perceptual is None else ("perceptual",)

    @property
    def _opponent(self) -> nn.Module:
        """Returns the discriminator, which is there in stage 1."""
        if self.discriminator is None:
            raise UserError("The game needs a discriminator: set config.method.discriminator.")
        return self.discriminator

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """Stage 0 has no discriminator, stage 1 has one."""
        if self.discriminator is None:
            return ((0, 0),)
        return ((0, 0), (self.adversarial_start, 1)) if self.adversarial_start else ((0, 1),)

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_network, of_discriminator = jax.random.split(key)
        learned, carried = dict(params), dict(memory)
        if "autoencoder" not in learned:
            learned["autoencoder"] = init_params(self.network, of_network, batch["image"])
            self._last_layer(learned["autoencoder"])  # refuses a path that leads to no parameter
            carried["autoencoder"] = self.fresh_memory(learned["autoencoder"], batch["image"], of_network)
            if self.learn_log_variance:
                learned["log_variance"] = {"value": jnp.zeros(())}
        if stage:
            learned["discriminator"], carried["discriminator"] = init_stateful(
                self._opponent, of_discriminator, batch["image"]
            )
            if "discriminator" in given:  # the state inserts given weights at the first stage alone
                check_loaded("discriminator", given["discriminator"], learned["discriminator"])
                learned["discriminator"] = given["discriminator"]
        return learned, carried

    def turns(self, stage: int) -> tuple[Turn, ...]:
        groups = ("autoencoder", "log_variance") if self.learn_log_variance else ("autoencoder",)
        turn = Turn("autoencoder", groups, functools.partial(self.autoencoder_loss, game=stage > 0))
        return (turn, Turn("discriminator", ("discriminator",), self.discriminator_loss)) if stage else (turn,)

    # the losses of the turns

    def autoencoder_loss(
        self, params: Params, batch: Batch, key: Array, state: LossState, game: bool = True
    ) -> LossResult:
        """Returns the sum of the reconstruction's loss, the penalty and, with `game`, the generator's weighted loss.

        The adaptive weight compares the gradients of two losses at the decoded images. These gradients are computed
        once, here; `with_gradient` then lets the total reuse them instead of computing them a second time.
        """
        image = batch["image"]
        between = self.bottleneck(params["autoencoder"], state.memory["autoencoder"], image, key)
        decoded, to_last_layer = self._decode_with_pullback(params["autoencoder"], between.z)
        fixed = jax.lax.stop_gradient(decoded)
        log_variance = params["log_variance"]["value"] if self.learn_log_variance else jnp.zeros(())

        rebuild = functools.partial(self._reconstruction_loss, params, image)
        (reconstruction, errors), reconstruction_gradient = jax.value_and_grad(rebuild, has_aux=True)(fixed)
        total = (
            with_gradient(decoded, reconstruction, reconstruction_gradient) / jnp.exp(log_variance)
            + image[0].size * log_variance
            + between.penalty
        )
        metrics = {}
        if game:
            fool = functools.partial(self._generator_loss, params, state.memory)
            adversarial, adversarial_gradient = jax.value_and_grad(fool)(fixed)
            gradients = reconstruction_gradient / jnp.exp(log_variance), adversarial_gradient
            weight = self._game_weight(*(to_last_layer(gradient) for gradient in gradients))
            total = total + weight * with_gradient(decoded, adversarial, adversarial_gradient)
            metrics = {"game": adversarial, "weight": weight}
        metrics |= {name: x.mean() for name, x in errors.items()} | between.metrics
        if self.learn_log_variance:
            metrics["log_variance"] = log_variance
        return total, (metrics, {"autoencoder": between.memory})

    def discriminator_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        between = self.bottleneck(params["autoencoder"], state.memory["autoencoder"], batch["image"], key)
        fake = self.decode(params, between.z)
        discriminate = functools.partial(apply_stateful, self._opponent, params["discriminator"], train=True)
        on_real, memory = discriminate(state.memory["discriminator"], batch["image"])
        on_fake, memory = discriminate(memory, jax.lax.stop_gradient(fake))
        real, fake = on_real["logits"], on_fake["logits"]
        of_real, of_fake = self.loss.discriminator(real, fake)
        metrics = {"gap": real.mean() - fake.mean()}
        if self.loss.boundary is not None:
            right = diagnostics.accuracy(real, fake, self.loss.boundary)
            metrics |= {"accuracy_on_real": right[0], "accuracy_on_fake": right[1]}
        return of_real.mean() + of_fake.mean(), (metrics, {"discriminator": memory})

    def errors(self, params: Params, image: Array, decoded: Array) -> dict[str, Array]:
        """Returns `l1`, the mean absolute error, and `feature_distance` if there is a network for it: [B] each."""
        found = {"l1": jnp.abs(decoded - image).mean(axis=(1, 2, 3))}
        if self.perceptual is not None:
            found["feature_distance"] = perceptual_distance(self.perceptual, params["perceptual"], image, decoded)
        return found

    def _reconstruction_loss(self, params: Params, image: Array, decoded: Array) -> tuple[Array, dict[str, Array]]:
        """Returns the sum over values and mean over images, and the errors that it is computed from."""
        errors = self.errors(params, image, decoded)
        each = errors["l1"] + self.perceptual_weight * errors.get("feature_distance", 0.0)
        return each.mean() * image[0].size, errors

    def _generator_loss(self, params: Params, memory: Memory, decoded: Array) -> Array:
        outputs, _ = apply_stateful(
            self._opponent, params["discriminator"], memory["discriminator"], decoded, train=True
        )
        return self.loss.generator(outputs["logits"]).mean()

    def _game_weight(self, of_reconstruction: Array, of_game: Array) -> Array:
        """Returns the weight of the generator's loss, computed from both losses' gradients at the last layer (Esser et
        al. 2021, Eq. 7). No gradient flows through it."""
        weight = jnp.asarray(self.adversarial_weight)
        if self.adaptive_limit:
            ratio = jnp.linalg.norm(of_reconstruction) / (jnp.linalg.norm(of_game) + SMALL)
            weight = weight * jnp.clip(ratio, 0, self.adaptive_limit)
        return jax.lax.stop_gradient(weight)

    # the autoencoder itself

    def decode(self, params: Params, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        """Returns the images of latents, not clipped."""
        return self._decode(params["autoencoder"], z)

    def _decode(self, network: Tree, z: Array) -> Array:
        return apply_params(self.network, network, z, method="decode")

    def _decode_with_pullback(self, network: Tree, z: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Returns the images of z, and a function from a gradient at the images to the gradient at the last layer."""
        kernel, replaced = self._last_layer(network)
        decoded, pullback = jax.vjp(lambda kernel: self._decode(replaced(kernel), z), kernel)
        return decoded, lambda gradient: pullback(gradient)[0]

    def _last_layer(self, network: Tree) -> tuple[Array, Callable[[Array], Tree]]:
        """Returns the parameter at `last_layer`, and a function from another value of it to the network's parameters.

        Raises:
          UserError: there is no such parameter.
        """
        path = self.last_layer.split("/")

        def replaced(tree: Tree, path: list[str], value: Array) -> Tree:
            return {**tree, path[0]: replaced(tree[path[0]], path[1:], value)} if path else value

        try:
            kernel = functools.reduce(lambda tree, name: tree[name], path, network)
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(f"config.method.last_layer={self.last_layer!r} is no parameter of the network.") from error
        return kernel, functools.partial(replaced, network, path)

    # on held-out images

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        again = self.reconstructed(model, batch["image"])
        squared = jnp.square(again - batch["image"]).mean(axis=(1, 2, 3))
        psnr = 10 * jnp.log10(4 / jnp.maximum(squared, 1e-10))  # the range of values is 2
        return self.errors(model.params, batch["image"], again) | {"psnr": psnr}

    def better(self, score: str) -> str | None:
        return {"psnr": "higher"}.get(score, super().better(score))

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `reconstructions`: each held-out image and, to its right, its most likely reconstruction."""
        again = self.reconstructed(model, batch["image"])
        return {"reconstructions": jnp.concatenate([batch["image"], again], axis=2)}

    def reconstructed(self, model: Model, image: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Returns the reconstructions, in [-1, 1], of images, without randomness."""
        z = self.most_likely(model.params["autoencoder"], model.memory.get("autoencoder"), image)
        return jnp.clip(self.decode(model.params, z), -1, 1)


def with_gradient(x: Array, value: Array, gradient: Array) -> Array:
    """Returns a scalar that equals `value` and whose gradient in x is `gradient`; both are known already."""
    value, gradient = jax.lax.stop_gradient((value, gradient))
    return value + (gradient * (x - jax.lax.stop_gradient(x))).sum()
