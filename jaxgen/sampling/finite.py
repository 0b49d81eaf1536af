"""Deals with images that are not finite: a program marks them, and the host counts them and says what to do.

Nothing raises inside a compiled program. What a sampler cannot finish, or what overflows in a network, is NaN in the
result. As uint8 it would look like black, so each image comes with a flag.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Shaped

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model


class NotFinite(UserError):
    """This error is raised where images that a model drew are not finite.

    Training goes on without the picture; every other command stops.
    """


def finite_images(images: Shaped[Array, "B *size"]) -> Bool[Array, "B"]:
    """Returns which images, or other samples, are finite in every value; for use in a program."""
    return jnp.isfinite(images).all(axis=tuple(range(1, images.ndim)))


def with_nan(images: np.ndarray, finite: Bool[np.ndarray, "N"]) -> np.ndarray:
    """Returns uint8 images or videos `[N, ..., H, W, C]` as a grid draws them: where any is not finite, as floats with
    NaN in it.
    """
    if finite.all():
        return images
    sound = finite.reshape(-1, *[1] * (images.ndim - 1))
    return np.where(sound, images.astype(np.float32) / 127.5 - 1, np.nan)


def told(finite: Bool[np.ndarray, "N"], method: Method, model: Model, plural: str = "images") -> str:
    """Returns one sentence that says how many of the samples are not finite, why, and what to do.

    Args:
      plural: the word for several samples.
    """
    count = int((~finite).sum())
    alone = "The image is" if plural == "images" else "What was sampled is"
    who = f"{count} of {len(finite)} {plural} are" if len(finite) > 1 else alone
    return f"{who} not finite (NaN or infinity): {_cause(method, model)}."


def panel_told(panels: Mapping[str, np.ndarray]) -> list[str]:
    """Returns a sentence for each panel `[..., H, W, C]` in which pictures are not finite."""
    sentences = []
    for name, pictures in panels.items():
        broken = ~np.isfinite(pictures).all(axis=(-3, -2, -1))
        if broken.any():
            sentences.append(
                f"{int(broken.sum())} of {broken.size} pictures of the panel {name!r} are not finite (NaN, infinity); "
                "these values are magenta."
            )
    return sentences


def _cause(method: Method, model: Model) -> str:
    groups = [name for name, tree in model.params.items() if not _sound(tree)]
    if groups:
        return f"the weights of {', '.join(groups)} hold values that are not finite; use another checkpoint or file"
    unfinished = getattr(getattr(method, "sampler", None), "unfinished", "")
    return unfinished or (
        "the weights are finite, so values grew too large on the way; use more steps, another sampler or less "
        "guidance, or compute in float32"
    )


def _sound(tree: object) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
