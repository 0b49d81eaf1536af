"""SinGAN (Rott Shaham et al. 2019) learns a generator from one picture, at one scale after the other.

At scale n, from the coarsest on, a generator adds what is missing to the enlarged image of the scale below, and a
discriminator sees the patches of its images and of the picture, made small to that scale. A finished scale is frozen.

The method calls its networks so, at each scale:

    generator: `(noisy [B, H, W, C], image [B, H, W, C], train)` -> images [B, H, W, C]
    discriminator: `(x [B, H, W, C], train)` -> `{"logits": a map or a tree of maps, ...}`, high on real images

Memory holds `amplitudes` [scales] of the noise, `fixed_noise` [1, h, w, 1], from which the picture itself is drawn, and
`below` [1, H, W, C], the reconstruction of the scale below at the size of the current one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial import diagnostics, losses, penalties
from jaxgen.adversarial.pyramid import Size, check_sizes, ratio, resized, sizes
from jaxgen.adversarial.sampling import Pyramid
from jaxgen.arrays import Array, Batch, Memory, Params, Tree
from jaxgen.data_shards import shard_rows
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.layers.stateless import apply_params, init_params

Noise = Callable[[int, tuple[int, int, int]], Array]  # (scale, (H, W, C)) -> [B, H, W, C] or [1, H, W, C]
GAME = losses.Wasserstein()
WIDTHS, WIDEST = ("width", "least_width"), 128  # fields of the networks, and the channels that they do not exceed
STARTS = 4  # scales from which the panel `starts` draws, at most


@dataclasses.dataclass(frozen=True)
class SinGAN(Method):
    """Trains the scales of one picture as stages, with the turns `discriminator` and `generator`.

    The group `generator` is that of the current scale, and `pyramid` holds the finished ones, `scale_0` to
    `scale_<n-1>`. A new scale begins with the weights of the one below where their widths agree. Nothing is averaged:
    each scale learns on what the frozen ones draw. With `c = max(discriminator_steps, generator_steps)`, a step draws
    the picture c times, and each of these counts as an image.

    Raises:
      UserError: a number is out of its range, or the picture is too small for its scales.
    """

    generator: nn.Module
    discriminator: nn.Module
    image_shape: tuple[int, int, int]  # of the picture at its finest scale
    scales: int = 8
    coarsest: int = 25  # pixels of the shorter side at the coarsest scale (the paper's 25)
    images_per_scale: int = 6000  # the paper: 2000 steps that draw the picture 3 times
    discriminator_steps: int = 3
    generator_steps: int = 3
    gradient_penalty: float = 0.1  # weight of (|slope| - 1)**2, the norm over the channels at each pixel
    reconstruction: float = 10.0  # weight of the squared error of the image drawn from the fixed noise (alpha)
    noise: float = 0.1  # the noise of a scale, in root mean squared errors of the reconstruction that it begins with
    double_every: int = 4  # scales after which the networks are twice as wide, up to 128 channels
    sampler: Pyramid = Pyramid()  # `config.sampler`: the size of the images, and the scale to start at

    ema_groups = ()
    network_needs = {"generator": ("width",), "discriminator": ("width",)}
    most_examples = 1

    def __post_init__(self) -> None:
        counts = ("scales", "coarsest", "images_per_scale", "discriminator_steps", "generator_steps", "double_every")
        for name in counts:
            if getattr(self, name) < 1:
                raise UserError(f"config.method.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("gradient_penalty", "reconstruction", "noise"):
            if getattr(self, name) < 0:
                raise UserError(f"config.method.{name} is {getattr(self, name)}; it must not be negative.")
        check_sizes(self.image_shape[:2], self.coarsest, self.scales)
        if self.sampler.start >= self.scales:
            raise UserError(
                f"config.sampler.start={self.sampler.start} keeps all of the {self.scales} scales; nothing would be "
                f"drawn: it is at most {self.scales - 1}."
            )

    # the scales

    @functools.cached_property
    def ratio(self) -> float:
        """Returns the ratio of the sides of neighbouring scales, below 1."""
        return ratio(self.image_shape[:2], self.coarsest, self.scales)

    def sizes(self, size: Size | None = None) -> tuple[Size, ...]:
        """Returns the height and width of each scale, the coarsest first, for images of a size; by default its own."""
        return sizes(size or self.image_shape[:2], self.ratio, self.scales)

    def at_size(self, size: Size) -> SinGAN:
        """Returns the method that draws images of another height and width."""
        return dataclasses.replace(self, sampler=dataclasses.replace(self.sampler, size=size))

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        return tuple((n * self.images_per_scale, n) for n in range(self.scales))

    @property
    def columns(self) -> Mapping[str, int]:
        return {"starts": 1 + min(self.scales, STARTS), "reconstructions": self.scales}

    def network(self, name: str, scale: int) -> nn.Module:
        """Returns the generator or the discriminator of a scale, with its `width` and, if it has one, `least_width`."""
        network = getattr(self, name)
        widths = {field: getattr(network, field) for field in WIDTHS if hasattr(network, field)}
        wider = 2 ** (scale // self.double_every)
        return network.clone(**{field: max(value, min(value * wider, WIDEST)) for field, value in widths.items()})

    def picture(self, images: Float[Array, "B H W C"], scale: int) -> Float[Array, "B h w C"]:
        """Returns the picture as it is at a scale, in [-1, 1]."""
        return jnp.clip(resized(images, self.sizes()[scale]), -1, 1)

    # training

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_generator, of_discriminator, of_noise = jax.random.split(key, 3)
        real = self.picture(batch["image"][:1], stage)
        fresh = {
            "generator": init_params(self.network("generator", stage), of_generator, real, real),
            "discriminator": init_params(self.network("discriminator", stage), of_discriminator, real),
        }
        if stage == 0:
            fixed = jax.random.normal(of_noise, (1, *real.shape[1:3], 1))
            amplitudes = jnp.zeros(self.scales).at[0].set(1.0)
            return {**fresh, "pyramid": {}}, _memory(amplitudes, fixed, jnp.zeros_like(real))
        for name in fresh:
            if self.network(name, stage) == self.network(name, stage - 1):
                fresh[name] = params[name]
        below = resized(self.reconstruct(params, memory, stage - 1), self.sizes()[stage])
        error = jnp.sqrt(jnp.square(below - real).mean())
        amplitudes = memory["amplitudes"].at[stage].set(self.noise * error)
        pyramid = {**params["pyramid"], f"scale_{stage - 1}": params["generator"]}
        return {**fresh, "pyramid": pyramid}, _memory(amplitudes, memory["fixed_noise"], below)

    def turns(self, stage: int) -> tuple[Turn, ...]:
        of_discriminator, of_generator = (
            functools.partial(loss, stage) for loss in (self.discriminator_loss, self.generator_loss)
        )
        return (
            Turn("discriminator", ("discriminator",), of_discriminator, repeats=self.discriminator_steps),
            Turn("generator", ("generator",), of_generator, repeats=self.generator_steps),
        )

    def discriminator_loss(self, stage: int, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_noise, of_place = jax.random.split(key)
        real = self.picture(batch["image"], stage)
        fake = jax.lax.stop_gradient(self._fakes(params, state.memory, of_noise, len(real), stage))

        def logits(images: Array) -> Tree:
            return self.discriminate(params, images, stage)

        on_real, on_fake = logits(real), logits(fake)
        of_reals, of_fakes = losses.game(GAME, on_real, on_fake)
        penalty = penalties.gradient_penalty(logits, real, fake, of_place, per_pixel=True).mean()
        gap = diagnostics.mean_logit(on_real) - diagnostics.mean_logit(on_fake)
        return of_reals + of_fakes + self.gradient_penalty * penalty, ({"gap": gap, "gradient_penalty": penalty}, {})

    def generator_loss(self, stage: int, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        fake = self._fakes(params, state.memory, key, len(batch["image"]), stage)
        of_game = losses.generator_loss(GAME, self.discriminate(params, fake, stage))
        real = self.picture(batch["image"][:1], stage)
        error = jnp.square(self.reconstruct(params, state.memory, stage) - real).mean()
        metrics = {"reconstruction_rmse": jnp.sqrt(error), "noise": state.memory["amplitudes"][stage]}
        return of_game + self.reconstruction * error, (metrics, {})

    def _fakes(self, params: Params, memory: Memory, key: Array, count: int, stage: int) -> Array:
        keys = shard_rows(jax.random.split(key, count))
        return self.generate(params, memory, noise_of(keys), self.sizes()[: stage + 1])

    def discriminate(self, params: Params, images: Array, scale: int) -> Tree:
        """Returns the logits of images of a scale."""
        return apply_params(self.network("discriminator", scale), params["discriminator"], images)["logits"]

    # images

    def refine(self, weights: Tree, scale: int, noise: Array | float, image: Array) -> Array:
        """Returns a scale's image, from the enlarged one of the scale below and noise of its amplitude."""
        return apply_params(self.network("generator", scale), weights, image + noise, image)

    def reconstruct(self, params: Params, memory: Memory, stage: int) -> Float[Array, "1 H W C"]:
        """Returns the image of the current scale that is to be the picture: drawn with the fixed noise of the coarsest
        scale, and without noise above."""
        noise = memory["fixed_noise"] if stage == 0 else 0.0
        return self.refine(params["generator"], stage, noise, memory["below"])

    def generate(
        self,
        params: Params,
        memory: Memory,
        noise: Noise,
        sizes: Sequence[Size],
        first: int = 0,
        image: Float[Array, "B h w C"] | None = None,
    ) -> Float[Array, "B H W C"]:
        """Takes images through the scales, from `first` to the last of `sizes`.

        Args:
          params: the groups `generator` and `pyramid` of a model whose stage is the last of `sizes`.
          memory: that of the model.
          noise: gives the standard normal noise of a scale.
          sizes: height and width at each scale, the coarsest first, those below `first` included.
          first: the first scale that draws.
          image: the image that it is given, of any size; None for black at mid grey, with which scale 0 begins.
        """
        weights = [*(params["pyramid"][f"scale_{n}"] for n in range(len(sizes) - 1)), params["generator"]]
        for n in range(first, len(sizes)):
            z = noise(n, (*sizes[n], self.image_shape[2] if n else 1))
            start = jnp.zeros((len(z), *sizes[n], self.image_shape[2])) if image is None else resized(image, sizes[n])
            image = self.refine(weights[n], n, memory["amplitudes"][n] * z, start)
        assert image is not None  # there is a scale
        return image

    def kept(self, model: Model, scales: int) -> Float[Array, "1 h w C"] | None:
        """Returns the reconstruction of the picture after the coarsest `scales`; None for 0 of them."""
        if not scales:
            return None
        upto = self.sizes()[:scales]
        params = model.params
        if scales <= model.stage:
            params = {"pyramid": params["pyramid"], "generator": params["pyramid"][f"scale_{scales - 1}"]}
        return self.generate(params, model.memory, fixed(model.memory), upto)

    # sampling

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        """Returns images of the finest scale that has begun; until the last one has, they are smaller."""
        upto = self.sizes(self.sampler.size)[: model.stage + 1]
        return self.starting_at(model, noise_of(keys), min(self.sampler.start, model.stage), len(keys), upto)

    def starting_at(
        self, model: Model, noise: Noise, start: int, count: int, upto: Sequence[Size]
    ) -> Float[Array, "B H W C"]:
        """Returns `count` images that have the picture's own scales below `start`, in [-1, 1]."""
        below = self.kept(model, start)
        image = None if below is None else jnp.broadcast_to(below, (count, *below.shape[1:]))
        return jnp.clip(self.generate(model.params, model.memory, noise, upto, start, image), -1, 1)

    panel_inputs = ("image",)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns two tables.

        - `starts`: in each line the reconstruction, and images whose scales below 0, 1, 2, ... are the picture's.
        - `reconstructions`: the picture at each scale, and below it what is drawn from the fixed noise.
        """
        upto, count = self.sizes()[: model.stage + 1], min(STARTS, len(keys))
        starts = range(min(len(upto), STARTS))
        own = jnp.clip(self.reconstruct(model.params, model.memory, model.stage), -1, 1)
        drawn = [self.starting_at(model, noise_of(keys[:count]), start, count, upto) for start in starts]
        lines = jnp.stack([jnp.broadcast_to(own, drawn[0].shape), *drawn], axis=1)
        found = {"starts": lines.reshape(-1, *lines.shape[2:])}
        if "image" in batch and model.stage == self.scales - 1:
            rows = [self.reconstructions(model), [self.picture(batch["image"][:1], n) for n in range(self.scales)]]
            pixels = [jax.image.resize(x, (1, *self.image_shape), "nearest") for row in reversed(rows) for x in row]
            found["reconstructions"] = jnp.clip(jnp.concatenate(pixels), -1, 1)
        return found

    def reconstructions(self, model: Model) -> list[Float[Array, "1 h w C"]]:
        """Returns the reconstruction of the picture at each scale that has begun."""
        own = self.reconstruct(model.params, model.memory, model.stage)
        below = [self.kept(model, n) for n in range(1, model.stage + 1)]
        return [*(image for image in below if image is not None), own]

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Returns the root mean squared errors, in [-1, 1], of the reconstruction at each scale, and the largest."""
        found = {
            f"reconstruction_rmse_{n}": jnp.sqrt(jnp.square(own - self.picture(batch["image"], n)).mean((1, 2, 3)))
            for n, own in enumerate(self.reconstructions(model))
        }
        return {"reconstruction_rmse": jnp.stack(list(found.values())).max(axis=0), **found}


def noise_of(keys: Key[Array, " B"]) -> Noise:
    """Returns the noise of each scale, drawn from one key for each image."""
    return lambda n, shape: jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, n), shape))(keys)


def fixed(memory: Memory) -> Noise:
    """Returns the noise from which the picture itself is drawn: fixed at the coarsest scale, and none above."""
    return lambda n, shape: memory["fixed_noise"] if n == 0 else jnp.zeros((1, *shape))


def _memory(amplitudes: Array, fixed_noise: Array, below: Array) -> Memory:
    return {"amplitudes": amplitudes, "fixed_noise": fixed_noise, "below": below}
