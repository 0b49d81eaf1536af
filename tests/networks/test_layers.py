from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import Attention, GroupNorm, attend, random_fourier, sinusoidal


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def scrambled(module, seed, *args):
    """Params of `module`, all random, so that nothing hides behind a zero or a one."""
    params = jax.eval_shape(module.init, jax.random.key(0), *args)["params"]
    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten(0.3 * normal(seed + i, *leaf.shape) for i, leaf in enumerate(leaves))


@pytest.mark.parametrize("shape", [(3, 4, 6, 12), (2, 5, 8)])
@pytest.mark.parametrize("groups", [1, 4])
def test_group_norm_equals_flax(shape, groups):
    x = 2.0 * normal(0, *shape) + 3.0
    params = {"scale": normal(1, shape[-1]), "bias": normal(2, shape[-1])}
    ours = GroupNorm(groups, eps=1e-3).apply({"params": params}, x)
    theirs = nn.GroupNorm(groups, epsilon=1e-3).apply({"params": params}, x)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_group_norm_is_modulated_after_its_own_affine_map():
    x, scale, shift = normal(0, 2, 4, 4, 8), normal(1, 2, 8), normal(2, 2, 8)
    params = {"params": {"scale": normal(3, 8), "bias": normal(4, 8)}}
    module = GroupNorm(2)
    plain = module.apply(params, x)
    expected = plain * (1 + scale)[:, None, None] + shift[:, None, None]
    np.testing.assert_allclose(module.apply(params, x, scale, shift), expected, atol=1e-5)


def test_group_norm_statistics_are_float32():
    # 4096 values near 100 with deviation 1: a bfloat16 sum could not tell the mean to within 1.
    x = (100 + normal(0, 1, 64, 64, 4)).astype(jnp.bfloat16)
    module = GroupNorm(1, dtype="bfloat16")
    y = module.apply(module.init(jax.random.key(0), x), x)
    assert y.dtype == jnp.bfloat16
    assert abs(float(y.astype(jnp.float32).mean())) < 0.02
    assert abs(float(y.astype(jnp.float32).std()) - 1) < 0.02


def test_group_norm_needs_dividing_groups():
    with pytest.raises(UserError, match="12 channels"):
        GroupNorm(8).init(jax.random.key(0), jnp.zeros((1, 2, 2, 12)))


@pytest.mark.parametrize("cos_first", [False, True])
def test_sinusoidal_is_a_rotation_in_time(cos_first):
    dim = 32
    time = jnp.asarray([0.0, 3.0, 250.0, 999.0])
    y = sinusoidal(time, dim, cos_first=cos_first)
    later = sinusoidal(time + 5, dim, cos_first=cos_first)
    # Inner products depend on differences in time only, and each feature pair has length one.
    np.testing.assert_allclose(later @ later.T, y @ y.T, atol=2e-3)
    np.testing.assert_allclose((y**2).sum(-1), dim // 2, rtol=1e-5)
    cos = y[0, : dim // 2] if cos_first else y[0, dim // 2 :]
    np.testing.assert_array_equal(cos, 1.0)


def test_sinusoidal_frequencies():
    small = jnp.asarray([1e-2])
    for shift, last in ((0.0, 1e-4 ** (7 / 8)), (1.0, 1e-4)):
        slope = sinusoidal(small, 16, freq_shift=shift)[0, :8] / 1e-2
        np.testing.assert_allclose(slope[jnp.asarray([0, -1])], [1.0, last], rtol=1e-3)
        np.testing.assert_allclose(slope[1:] / slope[:-1], slope[1] / slope[0], rtol=1e-3)


def test_random_fourier():
    time = jnp.linspace(0, 1, 200)
    y = random_fourier(time, 64, std=4.0)
    np.testing.assert_array_equal(y, random_fourier(time, 64, std=4.0))
    assert not np.allclose(y, random_fourier(time, 64, std=4.0, seed=1))
    np.testing.assert_allclose((y**2).sum(-1), 32, rtol=1e-4)
    # Bochner: features approximate a Gaussian kernel, exp(-(2 pi std d)^2 / 2).
    near = random_fourier(jnp.asarray([0.5, 0.51, 0.9]), 4096, std=4.0)
    kernel = near[0] @ near.T / 2048
    np.testing.assert_allclose(kernel, np.exp(-((2 * np.pi * 4.0 * np.asarray([0, 0.01, 0.4])) ** 2) / 2), atol=0.05)


@pytest.mark.parametrize("features", [sinusoidal, random_fourier])
def test_time_features_need_an_even_dim(features):
    with pytest.raises(UserError, match="even"):
        features(jnp.zeros(2), 7)


def test_attend_equals_jax():
    query, key, value = normal(0, 2, 5, 3, 4), normal(1, 2, 7, 3, 4), normal(2, 2, 7, 3, 4)
    mask = jnp.asarray([[1, 1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]])
    expected = jax.nn.dot_product_attention(query, key, value)
    np.testing.assert_allclose(attend(query, key, value), expected, atol=1e-5)
    expected = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None].astype(bool))
    np.testing.assert_allclose(attend(query, key, value, mask), expected, atol=1e-5)


def test_attend_s_gradients_equal_jax_s():
    query, key, value = normal(0, 2, 5, 3, 4), normal(1, 2, 7, 3, 4), normal(2, 2, 7, 3, 4)
    mask = jnp.asarray([[1, 1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]])

    def gradients(form, **options):
        return jax.grad(lambda *args: jnp.sin(form(*args, **options)).sum(), (0, 1, 2))(query, key, value)

    wide = mask[:, None, None].astype(bool)
    for ours, theirs in (({}, {}), ({"mask": mask}, {"mask": wide})):
        expected = gradients(jax.nn.dot_product_attention, **theirs)
        for got, wanted in zip(gradients(attend, **ours), expected, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_attend_sums_over_its_weights_once():
    """In the gradient, too: sums over matrices of pixels by pixels are what a CPU spends its time on."""
    query, key, value = normal(0, 2, 5, 3, 4), normal(1, 2, 7, 3, 4), normal(2, 2, 7, 3, 4)
    program = jax.make_jaxpr(jax.grad(lambda *args: jnp.sin(attend(*args)).sum(), (0, 1, 2)))(query, key, value)
    sums = [e for e in program.eqns if e.primitive.name == "reduce_sum" and e.invars[0].aval.shape == (2, 3, 5, 7)]
    assert len(sums) == 1


def test_attend_with_nothing_to_look_at_is_zero_and_differentiable():
    query, key, value = normal(0, 1, 2, 1, 4), normal(1, 1, 3, 1, 4), normal(2, 1, 3, 1, 4)
    nothing = jnp.zeros((1, 3), int)
    np.testing.assert_array_equal(attend(query, key, value, nothing), 0.0)
    gradients = jax.grad(lambda *args: attend(*args, nothing).sum(), (0, 1, 2))(query, key, value)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0.0)


def test_fresh_attention_is_the_identity():
    x = normal(0, 2, 3, 4, 8)
    module = Attention(heads=2, norm_groups=4)
    np.testing.assert_array_equal(module.apply(module.init(jax.random.key(0), x), x), x)


def test_attention_is_equivariant_to_the_order_of_pixels():
    x = normal(0, 1, 3, 4, 8)
    module = Attention(heads=2, norm_groups=4)
    params = scrambled(module, 10, x)

    def apply(x):
        return module.apply({"params": params}, x)

    flipped = apply(x[:, ::-1, ::-1])[:, ::-1, ::-1]
    np.testing.assert_allclose(flipped, apply(x), atol=1e-5)
    assert not np.allclose(apply(x), x, atol=1e-2)


def test_heads_must_divide():
    with pytest.raises(UserError, match="3 attention heads"):
        Attention(heads=3, norm_groups=4).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))
