"""Holds batch normalisation (Ioffe & Szegedy 2015) with the statistics of the complete batch, over all devices.

Running statistics live in the collection `batch_stats`, which a method keeps in its memory. Under jit a
mean over a sharded batch is a mean over all of it, so nothing else is needed for devices to agree. Each call normalises
its own batch: a discriminator therefore sees real and fake images in two calls.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError


def dcgan_scale_init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Returns a scale drawn from N(1, 0.02), as in the code of DCGAN (Radford et al. 2016)."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


class BatchNorm(nn.Module):
    """Normalises [B, ..., C] by channel; parameters `scale` and `bias`, state `mean` and `var` in `batch_stats`.

    In training the batch is normalised by its own mean and (biased) variance. Where `batch_stats` is mutable, the
    running statistics become momentum * old + (1 - momentum) * new, the new variance times n / (n - 1), as in PyTorch,
    whose momentum is 1 - ours. Outside training the running statistics normalise, and an example does not depend on the
    others of its batch. The collection `batch_moments`, where it is mutable, receives the batch's moments. Statistics
    are float32.

    Attributes:
      momentum: share of the old statistics that is kept at each call.
      eps: added to the variance.
      num_classes: above 0 for conditional BatchNorm (de Vries et al. 2017): a scale and a bias for each class.
      scale_init: initialiser of the scale.
      affine: whether there are a scale and a bias; without them the layer has no parameters.

    Raises:
      UserError: a channel has only one value in training, or conditional normalisation is given no labels.
    """

    config_name = ""  # a part of other networks; no config names it

    momentum: float = 0.9
    eps: float = 1e-5
    num_classes: int = 0
    scale_init: Callable = dcgan_scale_init
    affine: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "B ... C"], train: bool = False, label: Int[Array, " B"] | None = None
    ) -> Float[Array, "B ... C"]:
        channels = x.shape[-1]
        shape = (self.num_classes, channels) if self.num_classes else (channels,)
        if self.affine:
            scale = self.param("scale", self.scale_init, shape, jnp.float32)
            bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        else:
            scale, bias = jnp.ones(shape), jnp.zeros(shape)
        mean_state = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var_state = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        if self.num_classes:
            if label is None:
                raise UserError("Conditional batch normalisation needs the label of each example.")
            per_example = (-1, *(1,) * (x.ndim - 2), channels)
            scale, bias = scale[label].reshape(per_example), bias[label].reshape(per_example)
        out_type, x = x.dtype, x.astype(jnp.float32)
        if train:
            mean, var = self._moments(x, mean_state, var_state)
        else:
            mean, var = mean_state.value, var_state.value
        factor = lax.rsqrt(var + self.eps) * scale
        return (x * factor + (bias - mean * factor)).astype(out_type)

    def _moments(self, x: Array, mean_state: nn.Variable, var_state: nn.Variable) -> tuple[Array, Array]:
        """Returns the mean and the biased variance of the batch, and updates the running ones."""
        count = x.size // x.shape[-1]
        if count < 2:
            raise UserError("Batch normalisation learns from more than one value a channel: use a larger batch.")
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes)
        var = jnp.maximum(jnp.square(x).mean(axes) - jnp.square(mean), 0.0)
        new = {"mean": lax.stop_gradient(mean), "var": lax.stop_gradient(var) * (count / (count - 1))}
        for name, state in (("mean", mean_state), ("var", var_state)):
            if not self.is_initializing():
                self.sow("batch_moments", name, new[name], reduce_fn=lambda _, last: last, init_fn=lambda: None)
                if self.is_mutable_collection("batch_stats"):
                    state.value = self.momentum * state.value + (1 - self.momentum) * new[name]
        return mean, var
