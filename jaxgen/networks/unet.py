"""Holds the U-Net of Ho et al. (2020), with options of Dhariwal & Nichol (2021) and Rombach et al. (2022).

One module serves pixels and latents, with or without classes, conditioning images and text. Parameter names
are `down_<level>_...`, `middle_...` and `up_<level>_...`, level 0 being the finest. With text it is the network of
Stable Diffusion.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from jaxgen.arrays import Array
from jaxgen.data_shards import keep_rows_sharded
from jaxgen.errors import UserError
from jaxgen.networks.layers import basic as layers
from jaxgen.networks.layers.basic import Attention, Conv, GroupNorm
from jaxgen.networks.layers.contract import check_choices, check_images, check_inputs, check_vector
from jaxgen.networks.layers.patches import from_patches, to_patches
from jaxgen.networks.layers.remat import remat
from jaxgen.networks.layers.spatial_transformer import SpatialTransformer

T = TypeVar("T")  # the type of an option


class ResBlock(nn.Module):
    """norm, SiLU, (resample,) conv, time, norm, SiLU, dropout, zero conv; then the input is added.

    x [B, H, W, C], embedding [B, E] (already through its SiLU) -> [B, H', W', features]. `resample` is "",
    "down" or "up". With time_mode "add" the embedding is added before the second normalisation; with
    "adaptive" it scales and shifts its result (Dhariwal & Nichol 2021, section 3).
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    time_mode: str
    norm_groups: int
    norm_eps: float = 1e-5
    resample: str = ""
    dropout: float = 0.0
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], embedding: Float[Array, "B E"], train: bool = False
    ) -> Float[Array, "B H2 W2 features"]:
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


class Conditions(NamedTuple):
    """Holds the inputs of every block of a `UNet` other than the image."""

    embedding: Array  # of time and class, through its SiLU: [B, 4 channels]
    context: Array | None
    context_mask: Array | None
    train: bool


class UNet(nn.Module):
    """Predicts an image of `out_channels` from a noisy image, its time and optional conditions.

    The last convolutions of blocks and network and the attentions' outputs start at zero, so the first output is zero.
    """

    out_channels: int = 3
    channels: int = 64  # width of the finest level
    channel_multipliers: tuple[int, ...] = (1, 2, 2)  # level i has channels * this[i], and 1/2^i of each side's pixels
    # Residual blocks per level on the way down, one number or one for each level; one more on the way up. Imagen's
    # Efficient U-Net has more of them where there are few pixels (Saharia et al. 2022, appendix B.1).
    blocks: int | tuple[int, ...] = 2
    # Levels whose shorter side has one of these pixel counts attend after every block. For another image size give the
    # sizes that its levels have there.
    attention_resolutions: tuple[int, ...] = (16,)
    attention_levels: tuple[int, ...] | None = None  # the levels that attend, 0 the finest; None: by their sizes
    middle_attention: bool = True  # attention between the two middle blocks; fewer than two blocks have none
    middle_blocks: int = 2  # residual blocks in the middle: 0, 1 or 2
    heads: int | tuple[int, ...] = 1  # of every attention, one number for all levels or one for each
    head_channels: int = 0  # channels of each head, in place of `heads`, where above 0
    dropout: float = 0.0  # rate inside the residual blocks, with train=True (rng collection "dropout")
    # 0, or the number of labels 0..num_classes-1. Label num_classes is the null class of classifier-free guidance. The
    # label's embedding is added to that of time.
    num_classes: int = 0
    # "table" for num_classes; or what else a label may be: "timestep", a number that is embedded as time is;
    # "projection" and "simple_projection", a vector of `class_dim` through an MLP or a linear layer; "identity", a
    # vector of 4 * channels as it is.
    class_embedding: Literal["table", "timestep", "identity", "projection", "simple_projection"] = "table"
    class_dim: int = 0
    vector_dim: int = 0  # 0, or the width of a vector, such as a pooled text, whose MLP is added to that of time
    context_dim: int = 0  # 0, or the width of context tokens, which every attention then sees
    # "transformer": every attention is a `SpatialTransformer`, with cross-attention to the tokens (Rombach et al. 2022,
    # section 3.3). "appended": the tokens' keys and values stand beside the pixels' own (Nichol et al. 2022, GLIDE,
    # section 2.1).
    context_attention: Literal["transformer", "appended"] = "transformer"
    transformer_depth: int | tuple[int, ...] = 1  # its blocks, one number or one a level; the middle: the coarsest's
    only_cross_attention: bool | tuple[bool, ...] = False  # levels whose transformers have no self-attention
    time_embedding: Literal["sinusoidal", "fourier"] = "sinusoidal"  # "fourier": random frequencies
    time_scale: float = 1.0  # the embedding sees time * time_scale
    time_cos_first: bool = True  # see `layers.sinusoidal`
    time_freq_shift: float = 0.0  # see `layers.sinusoidal`
    fourier_std: float = 16.0  # standard deviation of the random frequencies
    time_mode: Literal["add", "adaptive"] = "add"  # as Ho et al., or scale and shift (Dhariwal & Nichol)
    # "conv": strided convolution down, nearest neighbour and convolution up. "residual": mean pooling and nearest
    # neighbour inside a residual block.
    resample: Literal["conv", "residual"] = "conv"
    downsample_padding: Literal["symmetric", "same"] = "symmetric"  # zeros; "same": TensorFlow's, after; for "conv"
    norm_groups: int = 32  # of every group normalisation; it divides every width
    norm_eps: float = 1e-5  # of every group normalisation but those of transformers, which have 1e-6
    input_kernel: int = 3  # size of the first convolution, odd
    output_kernel: int = 3  # size of the last convolution, odd
    # What the outputs of the way down are multiplied by where the way up takes them; 2**-0.5 in the Efficient U-Net.
    skip_scale: float = 1.0
    # Pixels of a side that are joined into one position of the finest level: with 2 the network has a quarter of the
    # positions, four times the input's and the output's channels, and a quarter of the cost.
    patch_size: int = 1
    dtype: str | None = None  # of the arithmetic, say "bfloat16"; parameters, time embedding and output stay float32
    # "", or what a residual block or an attention keeps for the backward pass: "block" its input alone, "dots" its
    # convolutions and dense layers too.
    remat: str = ""

    @property
    def side_multiple(self) -> int:
        """Returns the number that the sides of its images are multiples of."""
        return self.patch_size * 2 ** (len(self.channel_multipliers) - 1)

    def levels_kept(self, height: int, width: int) -> UNet:
        """Returns the network that attends, at every size of images, at the levels where it does at this one.

        A network whose levels attend by their sizes has its weights for these.
        """
        if self.attention_levels is not None:
            return self
        sides = [min(height, width) // self.patch_size // 2**level for level in range(len(self.channel_multipliers))]
        levels = tuple(level for level, side in enumerate(sides) if side in self.attention_resolutions)
        return self.clone(attention_levels=levels)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        label: Shaped[Array, "B ..."] | None = None,
        context: Float[Array, "B L D"] | None = None,
        context_mask: Shaped[Array, "B L"] | None = None,
        condition: Float[Array, "B H W D"] | None = None,
        vector: Float[Array, "B D"] | None = None,
        residuals: tuple[Float[Array, "B h w D"], ...] = (),
        train: bool = False,
    ) -> Float[Array, "B H W out"]:
        """Runs the network; arguments and errors are those of `jaxgen.networks.layers.contract`.

        H and W are multiples of `side_multiple`. With another `class_embedding` than "table" labels are float32 [B] or
        [B, class_dim]. `residuals`, where given, are added to what `way_down` hands to `way_up`, one to each in the
        order of creation, and the last one to the output of the middle (Zhang et al. 2023, ControlNet, section 3.2).
        """
        self.check(x, time, label, context, context_mask, condition, vector)
        told = Conditions(keep_rows_sharded(nn.silu(self.embed(time, label, vector))), context, context_mask, train)
        h, skips = self.way_down(self.way_in(x, condition), told)
        h = self.middle(h, told)
        if residuals:
            *skips, h = _added([*skips, h], residuals)
        h = self.way_up(h, skips, told)
        h = nn.silu(GroupNorm(self.norm_groups, self.norm_eps, self.dtype, name="norm_out")(h))
        features = self.patch_size**2 * self.out_channels
        last = self._conv(features, "conv_out", size=self.output_kernel, kernel_init=layers.zeros_init)
        return from_patches(last(h), self.patch_size).astype(jnp.float32)

    @property
    def widths(self) -> list[int]:
        """Returns the channels of each level, the finest first."""
        return [self.channels * multiplier for multiplier in self.channel_multipliers]

    def way_in(self, x: Array, condition: Array | None) -> Array:
        """Computes the first convolution, of the noisy image and of the picture beside it."""
        h = x if condition is None else jnp.concatenate([x, condition], -1)
        h = to_patches(h, self.patch_size)
        return self._conv(self.widths[0], "conv_in", size=self.input_kernel)(h)

    def way_down(self, h: Array, told: Conditions) -> tuple[Array, list[Array]]:
        """Computes the levels from the finest to the coarsest.

        Returns the coarsest level's output and the outputs that `way_up` joins to its own, in the order of creation.
        """
        skips = [h]
        for level, width in enumerate(self.widths):
            for i in range(at_level(self.blocks, level)):
                h = self._block(h, width, f"down_{level}_block_{i}", told)
                if self._attends(h, level):
                    h = self._attention(h, level, f"down_{level}_attention_{i}", told)
                skips.append(h)
            if level != len(self.widths) - 1:
                name = f"down_{level}_resample"
                if self.resample == "residual":
                    h = self._block(h, width, name, told, "down")
                else:
                    h = self._conv(width, name, stride=2, padding=self.downsample_padding)(h)
                skips.append(h)
        return h, skips

    def middle(self, h: Array, told: Conditions) -> Array:
        """Computes the middle blocks at the coarsest level, and their attention."""
        for i in range(self.middle_blocks):
            h = self._block(h, self.widths[-1], f"middle_block_{i}", told)
            if i == 0 and self.middle_attention and self.middle_blocks == 2:
                h = self._attention(h, len(self.widths) - 1, "middle_attention", told)
        return h

    def way_up(self, h: Array, skips: list[Array], told: Conditions) -> Array:
        """Computes the levels from the coarsest to the finest; each block takes one of `skips`, the last one first."""
        skips = list(skips)
        for level in reversed(range(len(self.widths))):
            for i in range(at_level(self.blocks, level) + 1):
                skip = skips.pop()
                h = jnp.concatenate([h, skip if self.skip_scale == 1 else self.skip_scale * skip], -1)
                h = self._block(h, self.widths[level], f"up_{level}_block_{i}", told)
                if self._attends(h, level):
                    h = self._attention(h, level, f"up_{level}_attention_{i}", told)
            if level:
                name = f"up_{level}_resample"
                if self.resample == "residual":
                    h = self._block(h, self.widths[level], name, told, "up")
                else:
                    h = self._conv(self.widths[level], name, upsampled=True)(h)
        return h

    def _conv(self, features: int, name: str, **options: Any) -> Conv:
        return Conv(features, dtype=self.dtype, name=name, **options)

    def _block(self, h: Array, features: int, name: str, told: Conditions, resample: str = "") -> Array:
        module = remat(ResBlock, self.remat, static=(3,))
        options = (features, self.time_mode, self.norm_groups, self.norm_eps, resample, self.dropout, self.dtype)
        return keep_rows_sharded(module(*options, name=name)(h, told.embedding, told.train))

    def _attends(self, h: Array, level: int) -> bool:
        if self.attention_levels is not None:
            return level in self.attention_levels
        return min(h.shape[1:3]) in self.attention_resolutions

    def _attention(self, h: Array, level: int, name: str, told: Conditions) -> Array:
        heads = self.heads_for(level, h.shape[-1])
        if not self.context_dim:
            module = remat(Attention, self.remat)
            return keep_rows_sharded(module(heads, self.norm_groups, self.norm_eps, self.dtype, name=name)(h))
        if self.context_attention == "appended":
            module = remat(Attention, self.remat)
            attention = module(heads, self.norm_groups, self.norm_eps, self.dtype, True, name=name)
            return keep_rows_sharded(attention(h, told.context, told.context_mask))
        depth = at_level(self.transformer_depth, level)
        only_cross = at_level(self.only_cross_attention, level) and not name.startswith("middle")
        module = remat(SpatialTransformer, self.remat)
        options = (heads, depth, self.norm_groups, only_cross, self.dtype)
        return keep_rows_sharded(module(*options, name=name)(h, told.context, told.context_mask))

    def embed(self, time: Array, label: Array | None, vector: Array | None = None) -> Array:
        """Returns the embedding of time, class and vector, one float32 vector [B, 4 channels]."""
        width = 4 * self.channels

        def dense(name: str) -> nn.Dense:
            return nn.Dense(width, kernel_init=layers.kernel_init, name=name)

        h = dense("time_out")(nn.silu(dense("time_in")(self.time_features(time * self.time_scale))))
        if vector is not None:
            h = h + dense("vector_out")(nn.silu(dense("vector_in")(vector)))
        if label is None:  # `check` has refused a missing label that the options need
            return h
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
        """Returns the features of numbers [B], float32 [B, channels]."""
        if self.time_embedding == "sinusoidal":
            shift = self.time_freq_shift
            return layers.sinusoidal(time, self.channels, cos_first=self.time_cos_first, freq_shift=shift)
        return layers.random_fourier(time, self.channels, self.fourier_std, self.time_cos_first)

    def heads_for(self, level: int, width: int) -> int:
        """Returns the number of attention heads of a level with this many channels."""
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
        vector: Array | None = None,
    ) -> None:
        """Raises a UserError for options that do not exist and inputs that do not fit them."""
        check_choices(self)
        if self.middle_blocks not in (0, 1, 2):
            raise UserError(f"middle_blocks is 0 or 1 or 2, not {self.middle_blocks!r}.")
        count = len(self.channel_multipliers)
        if not count:
            raise UserError("channel_multipliers needs at least one level, such as (1, 2).")
        for field in ("blocks", "heads", "transformer_depth", "only_cross_attention"):
            value = getattr(self, field)
            if isinstance(value, tuple) and len(value) != count:
                raise UserError(f"{field} {value} has {len(value)} entries for {count} levels: give one for each.")
        if any(not 0 <= level < count for level in self.attention_levels or ()):
            raise UserError(f"attention_levels {self.attention_levels} are not all among 0..{count - 1}.")
        plain = (self.transformer_depth, self.only_cross_attention) == (1, False)
        if self.context_attention == "appended" and not (plain and self.context_dim):
            raise UserError(
                "context_attention='appended' puts context tokens beside the pixels of every attention: set "
                "context_dim, and leave transformer_depth and only_cross_attention out."
            )
        for field in ("input_kernel", "output_kernel"):
            if getattr(self, field) % 2 == 0:
                raise UserError(f"{field} is {getattr(self, field)}; it must be odd, to keep the size.")
        check_images("U-Net", x)
        height, width = x.shape[1:3]
        if self.patch_size < 1:
            raise UserError(f"patch_size is {self.patch_size}; it must be at least 1.")
        factor, patches = self.side_multiple, f"cut into patches of {self.patch_size} and " * (self.patch_size > 1)
        if height % factor or width % factor:
            raise UserError(
                f"images of {height}x{width} cannot be {patches}halved {len(self.channel_multipliers) - 1} times: pad "
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
        check_vector("U-Net", self.vector_dim, x, vector)


def _added(outputs: list[Array], residuals: tuple[Array, ...]) -> list[Array]:
    """Returns the outputs of levels with what another network adds to them; raises a UserError where that differs."""
    if len(residuals) != len(outputs) or any(r.shape != h.shape for r, h in zip(residuals, outputs, strict=True)):
        raise UserError(
            f"residuals have the shapes {[r.shape for r in residuals]}, but this U-Net adds them to outputs of "
            f"{[h.shape for h in outputs]}: one for each of the way down, and one for the middle."
        )
    return [h + r.astype(h.dtype) for h, r in zip(outputs, residuals, strict=True)]


def at_level(value: T | tuple[T, ...], level: int) -> T:
    """Returns an option's value at a level: the entry of a tuple, or the one value for all levels."""
    return value[level] if isinstance(value, tuple) else value
