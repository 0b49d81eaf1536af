"""The uses of a generator of one picture (Rott Shaham et al. 2019, section 4), as pure functions.

Each takes the method, its trained model and one random key per image, runs under jit with the method, the sizes and the
scales as static arguments, and returns images in [-1, 1].
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial.pyramid import Size, resized
from jaxgen.arrays import Array
from jaxgen.methods.base import Model
from jaxgen.methods.gans.singan import SinGAN, fixed, noise_of

ALPHA, BETA = 0.1, 0.9  # of `animate`; the authors' values
AT_ONCE = 8  # frames of an animation that are drawn together


def inject(
    method: SinGAN, model: Model, keys: Key[Array, " B"], image: Float[Array, "B h w C"], size: Size, scale: int
) -> Float[Array, "B H W C"]:
    """Returns images that have the layout of another one and the patches of the picture: paint to image, and style.

    The image is made as small as the scale below, enlarged, and given to `scale` in place of what that scale would have
    begun with (section 4, "Paint-to-image"). What is finer than the scale below is the generator's.

    Args:
      method: the method.
      model: its model, with all scales.
      keys: one for each image.
      image: what is painted, of any size.
      size: height and width of the result.
      scale: the scale to begin with, from 1 on. The lower, the more is changed.
    """
    upto = method.sizes(size)
    small = resized(image, upto[scale - 1])
    return jnp.clip(method.generate(model.params, model.memory, noise_of(keys), upto, scale, small), -1, 1)


def blend(
    method: SinGAN,
    model: Model,
    keys: Key[Array, " B"],
    image: Float[Array, "B h w C"],
    mask: Float[Array, "B h w 1"],
    size: Size,
    scale: int,
    radius: int,
) -> Float[Array, "B H W C"]:
    """Returns an image that was changed by hand, made consistent where a mask is 1: harmonisation, and editing.

    The image goes through `inject`, and what is drawn is pasted by the mask, which is first widened by `radius` pixels
    and then blurred, so that no seam is seen. Far from the mask the image stays as it was.
    """
    image, mask = resized(image, size), jax.image.resize(mask, (len(mask), *size, 1), "nearest")
    share = soft(mask, radius)
    return share * inject(method, model, keys, image, size, scale) + (1 - share) * jnp.clip(image, -1, 1)


def soft(mask: Float[Array, "B H W 1"], radius: int) -> Float[Array, "B H W 1"]:
    """Returns a mask that is 1 up to `radius` pixels around where it was 1, and falls to 0 over twice as many more."""
    if not radius:
        return mask
    side = 2 * radius + 1
    wide = nn.max_pool(mask, (4 * radius + 1,) * 2, padding="SAME")  # by twice the radius, half of which the blur takes
    around = jnp.pad(wide, ((0, 0), (radius,) * 2, (radius,) * 2, (0, 0)), mode="edge")
    return nn.avg_pool(around, (side, side), padding="VALID")


def steps_of(method: SinGAN, factor: float) -> int:
    """Returns how often the finest generator is applied to enlarge by a factor: in ratios near those of the scales."""
    return max(1, round(math.log(factor) / -math.log(method.ratio))) if method.scales > 1 else 1


def super_resolve(
    method: SinGAN, model: Model, keys: Key[Array, " B"], image: Float[Array, "B h w C"], factor: float
) -> Float[Array, "B H W C"]:
    """Returns images enlarged by a factor: the finest generator is applied again and again, each time to an image that
    is larger by the ratio of the scales (section 4, "Super-resolution").

    It adds details as fine as those of the picture, since patches of a natural picture recur at several scales. The
    image is the picture itself, or one like it.
    """
    count, last = steps_of(method, factor), method.scales - 1
    height, width, channels = image.shape[1:]
    for i in range(1, count + 1):
        share = factor ** (i / count)
        size = (round(height * share), round(width * share))
        noise = model.memory["amplitudes"][last] * noise_of(keys)(last + i, (*size, channels))
        image = resized(image, size)
        image = method.refine(model.params["generator"], last, noise, image)
    return jnp.clip(image, -1, 1)


def animate(
    method: SinGAN, model: Model, key: Key[Array, ""], frames: int, start: int = 1, alpha: float = ALPHA,
    beta: float = BETA,
) -> Float[Array, "F H W C"]:  # fmt: skip
    """Returns frames of a walk through the noise of each scale, which begins at the picture (section 4, "Single Image
    Animation").

    Args:
      method: the method.
      model: its model, with all scales.
      key: the random key.
      frames: how many.
      start: scales, from the coarsest on, whose noise stays that of the picture, so that its layout does.
      alpha: how much the walk is drawn back to the picture, in [0, 1]: its looks stay closer.
      beta: how steady its speed is, in [0, 1]: changes are slower and smoother.
    """
    upto, still = method.sizes(), fixed(model.memory)
    walks = []
    for n, size in enumerate(upto):
        shape = (*size, method.image_shape[2] if n else 1)
        own = jnp.broadcast_to(still(n, shape), (1, *shape))
        moving = walk(jax.random.fold_in(key, n), own, frames, alpha, beta)
        walks.append(jnp.broadcast_to(own, moving.shape) if n < start else moving)

    def frame(noise: list[Array]) -> Array:
        image = method.generate(model.params, model.memory, lambda n, shape: noise[n][None], upto)
        return jnp.clip(image[0], -1, 1)

    return jax.lax.map(frame, walks, batch_size=min(AT_ONCE, frames))


def walk(
    key: Key[Array, ""], own: Float[Array, "1 h w c"], frames: int, alpha: float, beta: float
) -> Float[Array, "F h w c"]:
    """Returns noise that moves from that of the picture, `own`, and is drawn back to it.

    z_{t+1} = alpha z* + (1 - alpha) (z_t + d_{t+1}), d_{t+1} = beta (z_t - z_{t-1}) + (1 - beta) u_t, u_t ~ N(0, I), as
    in the authors' supplement. The first step is a twentieth of the way to fresh noise.
    """
    first, *later = jax.random.split(key, frames + 1)
    start = 0.95 * own + 0.05 * jax.random.normal(first, own.shape)

    def move(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
        now, before = carry
        change = beta * (now - before) + (1 - beta) * jax.random.normal(key, own.shape)
        new = alpha * own + (1 - alpha) * (now + change)
        return (new, now), now[0]

    return jax.lax.scan(move, (start, own), jnp.stack(later))[1]
