"""CycleGAN (Zhu et al. 2017) learns to translate between two kinds of pictures without pairs of them.

Two generators go in opposite directions. Each has a discriminator of its results, and what goes there and back must
return to where it was. A low cycle loss does not mean that a translation is right: any map that can be undone has one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial import diagnostics, losses
from jaxgen.adversarial.losses import GANLoss
from jaxgen.arrays import Array, Batch, Memory, Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.methods.translation.panel import side_by_side
from jaxgen.methods.translation.pool import empty_pool, exchanged
from jaxgen.networks.layers.stateless import apply_params, init_params

IMAGE, OTHER = "image", "other"
DOMAINS = (IMAGE, OTHER)
ROWS = 8  # examples of each direction in the panel


@dataclasses.dataclass(frozen=True)
class Direction:
    """Says which way pictures are translated when images are sampled.

    Raises:
      UserError: there is no such direction.
    """

    to: Literal["image", "other"] = "image"  # the kind of pictures that is drawn

    def __post_init__(self) -> None:
        if self.to not in DOMAINS:
            raise UserError(f"config.sampler.to is 'image' or 'other', not {self.to!r}.")


@dataclasses.dataclass(frozen=True)
class CycleGAN(Method):
    """Translates between `image`, of the config's data, and `other_image`, of `config.data.extra.other`.

    The groups are `to_image` and `to_other`, the generators, and `discriminator_image` and `discriminator_other`. All
    learn in one turn, since in the authors' code both generators share an optimiser and the discriminators then see
    fakes that were made before the generators' update: this is one simultaneous update. Adam works element by element,
    so that one optimiser for two groups is the same as one for each.

    The generators minimise, with x an image and y one of the other kind, G = to_other and F = to_image,

        adversarial (D_image's loss of F(y) + D_other's of G(x)) + cycle (|F(G(x)) - x| + |G(F(y)) - y|)
        + cycle identity (|F(x) - x| + |G(y) - y|)

    and each discriminator the game on real pictures and on fakes that went through a pool.

    Raises:
      UserError: the generator does not read one picture, or a weight or a size is negative.
    """

    generator: nn.Module  # `(None, <the one entry that it reads>=picture) -> [B, H, W, C]`, for both directions
    discriminator: nn.Module  # `x -> {"logits": a tree of maps}`, without statistics of batches
    image_shape: tuple[int, int, int]
    loss: GANLoss = losses.LeastSquares()
    adversarial: float = 2.0  # weight of the game: the paper's squared error is twice that of `least_squares`
    cycle: float = 10.0  # weight of both cycle losses (lambda)
    identity: float = 0.5  # weight of the identity losses, times `cycle`; 0 leaves them out
    pool: int = 50  # past fakes of each kind that the discriminators see; 0: only new ones
    truth: str = ""  # an entry of held-out images that shows them in the other kind, to score translations by
    sampler: Direction = Direction()  # `config.sampler`: which way pictures are translated

    ema_groups = ("to_image", "to_other")
    panel_inputs = ("image", "other_image")
    network_needs = {"generator": ("reads", "z_dim"), "discriminator": ("reads",)}

    def __post_init__(self) -> None:
        if len(self.generator.reads) != 1 or self.generator.z_dim:
            raise UserError(
                "CycleGAN translates one picture without noise: leave config.method.generator.reads and z_dim at their "
                f"defaults; here they are {self.generator.reads} and {self.generator.z_dim}."
            )
        if self.discriminator.reads:
            raise UserError(
                f"CycleGAN has no pairs, so its discriminators see no {self.discriminator.reads[0]!r} beside an image: "
                "set config.method.discriminator.reads=()."
            )
        if min(self.adversarial, self.cycle, self.identity, self.pool) < 0:
            raise UserError("config.method: adversarial, cycle, identity and pool must not be negative.")

    @property
    def columns(self) -> Mapping[str, int]:
        return {"cycle_of_image": 3, "cycle_of_other": 3}

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("other_image",) if self.sampler.to == IMAGE else ("image",)

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        shapes = {domain: batch[_entry(domain)].shape[1:] for domain in DOMAINS}
        if shapes[IMAGE] != shapes[OTHER]:
            raise UserError(
                f"CycleGAN's two kinds of pictures have shapes {shapes[IMAGE]} and {shapes[OTHER]}, and need one: set "
                "config.data.extra.other.channels, or take other sources."
            )
        picture = batch["image"][:1]
        made: Params = {}
        for i, domain in enumerate(DOMAINS):
            of_generator, of_discriminator = jax.random.split(jax.random.fold_in(key, i))
            made[f"to_{domain}"] = init_params(self.generator, of_generator, None, **{self._reads: picture})
            made[f"discriminator_{domain}"] = init_params(self.discriminator, of_discriminator, picture)
        return made, {"pool": {domain: empty_pool(self.pool, shapes[domain]) for domain in DOMAINS}}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        groups = tuple(f"{part}_{domain}" for part in ("to", "discriminator") for domain in DOMAINS)
        return (Turn("players", groups, self.players_loss),)

    @property
    def _reads(self) -> str:
        return self.generator.reads[0]

    # the two losses, of one simultaneous update

    def players_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        real = {domain: batch[_entry(domain)] for domain in DOMAINS}
        total, metrics, fake = self._generators_loss(params, real)
        pools, keys = {}, jax.random.split(key)
        for domain, own in zip(DOMAINS, keys, strict=True):
            seen, pools[domain] = exchanged(state.memory["pool"][domain], jax.lax.stop_gradient(fake[domain]), own)
            loss, found = self._discriminator_loss(params, domain, real[domain], seen)
            total, metrics = total + loss, metrics | found
        return total, (metrics, {"pool": pools})

    def _generators_loss(self, params: Params, real: Tree) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """Returns the generators' loss, its terms, and the fakes of each kind."""
        fake: dict[str, Array] = {}
        terms: dict[str, Array] = dict.fromkeys(("adversarial", "cycle", "identity"), jnp.zeros(()))
        for domain in DOMAINS:
            source = real[_opposite(domain)]
            if self.identity:
                fake[domain], same = self._pair(params, domain, source, real[domain])
                terms["identity"] += jnp.abs(same - real[domain]).mean()
            else:
                fake[domain] = self.translate(params, domain, source)
        for domain in DOMAINS:
            back = self.translate(params, domain, fake[_opposite(domain)])
            terms["cycle"] += jnp.abs(back - real[domain]).mean()
            judge = jax.lax.stop_gradient(params[f"discriminator_{domain}"])
            terms["adversarial"] += losses.generator_loss(self.loss, self._logits(judge, fake[domain]))
        total = self.adversarial * terms["adversarial"] + self.cycle * terms["cycle"]
        return total + self.cycle * self.identity * terms["identity"], terms, fake

    def _discriminator_loss(
        self, params: Params, domain: str, real: Array, seen: Array
    ) -> tuple[Array, dict[str, Array]]:
        own = params[f"discriminator_{domain}"]
        on_real, on_fake = self._logits(own, real), self._logits(own, seen)
        of_real, of_fake = losses.game(self.loss, on_real, on_fake)
        loss = of_real + of_fake
        metrics = {f"discriminator_{domain}": loss}
        if self.loss.boundary is not None:
            right = diagnostics.accuracy(on_real, on_fake, self.loss.boundary)
            metrics[f"accuracy_{domain}"] = (right[0] + right[1]) / 2
        return loss, metrics

    def translate(self, params: Params, to: str, pictures: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Returns pictures as those of the kind `to`, "image" or "other"."""
        return apply_params(self.generator, params[f"to_{to}"], None, **{self._reads: pictures})

    def _pair(self, params: Params, to: str, first: Array, second: Array) -> tuple[Array, Array]:
        """Translates two batches by one call; the images of both alternate, so that each device keeps its own."""
        both = jnp.stack([first, second], axis=1)
        found = self.translate(params, to, both.reshape(-1, *first.shape[1:])).reshape(both.shape)
        return found[:, 0], found[:, 1]

    def _logits(self, params: Tree, images: Array) -> Tree:
        return apply_params(self.discriminator, params, images)["logits"]

    # use

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        return self.translate(model.params, self.sampler.to, batch[self.conditions[0]])

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "N H W C"]]:
        """Returns `cycle_of_image` and `cycle_of_other`: a picture, its translation, and what comes back, in a line."""
        found = {}
        for domain in DOMAINS:
            if _entry(domain) in batch:
                start = batch[_entry(domain)][:ROWS]
                there = self.translate(model.params, _opposite(domain), start)
                back = self.translate(model.params, domain, there)
                found[f"cycle_of_{domain}"] = side_by_side([start, there, back], self.image_shape)
        return found

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, " B"]]:
        """Returns how far held-out images are from where they were, after both translations, in mean |difference|.

        With `truth`, also how far each translation is from it (`l1_to_image`, `l1_to_other`) and the share of the
        pixels that must change which are right (`accuracy_to_image`, `accuracy_to_other`; see `right_changes`). This is
        the only number here that a wrong but invertible translation does not pass.
        """
        image = batch["image"]
        there = self.translate(model.params, OTHER, image)
        found = {"cycle_l1_image": _distance(self.translate(model.params, IMAGE, there), image)}
        if not self.truth:
            return found
        if self.truth not in batch:
            raise UserError(f"config.method.truth={self.truth!r} is no entry of the held-out data.")
        other = batch[self.truth]
        back = self.translate(model.params, IMAGE, other)
        found["cycle_l1_other"] = _distance(self.translate(model.params, OTHER, back), other)
        for domain, given, source, true in ((IMAGE, back, other, image), (OTHER, there, image, other)):
            found[f"l1_to_{domain}"] = _distance(given, true)
            found[f"accuracy_to_{domain}"] = right_changes(given, source, true)
        return found


def right_changes(
    given: Float[Array, "B H W C"],
    source: Float[Array, "B H W C"],
    true: Float[Array, "B H W C"],
    within: float = 0.3,
) -> Float[Array, " B"]:
    """Returns, of the pixels that must change, the share that is right: within so much of the truth in every channel.

    A pixel must change where source and truth differ by more than `within` in some channel; where none does, the share
    is 1. Doing nothing has 0, whereas over all pixels it would have the share of those that stay.
    """
    changes = (jnp.abs(source - true) > within).any(-1)
    right = (jnp.abs(given - true) <= within).all(-1)
    count = changes.sum((1, 2))
    return jnp.where(count > 0, (changes & right).sum((1, 2)) / jnp.maximum(count, 1), 1.0)


def _entry(domain: str) -> str:
    """Returns the name that a domain's pictures have in a batch."""
    return "image" if domain == IMAGE else "other_image"


def _opposite(domain: str) -> str:
    return OTHER if domain == IMAGE else IMAGE


def _distance(a: Array, b: Array) -> Float[Array, " B"]:
    return jnp.abs(a - b).mean((1, 2, 3))
