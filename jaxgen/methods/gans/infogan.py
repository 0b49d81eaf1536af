"""InfoGAN (Chen et al. 2016) learns, without labels, codes that can be recognised in the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial.mutual_information import Codes
from jaxgen.adversarial.sampling import NORMAL, GANSampler
from jaxgen.arrays import Array, Batch, Params
from jaxgen.data_shards import shard_rows
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Model, Turn
from jaxgen.methods.gans.gan import FRAMES, GAN, ROWS

CodeBatch = dict[str, Array]  # codes as `jaxgen.adversarial.mutual_information.Codes` draws them


@dataclasses.dataclass(frozen=True)
class InfoGAN(GAN):
    """In a third turn, `information`, both networks minimise -log Q(c | x); Q is a head of the discriminator.

    The generator's input is z and the codes, drawn from one distribution in all turns. The control is `information=0`
    and `continuous_information=0`: the same networks, and codes that mean nothing.
    """

    codes: Codes = Codes()  # the distribution of the codes c
    information: float = 1.0  # weight of the categorical codes' term (lambda, the paper's 1)
    continuous_information: float = 0.1  # weight of the continuous codes' term (the paper has it smaller than 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generator.conditional or self.discriminator.conditional:
            raise UserError(
                "InfoGAN finds classes by itself: set the conditioning of generator and discriminator to 'none'."
            )

    @property
    def columns(self) -> Mapping[str, int]:
        of_codes = {f"categorical_{i}": classes for i, classes in enumerate(self.codes.categorical)}
        return {**super().columns, **of_codes, **{f"continuous_{i}": FRAMES for i in range(self.codes.continuous)}}

    def discriminator_with_heads(self) -> nn.Module:
        return self.discriminator.clone(heads={"code": self.codes.head_width})

    def sample_z(self, keys: Key[Array, " B"], sampler: GANSampler = NORMAL) -> tuple[Float[Array, "B Z"], CodeBatch]:
        z, _ = super().sample_z(keys, sampler)
        codes = self.codes.sample(jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys))
        return jnp.concatenate([z, self.codes.encode(codes)], axis=1), codes

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (*super().turns(stage), Turn("information", ("generator", "discriminator"), self.information_loss))

    def information_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        z, codes = shard_rows(self.sample_z(jax.random.split(key, len(batch["image"]))))
        fake, memory = self.generate(params, state.memory, z, batch, train=True)
        outputs, _ = self.discriminate(params, memory, fake, batch)
        parts = {k: v.mean() for k, v in self.codes.negative_log_likelihoods(outputs["code"], codes).items()}
        total = self.information * parts["categorical"] + self.continuous_information * parts["continuous"]
        metrics = {"bound": self.codes.bound(outputs["code"], codes).mean(), **parts}
        return total, (metrics, {"generator": memory["generator"]})

    def with_codes(self, z: Float[Array, "B Z"], codes: CodeBatch) -> Float[Array, "B Z"]:
        """Returns generator inputs with these codes and the noise of z."""
        return jnp.concatenate([z[:, : self.generator.z_dim], self.codes.encode(codes)], axis=1)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `interpolation` and tables of codes, with a row for each noise.

        - `categorical_0`, ...: a column for each class of the code.
        - `continuous_0`, ...: columns for values of the code from -2 to 2.
        """
        found = super().panels(model, keys, batch)
        rows = min(ROWS, len(keys))
        z, codes = self.sample_z(keys[:rows], self.sampler)

        def row_images(columns: int, change: Callable[[CodeBatch, Array], CodeBatch]) -> Array:
            repeated = {k: jnp.repeat(v, columns, axis=0) for k, v in codes.items()}
            at = jnp.tile(jnp.arange(columns), rows)
            return self.sample_from_z(model, self.with_codes(jnp.repeat(z, columns, axis=0), change(repeated, at)), {})

        for i, classes in enumerate(self.codes.categorical):

            def categorical(held: CodeBatch, at: Array, i: int = i) -> CodeBatch:
                return {**held, "categorical": held["categorical"].at[:, i].set(at)}

            found[f"categorical_{i}"] = row_images(classes, categorical)
        for i in range(self.codes.continuous):

            def continuous(held: CodeBatch, at: Array, i: int = i) -> CodeBatch:
                return {**held, "continuous": held["continuous"].at[:, i].set(at * 4 / (FRAMES - 1) - 2)}

            found[f"continuous_{i}"] = row_images(FRAMES, continuous)
        return found
