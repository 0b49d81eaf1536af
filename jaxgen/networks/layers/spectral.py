"""Spectral normalisation of weights (Miyato et al. 2018) divides a kernel by its largest singular value.

The singular vector u of each kernel, seen as a matrix [h w in, out], lives in the collection `spectral`; one step of
power iteration renews it at each call in training (Algorithm 1).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.arrays import Array

START = 15  # iterations at the start, so that a fresh network is normalised from its first call


def _unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def normalised(module: nn.Module, kernel: Array, train: bool, name: str = "u") -> Array:
    """Returns the kernel divided by its largest singular value, sigma = v^T W u. Gradients hold both vectors fixed.

    Args:
      module: the module whose collection `spectral` holds u under `name`. Training updates u where the collection is
        mutable.
      kernel: [..., out], float32.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = lax.stop_gradient(matrix)

    def step(u: Array) -> Array:
        return _unit(_times(_unit(_times(fixed, u)), fixed))

    def start() -> Array:
        u = _unit(jax.random.normal(module.make_rng("params"), fixed.shape[-1:]))
        return lax.fori_loop(0, START, lambda _, u: step(u), u)

    state = module.variable("spectral", name, start)
    u = lax.stop_gradient(state.value)
    if train:
        u = step(u)
        if module.is_mutable_collection("spectral") and not module.is_initializing():
            state.value = u
    v = _unit(_times(fixed, u))
    return kernel / _times(v, _times(matrix, u))
