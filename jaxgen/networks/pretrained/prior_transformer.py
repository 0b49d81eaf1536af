"""The network of unCLIP's diffusion prior (Ramesh et al. 2022, section 2.2), which predicts an image's CLIP embedding.

It is diffusers' `PriorTransformer`, the network of the published priors. One causal transformer runs over a sequence of
tokens: the tokens of the text, the embedding of the text, the time, the noisy embedding of the image, and a learned
query, whose output becomes the prediction.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import kernel_init, sinusoidal, zeros_init
from jaxgen.networks.pretrained.clip import Block, layer_norm

BEHIND = 4  # tokens behind those of the text: its embedding, the time, the noisy embedding and the query


class PriorTransformer(nn.Module):
    """Predicts an embedding [B, outputs] from a noisy one, its time and a text.

    Its parameters are `x_in`, `time_in`, `time_out`, `context_in`, `vector_norm` (where asked for), `vector_in`,
    `query`, `position`, `block_<i>`, `norm_out` and `out`.

    Attributes:
      outputs: D, the width of embeddings of images.
      context_dim: the width of the text's tokens.
      vector_dim: the width of the text's embedding.
      length: the most tokens of a text.
      width, depth, heads: sizes of the transformer; `heads` divides `width`, which is even.
      vector_norm: whether the text's embedding passes a LayerNorm first, which a unit vector needs.
      dtype: of the arithmetic; parameters and the output are float32.
    """

    outputs: int
    context_dim: int
    vector_dim: int
    length: int
    width: int = 2048
    depth: int = 20
    heads: int = 32
    vector_norm: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B D"],
        time: Float[Array, " B"],
        context: Float[Array, "B L K"],
        vector: Float[Array, "B V"],
        context_mask: Shaped[Array, "B L"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B D"]:
        """Runs the network.

        Args:
          x: noisy embeddings, of a standard deviation close to 1.
          time: on the scale 0..999.
          context: tokens of the text.
          vector: embeddings of the text.
          context_mask: nonzero on the text's valid tokens.

        Raises:
          UserError: for inputs that do not fit the options, and options that make no network.
        """
        self.check(x, time, context, vector, context_mask)
        batch, length = context.shape[:2]

        def dense(name: str, init: nn.initializers.Initializer = kernel_init, features: int = 0) -> nn.Dense:
            return nn.Dense(features or self.width, kernel_init=init, dtype=self.dtype, name=name)

        told = sinusoidal(time, self.width, cos_first=True)
        told = dense("time_out")(nn.silu(dense("time_in")(told)))
        if self.vector_norm:
            vector = layer_norm(1e-5, self.dtype, "vector_norm")(vector)
        query = self.param("query", nn.initializers.normal(0.02), (self.width,), jnp.float32)
        query = jnp.broadcast_to(query.astype(told.dtype), told.shape)
        last = jnp.stack([dense("vector_in")(vector), told, dense("x_in")(x), query], axis=1)
        h = jnp.concatenate([dense("context_in")(context), last], axis=1)
        shape = (self.length + BEHIND, self.width)
        position = self.param("position", nn.initializers.normal(0.02), shape, jnp.float32)
        h = h + jnp.concatenate([position[:length], position[self.length :]]).astype(h.dtype)

        sees: Array | np.ndarray = np.tril(np.ones((length + BEHIND,) * 2, bool))[None, None]
        if context_mask is not None:
            behind = jnp.ones((batch, BEHIND), bool)
            sees = sees & jnp.concatenate([context_mask != 0, behind], axis=1)[:, None, None, :]
        options = (self.heads, 4 * self.width, self.depth, "gelu", 1e-5, self.dtype)
        for i in range(self.depth):
            h = Block(*options, name=f"block_{i}")(h, sees)
        h = layer_norm(1e-5, self.dtype, "norm_out")(h[:, -1])
        return dense("out", zeros_init, self.outputs)(h).astype(jnp.float32)

    def check(self, x: Array, time: Array, context: Array, vector: Array, context_mask: Array | None) -> None:
        """Raises a UserError for options that make no network and inputs that do not fit them."""
        for field in ("outputs", "context_dim", "vector_dim", "length", "width", "depth", "heads"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} of a prior is {getattr(self, field)}; it must be at least 1.")
        if self.width % self.heads or self.width % 2:
            raise UserError(f"A prior's width of {self.width} must be even, and a multiple of its {self.heads} heads.")
        batch = len(x)
        for name, value, wanted, option in (
            ("noisy embeddings", x, (batch, self.outputs), "outputs"),
            ("times", time, (batch,), ""),
            ("embeddings of texts", vector, (batch, self.vector_dim), "vector_dim"),
            ("tokens of texts", context, (batch, *context.shape[1:2], self.context_dim), "context_dim"),
        ):
            if value.shape != wanted:
                advice = f": set {option} to the width of what it is given" if option else ""
                raise UserError(f"A prior takes {name} of shape {wanted}, not {value.shape}{advice}.")
        if context.shape[1] > self.length:
            raise UserError(f"This prior reads {self.length} tokens of a text at most, not {context.shape[1]}.")
        if context_mask is not None and context_mask.shape != context.shape[:2]:
            raise UserError(f"A prior takes a mask of shape {context.shape[:2]} of a text, not {context_mask.shape}.")
