"""Holds the diffusion transformer DiT of Peebles & Xie (2023), with adaLN-Zero blocks and a place for text.

The image is cut into patches, a transformer runs over them, and each token becomes a patch again. Parameter
names are `patch_in`, `time_in`, `time_out`, `class`, `block_<i>`, `modulation_out` and `patch_out`; with `scan_blocks`
`blocks` in place of `block_<i>`, each array with an axis of length `depth` in front.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from jaxgen.arrays import Array
from jaxgen.data_shards import keep_rows_sharded
from jaxgen.errors import UserError
from jaxgen.networks.layers import basic as layers
from jaxgen.networks.layers.contract import check_images, check_inputs, check_vector
from jaxgen.networks.layers.patches import patchify, unpatchify
from jaxgen.networks.layers.remat import remat
from jaxgen.networks.transformer import MLP, TokenAttention, grid_positions, layer_norm


class DiTBlock(nn.Module):
    """Time and class scale, shift and gate attention and MLP (Peebles & Xie 2023, figure 3: adaLN-Zero).

    tokens [B, N, D], embedding [B, E] (already through its SiLU) -> [B, N, D]. With `context` [B, L, D'] the
    tokens look at it between the two, behind a normalisation that nothing modulates and without a gate, as
    in PixArt-alpha (Chen et al. 2023). A fresh block is the identity: gates and the context's `out` start at zero.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    mlp_features: int
    norm_eps: float = 1e-6
    mlp_norm_eps: float = 1e-6
    dropout: float = 0.0
    dtype: str | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        embedding: Float[Array, "B E"],
        context: Float[Array, "B L K"] | None = None,
        mask: Shaped[Array, "B L"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        width = tokens.shape[-1]
        modulation = nn.Dense(6 * width, kernel_init=layers.zeros_init, dtype=self.dtype, name="modulation")
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = jnp.split(modulation(embedding), 6, -1)
        drop = nn.Dropout(self.dropout, deterministic=not train)

        h = layer_norm(tokens, self.norm_eps, scale, shift)
        h = drop(TokenAttention(self.heads, dtype=self.dtype, name="attention")(h))
        tokens = tokens + gate[:, None] * h
        if context is not None:
            attention = TokenAttention(self.heads, layers.zeros_init, self.dtype, name="context_attention")
            tokens = tokens + drop(attention(layer_norm(tokens, self.mlp_norm_eps), context, mask))
        h = layer_norm(tokens, self.mlp_norm_eps, mlp_scale, mlp_shift)
        h = MLP(self.mlp_features, self.dropout, self.dtype, name="mlp")(h, train)
        return tokens + mlp_gate[:, None] * h


class DiT(nn.Module):
    """Predicts an image of `out_channels` from a noisy image, its time and optional conditions, as `UNet` does.

    Blocks start as the identity and the last layer starts at zero, so the first output is zero.
    """

    out_channels: int = 3  # of the prediction; twice the image's where the variance is learned too
    # Pixels of a token's side; it divides height and width. Positions are counted in patches from the upper left
    # corner and never stretched, so that any such size is taken.
    patch_size: int = 2
    width: int = 384  # of the tokens, divisible by 4. DiT-S, B, L and XL: 384, 768, 1024 and 1152
    depth: int = 12  # number of blocks: 12, 12, 24 and 28
    heads: int = 6  # of every attention, dividing width: 6, 12, 16 and 16
    mlp_ratio: float = 4.0  # the MLP's hidden width over `width`
    dropout: float = 0.0  # behind the attentions and inside the MLPs, with train=True (rng collection "dropout")
    # 0, or the number of labels 0..num_classes-1. Label num_classes is the null class of classifier-free guidance. The
    # label's embedding is added to that of time.
    num_classes: int = 0
    vector_dim: int = 0  # 0, or the width of a vector, such as a pooled text, whose MLP is added to that of time
    context_dim: int = 0  # 0, or the width of context tokens, which every block then looks at
    time_features: int = 256  # sinusoidal features of time * time_scale
    time_scale: float = 1.0
    time_cos_first: bool = True  # see `layers.sinusoidal`
    time_freq_shift: float = 0.0  # see `layers.sinusoidal`
    norm_eps: float = 1e-6  # of every normalisation
    mlp_norm_eps: float | None = None  # of the normalisations before contexts and MLPs, where it is another
    dtype: str | None = None  # of the arithmetic, say "bfloat16"; parameters, time embedding and output stay float32
    remat: str = ""  # what a block keeps for the backward pass: "block" its input, "dots" its dense layers' too; "" all
    # Whether the blocks are computed by one loop, so that compiling takes as long as for one block. The function is the
    # same, the parameter names differ.
    scan_blocks: bool = False

    @property
    def side_multiple(self) -> int:
        """Returns the number that the sides of its images are multiples of."""
        return self.patch_size

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        label: Int[Array, " B"] | None = None,
        context: Float[Array, "B L D"] | None = None,
        context_mask: Shaped[Array, "B L"] | None = None,
        condition: Float[Array, "B H W D"] | None = None,
        vector: Float[Array, "B D"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W out"]:
        """Runs the network; arguments and errors are those of `jaxgen.networks.layers.contract`.

        H and W are multiples of patch_size.
        """
        self.check(x, time, label, context, context_mask, condition, vector)
        height, width = x.shape[1:3]
        size = self.patch_size

        def dense(features: int, name: str, init: nn.initializers.Initializer = layers.kernel_init) -> nn.Dense:
            return nn.Dense(features, kernel_init=init, dtype=self.dtype, name=name)

        embedding = keep_rows_sharded(nn.silu(self.embed(time, label, vector)))
        h = x if condition is None else jnp.concatenate([x, condition], -1)
        h = dense(self.width, "patch_in")(patchify(h, size))
        h = h + grid_positions(height // size, width // size, self.width).astype(h.dtype)

        mlp_norm_eps = self.norm_eps if self.mlp_norm_eps is None else self.mlp_norm_eps
        mlp_features = int(self.width * self.mlp_ratio)
        options = (self.heads, mlp_features, self.norm_eps, mlp_norm_eps, self.dropout, self.dtype)
        block = remat(DiTBlock, self.remat, static=(5,), looped=self.scan_blocks)

        def step(layer: nn.Module, h: Array) -> tuple[Array, None]:
            return keep_rows_sharded(layer(keep_rows_sharded(h), embedding, context, context_mask, train)), None

        if self.scan_blocks:
            loop = nn.scan(
                step, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=self.depth
            )
            h, _ = loop(block(*options, name="blocks"), h)
        else:
            for i in range(self.depth):
                h, _ = step(block(*options, name=f"block_{i}"), h)

        shift, scale = jnp.split(dense(2 * self.width, "modulation_out", layers.zeros_init)(embedding), 2, -1)
        h = layer_norm(h, self.norm_eps, scale, shift)
        h = dense(size**2 * self.out_channels, "patch_out", layers.zeros_init)(h)
        return unpatchify(h, size, height, width).astype(jnp.float32)

    def embed(self, time: Array, label: Array | None, vector: Array | None = None) -> Array:
        """Returns the embedding of time, class and vector, one float32 vector [B, width]."""
        time = time * self.time_scale
        shift = self.time_freq_shift
        h = layers.sinusoidal(time, self.time_features, cos_first=self.time_cos_first, freq_shift=shift)
        h = nn.silu(nn.Dense(self.width, kernel_init=layers.kernel_init, name="time_in")(h))
        h = nn.Dense(self.width, kernel_init=layers.kernel_init, name="time_out")(h)
        if self.num_classes:
            # Peebles & Xie start it with a standard deviation of 0.02, which this is close to at their widths.
            init = nn.initializers.normal(self.width**-0.5)
            h = h + nn.Embed(self.num_classes + 1, self.width, embedding_init=init, name="class")(label)
        if vector is not None:
            told = nn.silu(nn.Dense(self.width, kernel_init=layers.kernel_init, name="vector_in")(vector))
            h = h + nn.Dense(self.width, kernel_init=layers.kernel_init, name="vector_out")(told)
        return h

    def check(
        self,
        x: Array,
        time: Array,
        label: Array | None,
        context: Array | None,
        context_mask: Array | None,
        condition: Array | None,
        vector: Array | None = None,
    ) -> None:
        """Raises a UserError for options that make no network and inputs that do not fit them."""
        for field in ("patch_size", "depth", "heads"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; it must be at least 1.")
        check_images("DiT", x)
        height, width = x.shape[1:3]
        if height % self.patch_size or width % self.patch_size:
            raise UserError(
                f"images of {height}x{width} cannot be cut into patches of {self.patch_size}: pad them to "
                f"multiples of {self.patch_size} or choose another patch_size."
            )
        options = (self.num_classes, self.context_dim)
        check_inputs("DiT", *options, x, time, label, context, context_mask, condition)
        check_vector("DiT", self.vector_dim, x, vector)
