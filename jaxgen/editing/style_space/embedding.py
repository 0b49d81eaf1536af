"""Finds the latent code whose image is a given picture, by gradient descent through the generator.

Image2StyleGAN (Abdal et al. 2019) descends a perceptual distance and the squared error of pixels over a style for each
layer, W+. StyleGAN2's projector (Karras et al. 2020a, appendix D) has one style for all layers, W, a learning rate that
rises and falls, noise on w that fades, and noise inputs that are learned and held near white noise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.editing.style_space.model import SAMPLES, Spread, StyleModel
from jaxgen.errors import UserError, nearest
from jaxgen.metrics.networks.perceptual_loss import PerceptualLoss
from jaxgen.networks.layers.convolution import gradients_in_loops
from jaxgen.sizes import PER_STEP, check_fits

Maps = tuple[Float[Array, "B h w 1"], ...]

SPACES = ("z", "w", "w_plus")
NOISE = ("learned", "fixed", "none")
COARSEST = 8  # the side at which the pyramid of a noise map ends


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Says what is searched, and how; the defaults are those of StyleGAN2's projector.

    Attributes:
      space: "z", one normal vector, kept on the sphere of radius sqrt(Z); "w", one style; "w_plus", a style for each
        layer.
      steps: of Adam, all in one compiled loop.
      learning_rate: the highest one.
      ramp_up, ramp_down: shares of the steps in which it rises from 0, linearly, and falls to 0, as a cosine.
      exploration: the deviation of the noise on styles at the first step, in deviations of w.
      exploration_share: the share of the steps within which this noise fades, quadratically.
      perceptual, pixels: the weights of the distance in features, and of the mean squared error of pixels.
      noise: "learned": the noise inputs are searched too; "fixed": they stay as the keys draw them; "none".
      noise_weight: of `whiteness`.
      samples: how many z tell the mean and the deviation of w, see `StyleModel.spread`.

    Raises:
      UserError: a number is out of its range, or there is no such space.
    """

    space: str = "w_plus"
    steps: int = 1000
    learning_rate: float = 0.1
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    exploration: float = 0.05
    exploration_share: float = 0.75
    perceptual: float = 1.0
    pixels: float = 1.0
    noise: str = "learned"
    noise_weight: float = 1e5
    samples: int = SAMPLES

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise UserError(f"There is no latent space {self.space!r}; {nearest(self.space, SPACES)}")
        if self.noise not in NOISE:
            raise UserError(f"noise={self.noise!r}: noise inputs are {', '.join(NOISE[:-1])} or {NOISE[-1]}.")
        if self.steps < 1 or self.samples < 2 or not self.learning_rate > 0:
            raise UserError("An embedding has at least 1 step and 2 samples of w, and a learning rate above 0.")
        check_fits(self.steps * PER_STEP, f"{self.steps} steps", "lower them")
        for name in ("ramp_up", "ramp_down", "exploration_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name):g}: give a share of the steps, from 0 to 1.")
        weights = ("exploration", "perceptual", "pixels", "noise_weight")
        if not all(getattr(self, name) >= 0 for name in weights):
            raise UserError(f"The embedding's {', '.join(weights)} are at least 0.")
        if not self.perceptual + self.pixels > 0:
            raise UserError("An embedding compares features, pixels or both: perceptual and pixels are both 0.")


RECIPES = {
    "projector": Embedding(space="w"),
    "image2stylegan": Embedding(
        space="w_plus", steps=5000, learning_rate=0.01, ramp_up=0.0, ramp_down=0.0, exploration=0.0, noise="fixed"
    ),
}


@flax.struct.dataclass
class Embedded:
    """Holds the codes of pictures.

    Attributes:
      styles: what the synthesis is given.
      z: where it was searched; else None.
      noise: the maps of the noise inputs, or None.
      images: what the code is painted as, in [-1, 1].
      history: `{"perceptual", "pixels", "whiteness": [steps, B]}`, each before its weight, with the noise on styles.
    """

    styles: Float[Array, "B L D"]
    z: Float[Array, "B Z"] | None
    noise: Maps | None
    images: Float[Array, "B H W C"]
    history: dict[str, Float[Array, "steps B"]]


def embed(
    model: StyleModel,
    images: Float[Array, "B H W C"],
    keys: Key[Array, " B"],
    loss: PerceptualLoss,
    settings: Embedding = RECIPES["projector"],
) -> Embedded:
    """Returns the codes of images in [-1, 1]; compile it with `jax.jit(embed, static_argnames="settings")`.

    All images begin at the mean of w, in Z at the drawn z whose style is nearest to it. Only the code, and where
    `settings.noise` says so the noise maps, are moved. An image's code depends on that image and its key alone.

    Raises:
      UserError: the images are not of the generator's shape.
    """
    if images.ndim != 4 or images.shape[1:] != tuple(model.network.image_shape):
        raise UserError(
            f"This generator paints images of {model.network.image_shape}, not of {tuple(images.shape[1:])}: resize "
            "them."
        )
    spread, seen = model.spread(settings.samples), loss.features(images)
    maps = None if settings.noise == "none" else model.noise_maps(keys)
    learned: dict[str, Any] = {"code": _start(model, spread, settings.space, len(images))}
    if settings.noise == "learned":
        assert maps is not None
        learned["noise"] = tuple(_normalised(x) for x in maps)
    adam = optax.scale_by_adam()
    compared = gradients_in_loops()(lambda seen, painted: loss.compare(seen, loss.features(painted)))

    def losses(learned: dict[str, Any], jitter: Array) -> tuple[Array, dict[str, Array]]:
        noise = learned.get("noise", maps)
        painted = model.paint(_styles(model, learned["code"], settings.space) + jitter, noise)
        parts = {
            "perceptual": compared(seen, painted),
            "pixels": jnp.square(painted - images).mean((1, 2, 3)),
            "whiteness": whiteness(learned["noise"]) if "noise" in learned else jnp.zeros(len(images)),
        }
        weights = {"perceptual": settings.perceptual, "pixels": settings.pixels, "whiteness": settings.noise_weight}
        return sum((weights[name] * part for name, part in parts.items()), start=jnp.zeros(len(images))).sum(), parts

    def step(carry: tuple, number: Array) -> tuple[tuple, dict[str, Array]]:
        learned, state = carry
        jitter = _jitter(settings, spread, keys, number, model.network.layers)
        slope, parts = jax.grad(losses, has_aux=True)(learned, jitter)
        moves, state = adam.update(slope, state)
        rate = _rate(settings, number)
        learned = jax.tree.map(lambda x, move: x - rate * move, learned, moves)
        if settings.space == "z":
            learned["code"] = on_sphere(learned["code"])
        if "noise" in learned:
            learned["noise"] = tuple(_normalised(x) for x in learned["noise"])
        return (learned, state), parts

    (learned, _), history = jax.lax.scan(step, (learned, adam.init(learned)), jnp.arange(settings.steps))
    styles, noise = _styles(model, learned["code"], settings.space), learned.get("noise", maps)
    painted = jnp.clip(model.paint(styles, noise), -1, 1)
    return Embedded(styles, learned["code"] if settings.space == "z" else None, noise, painted, history)


def on_sphere(z: Float[Array, "B Z"]) -> Float[Array, "B Z"]:
    """Returns z at the length sqrt(Z), which is that of normal vectors of many dimensions."""
    return z * jax.lax.rsqrt(jnp.square(z).mean(-1, keepdims=True) + 1e-12)


def whiteness(maps: Maps) -> Float[Array, " B"]:
    """Returns how far noise maps [B, h, w, 1] are from white noise (Karras et al. 2020a, appendix D): 0 is white.

    It is the sum of the squared mean products of neighbours, along both axes, at each map's size and at each half of
    it down to 8 pixels. Halving averages 2x2 pixels and doubles, which keeps the variance of white noise.
    """
    total = jnp.zeros(len(maps[0]))
    for x in maps:
        while True:
            for axis in (1, 2):
                total += jnp.square((x * jnp.roll(x, 1, axis)).mean((1, 2, 3)))
            count, height, width, _ = x.shape
            if min(height, width) <= COARSEST or height % 2 or width % 2:
                break
            x = 2 * x.reshape(count, height // 2, 2, width // 2, 2, 1).mean((2, 4))
    return total


def _start(model: StyleModel, spread: Spread, space: str, count: int) -> Array:
    if space == "z":
        return jnp.tile(on_sphere(spread.z[None]), (count, 1))
    return jnp.tile(spread.mean, (count, model.network.layers if space == "w_plus" else 1, 1))


def _styles(model: StyleModel, code: Array, space: str) -> Float[Array, "B L D"]:
    """Returns the styles of all layers of a code: z [B, Z], w [B, 1, D] or w_plus [B, L, D]."""
    if space == "z":
        return model.broadcast(model.mapping(code))
    return model.broadcast(code[:, 0]) if space == "w" else code


def _jitter(settings: Embedding, spread: Spread, keys: Array, number: Array, layers: int) -> Array:
    """Returns the noise on styles at a step, `[B, L or 1, D]`."""
    if not (settings.exploration and settings.exploration_share):
        return jnp.zeros(())
    left = jnp.maximum(0.0, 1 - number / (settings.exploration_share * settings.steps))
    shape = (layers if settings.space == "w_plus" else 1, *spread.mean.shape)
    own = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 1), number), shape))(keys)
    return settings.exploration * spread.deviation * jnp.square(left) * own


def _rate(settings: Embedding, number: Array) -> Array:
    up = jnp.minimum(1.0, (number + 1) / max(1.0, settings.ramp_up * settings.steps))
    left = jnp.minimum(1.0, (settings.steps - number) / max(1.0, settings.ramp_down * settings.steps))
    return settings.learning_rate * up * (0.5 - 0.5 * jnp.cos(jnp.pi * left))


def _normalised(x: Float[Array, "B h w 1"]) -> Float[Array, "B h w 1"]:
    """Returns maps of mean 0 and variance 1."""
    centred = x - x.mean((1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean((1, 2), keepdims=True) + 1e-12)
