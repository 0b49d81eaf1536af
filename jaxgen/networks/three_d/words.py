"""How networks of this room read captions: by an encoder of their own, or from a frozen one of their method."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError


def read(vocabulary: int, frozen_text: bool) -> tuple[str, ...]:
    """Returns what a network `reads`: the camera, the tokens where it has a vocabulary, and frozen features of them."""
    return ("camera", *(("tokens",) if vocabulary else ()), *(("words",) if vocabulary and frozen_text else ()))


def read_words(
    encoder: Callable[..., Array] | None, tokens: Int[Array, "B L"] | None, words: Float[Array, "B L K"] | None
) -> tuple[Float[Array, "B L K"], Float[Array, "B L"]]:
    """Returns features of the words, and a mask of the tokens that are no padding.

    Args:
      encoder: the network's own; None where `words` are given.

    Raises:
      UserError: there are no tokens, or nothing gives their features.
    """
    if tokens is None:
        raise UserError("A network with a vocabulary needs the tokens of each example.")
    mask = (tokens > 0).astype(jnp.float32)
    if encoder is not None:
        return encoder(tokens, mask), mask
    if words is None:
        raise UserError("A network with frozen_text needs the words' features: name an encoder in config.method.text.")
    return words, mask
