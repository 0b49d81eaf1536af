"""Says which features of an image's pixels a trained model gives: inner layers of a network, or the pixels.

`Features.maps` returns arrays of any size, which `per_pixel` enlarges to the image's and joins.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array, Batch
from jaxgen.diffusion.process import diffuse
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.gans import codes
from jaxgen.methods.gans.gan import GAN
from jaxgen.networks.hooks import taken
from jaxgen.networks.stylegan.latent_generator import LatentGenerator

KEY = "config.method.features"
LEVELS = 1000  # times are counted as by Ho et al. (2020), also under schedules with more levels, or with none
NOISE_SEED = 0  # of the one noise that all images share


class Features(abc.ABC):
    """This is the contract of features. A class of your own derives from it and is named `module:Class`."""

    def check(self, trained: Method | None) -> None:  # noqa: B027  # most classes have something to check, not all
        """Raises a UserError for a trained method that does not have such features; None stands for no trained method.

        It is called before any weights are read.
        """

    def reads(self, trained: Method | None) -> tuple[str, ...]:
        """Returns the entries of a batch that `maps` reads."""
        return ("image",)

    @abc.abstractmethod
    def maps(self, trained: Method | None, model: Model, batch: Batch) -> Sequence[Array]:
        """Returns feature maps of the images of a batch.

        Each is `[B, h, w, D]`, or tokens `[B, N, D]` that fill a grid of the image's proportions row by row, or one
        vector for each image `[B, D]`.

        Args:
          trained: the trained method.
          model: its parameters and memory.
          batch: has the entries of `reads`, by default `image`, float32 `[B, H, W, C]` in [-1, 1].

        Raises:
          UserError: a layer does not exist, or cannot be read.
        """


@dataclasses.dataclass(frozen=True)
class Pixels(Features):
    """Gives the colours themselves: what every other choice has to beat."""

    def maps(self, trained: Method | None, model: Model, batch: Batch) -> Sequence[Array]:
        return [batch["image"]]


@dataclasses.dataclass(frozen=True)
class DiffusionBlocks(Features):
    """Gives what blocks inside a diffusion model's network compute of noisy images (Baranchuk et al. 2022, section 3).

    The noise is the same for all images and times, so that equal pixels have equal features. Labels, texts and other
    conditions of the model are replaced by their nulls.

    Attributes:
      blocks: paths of modules of the network, such as "up_1_block_0" of a U-Net, whose level 0 is the finest.
      times: noise levels, of 1000.
    """

    blocks: tuple[str, ...]
    times: tuple[int, ...] = (50, 150, 250)

    def __post_init__(self) -> None:
        if not self.blocks:
            raise UserError(f"{KEY}.blocks is empty; name modules of the network, such as 'up_1_block_0'.")
        wrong = [time for time in self.times if not 0 <= time < LEVELS]
        if wrong or not self.times:
            raise UserError(f"{KEY}.times={self.times!r} are noise levels: give one or more from 0 to {LEVELS - 1}.")

    def check(self, trained: Method | None) -> None:
        if not isinstance(trained, DDPM):
            raise UserError(_no_such(self, "a diffusion model", trained))
        untaught = [name for name, part in trained.told.all.items() if name not in trained.told.guiding]
        if untaught:
            raise UserError(
                f"{KEY}: the diffusion model of config.init_from.pretrained has not learned to do without its "
                f"condition {untaught[0]!r}, and an image to be segmented has none; train it with a dropout of it."
            )

    def maps(self, trained: Method | None, model: Model, batch: Batch) -> Sequence[Array]:
        assert isinstance(trained, DDPM)
        trained = _without_remat(trained)
        x = trained.diffused(model, batch)
        told = trained.condition(model.params, {**batch, **trained.told.null(_with_conditions(trained, batch))})
        noise = jnp.broadcast_to(jax.random.normal(jax.random.key(NOISE_SEED), x.shape[1:]), x.shape)
        denoise, found = trained.denoiser(model.params), []
        for level in trained.schedule.snap_to_levels(np.asarray(self.times, np.float64) / LEVELS):
            t = jnp.full(len(x), level, jnp.float32)
            with taken(self.blocks) as seen:
                denoise(diffuse(trained.schedule, x, t, noise), t, **told)
            found += [seen[block] for block in self.blocks]
        return found


@dataclasses.dataclass(frozen=True)
class EncoderLayers(Features):
    """Gives what layers of an autoencoder's encoder compute: of a plain, variational or masked one.

    Attributes:
      layers: paths of modules of the encoder, such as "conv_0", or "block_2" of a masked autoencoder, which sees all
        patches here.
    """

    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise UserError(f"{KEY}.layers is empty; name modules of the encoder, such as 'conv_0'.")

    def check(self, trained: Method | None) -> None:
        if not hasattr(trained, "encode"):
            raise UserError(_no_such(self, "an autoencoder", trained))

    def maps(self, trained: Method | None, model: Model, batch: Batch) -> Sequence[Array]:
        with taken(self.layers) as seen:
            trained.encode(model.params, batch["image"])  # type: ignore[union-attr]  # `check` has looked for it
        _, height, width, _ = batch["image"].shape
        # an encoder may have more tokens in front than patches, such as a class token
        return [_patch_tokens(seen[layer], (height, width)) for layer in self.layers]


@dataclasses.dataclass(frozen=True)
class GeneratorLayers(Features):
    """Gives what layers of a GAN's generator compute while they make an image (Zhang et al. 2021, DatasetGAN).

    Only an image that the generator has made has them: a batch holds the image's code, the input that it was made of
    (`jaxgen.methods.gans.codes`), and the image itself is not looked at.

    Attributes:
      layers: paths of modules of the generator, such as "norm_1" of DCGAN's. () takes all layers of a style-based one,
        from the coarsest to the finest; other generators have no list of them.
    """

    layers: tuple[str, ...] = ()

    def check(self, trained: Method | None) -> None:
        if not isinstance(trained, GAN):
            raise UserError(_no_such(self, "a GAN's generator", trained))
        codes.check(trained)
        if not self.layers and not isinstance(trained.generator, LatentGenerator):
            raise UserError(
                f"{KEY}.layers is empty, and {type(trained.generator).__name__} is no style-based generator, whose "
                "layers are known: name modules of it, such as 'norm_1'."
            )

    def reads(self, trained: Method | None) -> tuple[str, ...]:
        assert isinstance(trained, GAN)
        return (*codes.names(trained), *trained.generator.reads)

    def maps(self, trained: Method | None, model: Model, batch: Batch) -> Sequence[Array]:
        assert isinstance(trained, GAN)
        z, memory = codes.read(trained, batch), trained.with_own_statistics(model)
        if not self.layers:
            generator: Any = trained.generator
            variables = {"params": model.params["generator"], **memory["generator"]}
            styles = generator.apply(variables, z, *_label(trained, batch), method="styles")
            return generator.apply(variables, styles, z.get("key"), features=True, method="synthesis")[1]
        with taken(self.layers) as seen:
            trained.generate(model.params, memory, z, batch, train=False)
        return [seen[layer] for layer in self.layers]


def _label(trained: GAN, batch: Batch) -> tuple[Array, ...]:
    return tuple(batch[name] for name in trained.generator.reads)


def per_pixel(maps: Sequence[Array], size: tuple[int, int]) -> Float[Array, "B H W D"]:
    """Enlarges feature maps bilinearly to `size` and joins them along their channels, float32.

    Raises:
      UserError: tokens fill no grid of the image's proportions.
    """
    return jnp.concatenate([_enlarged(_on_grid(x, size), size) for x in maps], axis=-1)


def _enlarged(x: Float[Array, "B h w D"], size: tuple[int, int]) -> Float[Array, "B H W D"]:
    method = jax.image.ResizeMethod.LINEAR
    return jax.image.resize(jnp.asarray(x, jnp.float32), (x.shape[0], *size, x.shape[3]), method)


def _on_grid(x: Array, size: tuple[int, int]) -> Float[Array, "B h w D"]:
    if x.ndim == 2:
        return x[:, None, None]
    if x.ndim == 4:
        return x
    grid = _grid(x.shape[1], size) if x.ndim == 3 else None
    if grid is None:
        raise UserError(
            f"{KEY}: a layer gives an array of shape {x.shape}, which is neither a map nor tokens on a grid of the "
            f"proportions of {size[0]}x{size[1]}; take another one."
        )
    return x.reshape(x.shape[0], *grid, x.shape[2])


def _grid(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Returns rows and columns of `count` tokens of an image of this size; None where there is no such grid."""
    rows = round(math.sqrt(count * size[0] / size[1]))
    columns = count // max(rows, 1)
    return (rows, columns) if rows * columns == count and rows * size[1] == columns * size[0] else None


def _patch_tokens(x: Array, size: tuple[int, int]) -> Array:
    """Returns tokens without a class token in front; other arrays as they are."""
    return x[:, 1:] if x.ndim == 3 and _grid(x.shape[1], size) is None and _grid(x.shape[1] - 1, size) else x


def _without_remat(trained: DDPM) -> DDPM:
    """Returns a method whose network keeps what it computes, so that it can be taken."""
    if not getattr(trained.network, "remat", ""):
        return trained
    return dataclasses.replace(trained, network=trained.network.clone(remat=""))


def _with_conditions(trained: DDPM, batch: Batch) -> Batch:
    """Returns a batch with zeros in place of the conditions that it lacks, from which nulls take their shapes."""
    shapes: Mapping[str, tuple[tuple[int, ...], object]] = {"label": ((), jnp.int32), **trained.entries}
    count = len(batch["image"])
    made = {
        name: jnp.zeros((count, *shapes[name][0]), shapes[name][1])  # type: ignore[arg-type]
        for name in trained.told.entries
        if name not in batch and name in shapes
    }
    return {**batch, **made}


def _no_such(features: Features, needed: str, trained: Method | None) -> str:
    name = type(features).__name__
    if trained is None:
        return (
            f"{KEY}: {name} reads layers of {needed}, and there is none: set config.init_from.pretrained to the "
            "workdir of its run."
        )
    found = type(trained).__name__
    return f"{KEY}: {name} reads layers of {needed}, and config.init_from.pretrained is a run of {found}."
