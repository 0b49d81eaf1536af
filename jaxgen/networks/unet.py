"""The U-Net of diffusion models: Ho et al. (2020), with options of Dhariwal & Nichol (2021) and Rombach et al. (2022).

One module serves pixels and latents, with or without classes, conditioning images and text. Parameter names
are `down_<level>_...`, `middle_...` and `up_<level>_...`, level 0 being the finest. With text it is the network of
Stable Diffusion.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.data_shards import keep_rows_sharded
from jaxgen.errors import UserError
from jaxgen.networks.layers import basic as layers
from jaxgen.networks.layers.basic import Attention, Conv, GroupNorm
from jaxgen.networks.layers.contract import check_images, check_inputs
from jaxgen.networks.layers.remat import remat
from jaxgen.networks.layers.spatial_transformer import SpatialTransformer


class ResBlock(nn.Module):
    """norm, SiLU, (resample,) conv, time, norm, SiLU, dropout, zero conv; then the input is added.

    x [B, H, W, C], embedding [B, E] (already through its SiLU) -> [B, H', W', features]. `resample` is "",
    "down" or "up". With time_mode "add" the embedding is added before the second normalisation; with
    "adaptive" it scales and shifts its result (Dhariwal & Nichol 2021, section 3).
    """

    config_name = ""  # a part of others: no config names it

    features: int
    time_mode: str
    norm_groups: int
    norm_eps: float = 1e-5
    resample: str = ""
    dropout: float = 0.0
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool = False) -> Array:
        def norm(name: str) -> GroupNorm:
            return GroupNorm(self.norm_groups, self.norm_eps, self.dtype, name=name)

        h = nn.silu(norm("norm_in")(x))
        if self.resample == "down":
            x, h = layers.downsample(x), layers.downsample(h)
        elif self.resample == "up":
            x = layers.upsample(x)
        h = Conv(self.features, upsampled=self.resample == "up", dtype=self.dtype, name="conv_in")(h)

        adaptive = self.time_mode == "adaptive"
        width = 2 * self.features if adaptive else self.features
        time = nn.Dense(width, kernel_init=layers.kernel_init, dtype=self.dtype, name="time")(embedding)
        if adaptive:
            h = norm("norm_out")(h, *jnp.split(time, 2, -1))
        else:
            h = norm("norm_out")(h + time[:, None, None])
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        zero = layers.zeros_init
        h = Conv(self.features, kernel_init=zero, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, dtype=self.dtype, name="shortcut")(x)
        return x + h


class UNet(nn.Module):
    """Predicts an image of `out_channels` from a noisy image, its time and optional conditions.

    channels: width of the finest level; level i has channels * channel_multipliers[i] and 1/2^i of the
        pixels.
    blocks: residual blocks per level on the way down; one more on the way up.
    attention_resolutions: levels whose shorter side has one of these pixel counts attend after every block.
        For another image size give the sizes its levels have there.
    attention_levels: the levels themselves, 0 being the finest, whatever the size; None leaves it to the sizes.
    middle_blocks, middle_attention: residual blocks in the middle, and whether attention stands between the two of
        them; fewer than two have none.
    heads, head_channels: number of attention heads, one for all levels or one each, or, where above 0, channels of
        each head.
    dropout: rate inside the residual blocks, used when called with train=True (rng collection "dropout").
    num_classes: 0, or the number of labels 0..num_classes-1; label num_classes is the null class of
        classifier-free guidance. Its embedding is added to that of time.
    class_embedding: "table", for num_classes; or what else a label may be: "timestep", a number embedded as time
        is; "projection" and "simple_projection", a vector of `class_dim` through an MLP or a linear layer;
        "identity", a vector of 4 * channels as it is.
    context_dim: 0, or the width of context tokens. Then every attention is a SpatialTransformer, which looks at them,
        with `transformer_depth` blocks (one number, or one a level; the middle has the coarsest level's), in the
        levels of `only_cross_attention` without self-attention.
    time_embedding: "sinusoidal" (`time_cos_first`, `time_freq_shift`: see layers.sinusoidal) or "fourier"
        (random frequencies of standard deviation `fourier_std`); both see time * time_scale.
    time_mode: "add" (Ho et al.) or "adaptive" (scale and shift, Dhariwal & Nichol).
    resample: "conv" (strided convolution down, nearest neighbour and convolution up) or "residual" (mean
        pooling and nearest neighbour inside a residual block).
    downsample_padding: "symmetric" zeros or "same" (TensorFlow's: after), for resample "conv".
    norm_groups, norm_eps: of every group normalisation (norm_eps but for those of transformers, 1e-6); norm_groups
        divides every width.
    input_kernel, output_kernel: odd sizes of the first and last convolution.
    dtype: arithmetic in this type (say "bfloat16"); parameters, time embedding and output stay float32.
    remat: "", or what a residual block or an attention keeps for the backward pass: "block" its input alone, "dots"
        its convolutions and dense layers too.

    The last convolutions of blocks and network and the attentions' outputs start at zero: so does the output.
    """

    out_channels: int = 3
    channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    attention_levels: tuple[int, ...] | None = None
    middle_attention: bool = True
    middle_blocks: int = 2
    heads: int | tuple[int, ...] = 1
    head_channels: int = 0
    dropout: float = 0.0
    num_classes: int = 0
    class_embedding: str = "table"
    class_dim: int = 0
    context_dim: int = 0
    transformer_depth: int | tuple[int, ...] = 1
    only_cross_attention: bool | tuple[bool, ...] = False
    time_embedding: str = "sinusoidal"
    time_scale: float = 1.0
    time_cos_first: bool = True
    time_freq_shift: float = 0.0
    fourier_std: float = 16.0
    time_mode: str = "add"
    resample: str = "conv"
    downsample_padding: str = "symmetric"
    norm_groups: int = 32
    norm_eps: float = 1e-5
    input_kernel: int = 3
    output_kernel: int = 3
    dtype: str | None = None
    remat: str = ""

    @nn.compact
    def __call__(
        self,
        x: Array,
        time: Array,
        label: Array | None = None,
        context: Array | None = None,
        context_mask: Array | None = None,
        condition: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Run the network.

        x: float32 [B, H, W, C]; H and W are multiples of 2^(levels - 1).
        time: float32 [B], on the scale of `time_scale` (0..999 for the schedules' conditioning).
        label: int32 [B] in 0..num_classes, where num_classes > 0 and only there; for another `class_embedding`
            float32 [B] or [B, class_dim].
        context: float32 [B, L, context_dim], where context_dim > 0 and only there; context_mask [B, L] is
            nonzero on its valid tokens.
        condition: float32 [B, H, W, C'], joined to the channels of x.
        Returns float32 [B, H, W, out_channels]. Raises UserError where the inputs do not fit the options.
        """
        self.check(x, time, label, context, context_mask, condition)
        embedding = keep_rows_sharded(nn.silu(self.embed(time, label)))
        levels = range(len(self.channel_multipliers))
        widths = [self.channels * multiplier for multiplier in self.channel_multipliers]

        def conv(features: int, name: str, **options) -> Conv:
            return Conv(features, dtype=self.dtype, name=name, **options)

        def block(h: Array, features: int, name: str, resample: str = "") -> Array:
            norm = (self.norm_groups, self.norm_eps)
            module = remat(ResBlock, self.remat, static=(3,))
            options = (features, self.time_mode, *norm, resample, self.dropout, self.dtype)
            return keep_rows_sharded(module(*options, name=name)(h, embedding, train))

        def attention(h: Array, level: int, name: str) -> Array:
            heads = self.heads_for(level, h.shape[-1])
            if not self.context_dim:
                module = remat(Attention, self.remat)
                return keep_rows_sharded(module(heads, self.norm_groups, self.norm_eps, self.dtype, name=name)(h))
            depth = at_level(self.transformer_depth, level)
            only_cross = at_level(self.only_cross_attention, level) and not name.startswith("middle")
            module = remat(SpatialTransformer, self.remat)
            options = (heads, depth, self.norm_groups, only_cross, self.dtype)
            return keep_rows_sharded(module(*options, name=name)(h, context, context_mask))

        def attends(h: Array, level: int) -> bool:
            if self.attention_levels is not None:
                return level in self.attention_levels
            return min(h.shape[1:3]) in self.attention_resolutions

        h = x if condition is None else jnp.concatenate([x, condition], -1)
        h = conv(widths[0], "conv_in", size=self.input_kernel)(h)
        skips = [h]
        for level in levels:
            for i in range(self.blocks):
                h = block(h, widths[level], f"down_{level}_block_{i}")
                if attends(h, level):
                    h = attention(h, level, f"down_{level}_attention_{i}")
                skips.append(h)
            if level != levels[-1]:
                name = f"down_{level}_resample"
                if self.resample == "residual":
                    h = block(h, widths[level], name, "down")
                else:
                    h = conv(widths[level], name, stride=2, padding=self.downsample_padding)(h)
                skips.append(h)

        for i in range(self.middle_blocks):
            h = block(h, widths[-1], f"middle_block_{i}")
            if i == 0 and self.middle_attention and self.middle_blocks == 2:
                h = attention(h, levels[-1], "middle_attention")

        for level in reversed(levels):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = block(h, widths[level], f"up_{level}_block_{i}")
                if attends(h, level):
                    h = attention(h, level, f"up_{level}_attention_{i}")
            if level:
                name = f"up_{level}_resample"
                if self.resample == "residual":
                    h = block(h, widths[level], name, "up")
                else:
                    h = conv(widths[level], name, upsampled=True)(h)

        h = nn.silu(GroupNorm(self.norm_groups, self.norm_eps, self.dtype, name="norm_out")(h))
        last = conv(self.out_channels, "conv_out", size=self.output_kernel, kernel_init=layers.zeros_init)
        return last(h).astype(jnp.float32)

    def embed(self, time: Array, label: Array | None) -> Array:
        """Time and class as one float32 vector [B, 4 channels]."""
        width = 4 * self.channels

        def dense(name: str) -> nn.Dense:
            return nn.Dense(width, kernel_init=layers.kernel_init, name=name)

        h = dense("time_out")(nn.silu(dense("time_in")(self.time_features(time * self.time_scale))))
        kind = self.class_embedding
        if kind == "table" and self.num_classes:
            init = nn.initializers.normal(1.0)
            return h + nn.Embed(self.num_classes + 1, width, embedding_init=init, name="class")(label)
        if kind == "identity":
            return h + label
        if kind == "simple_projection":
            return h + dense("class")(label)
        if kind in ("timestep", "projection"):
            features = self.time_features(label) if kind == "timestep" else label
            return h + dense("class_out")(nn.silu(dense("class_in")(features)))
        return h

    def time_features(self, time: Array) -> Array:
        """[B] numbers as float32 [B, channels]."""
        if self.time_embedding == "sinusoidal":
            shift = self.time_freq_shift
            return layers.sinusoidal(time, self.channels, cos_first=self.time_cos_first, freq_shift=shift)
        return layers.random_fourier(time, self.channels, self.fourier_std, self.time_cos_first)

    def heads_for(self, level: int, width: int) -> int:
        """Number of attention heads of a level with this many channels."""
        if not self.head_channels:
            return at_level(self.heads, level)
        if width % self.head_channels:
            raise UserError(f"head_channels {self.head_channels} does not divide {width} channels.")
        return width // self.head_channels

    def check(
        self,
        x: Array,
        time: Array,
        label: Array | None,
        context: Array | None,
        context_mask: Array | None,
        condition: Array | None,
    ) -> None:
        """Raise UserError for options that do not exist and inputs that do not fit them."""
        for field, known in OPTIONS.items():
            value = getattr(self, field)
            if value not in known:
                raise UserError(f"{field} is {' or '.join(map(repr, known))}, not {value!r}.")
        count = len(self.channel_multipliers)
        if not count:
            raise UserError("channel_multipliers needs at least one level, such as (1, 2).")
        for field in ("heads", "transformer_depth", "only_cross_attention"):
            value = getattr(self, field)
            if isinstance(value, tuple) and len(value) != count:
                raise UserError(f"{field} {value} has {len(value)} entries for {count} levels: give one for each.")
        if any(not 0 <= level < count for level in self.attention_levels or ()):
            raise UserError(f"attention_levels {self.attention_levels} are not all among 0..{count - 1}.")
        for field in ("input_kernel", "output_kernel"):
            if getattr(self, field) % 2 == 0:
                raise UserError(f"{field} is {getattr(self, field)}; it must be odd, to keep the size.")
        check_images("U-Net", x)
        height, width = x.shape[1:3]
        factor = 2 ** (len(self.channel_multipliers) - 1)
        if height % factor or width % factor:
            raise UserError(
                f"images of {height}x{width} cannot be halved {len(self.channel_multipliers) - 1} times: pad "
                f"them to multiples of {factor} or use fewer channel_multipliers."
            )
        classes = self.num_classes
        if self.class_embedding != "table":
            dims = {"timestep": (), "identity": (4 * self.channels,)}.get(self.class_embedding, (self.class_dim,))
            if label is None or label.shape != (x.shape[0], *dims):
                shape = None if label is None else label.shape
                raise UserError(
                    f"this U-Net has class_embedding={self.class_embedding!r} and needs a label of shape "
                    f"{(x.shape[0], *dims)}, not {shape}."
                )
            classes, label = 0, None
        check_inputs("U-Net", classes, self.context_dim, x, time, label, context, context_mask, condition)


def at_level(value: Any, level: int) -> Any:
    """An option's value at a level: its own where there is one each."""
    return value[level] if isinstance(value, tuple) else value


OPTIONS = {
    "middle_blocks": (0, 1, 2),
    "class_embedding": ("table", "timestep", "identity", "projection", "simple_projection"),
    "time_embedding": ("sinusoidal", "fourier"),
    "time_mode": ("add", "adaptive"),
    "resample": ("conv", "residual"),
    "downsample_padding": ("symmetric", "same"),
}
