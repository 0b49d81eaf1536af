"""Translation networks: dropout by each image's own key, what they read, and the boundaries of objects."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.losses import feature_matching
from jaxgen.errors import UserError
from jaxgen.networks.gans.multi_scale import MultiScale, halved
from jaxgen.networks.gans.patchgan import PatchDiscriminator
from jaxgen.networks.gans.pictures import boundaries, joined
from jaxgen.networks.translation.resnet import CoarseToFine, TranslationResNet
from jaxgen.networks.translation.unet import TranslationUNet

SHAPE = (8, 8, 3)


def pictures(count, side=8, channels=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (count, side, side, channels)), jnp.float32)


def keys(seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds))


@pytest.fixture(scope="module")
def unet():
    network = TranslationUNet(SHAPE, width=2, downs=3, dropout_blocks=1)
    variables = jax.jit(network.init)(jax.random.key(0), {"dropout": keys([0])}, condition=pictures(1))
    return network, variables, jax.jit(network.apply)


@pytest.mark.slow
def test_dropout_is_drawn_by_each_images_own_key(unet):
    _, variables, apply = unet
    x = jnp.tile(pictures(1), (4, 1, 1, 1))
    found = apply(variables, {"dropout": keys([1, 2, 1, 3])}, condition=x)
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 1e-3 and np.abs(found[1] - found[3]).max() > 1e-3
    alone = apply(variables, {"dropout": keys([2])}, condition=x[:1])
    np.testing.assert_allclose(alone[0], found[1], atol=1e-6)


def test_without_keys_nothing_is_dropped(unet):
    network, variables, apply = unet
    x = pictures(2)
    plain = network.clone(dropout=0.0)
    expected = jax.jit(plain.apply)(variables, {"dropout": keys([1, 2])}, condition=x)
    np.testing.assert_array_equal(apply(variables, None, condition=x), expected)


def test_what_a_generator_reads():
    """Maps of classes are told one-hot, instances by their boundaries, and noise at each pixel."""
    network = TranslationResNet(SHAPE, 2, 1, 1, reads=("mask", "instance"), classes=4, z_dim=3)
    maps = {"mask": jnp.zeros((1, 8, 8), jnp.int32), "instance": jnp.zeros((1, 8, 8), jnp.int32)}
    z = {"noise": jnp.zeros((1, 3))}
    variables = jax.eval_shape(network.init, jax.random.key(0), z, **maps)
    assert variables["params"]["trunk"]["stem"]["kernel"].shape == (7, 7, 4 + 1 + 3, 2)
    with pytest.raises(UserError, match="reads 'instance'"):
        network.init(jax.random.key(0), z, mask=maps["mask"])
    with pytest.raises(UserError, match="noise of width 2"):
        network.init(jax.random.key(0), {"noise": jnp.zeros((1, 2))}, **maps)
    with pytest.raises(UserError, match="'mask' has 4x4 pixels"):
        joined({"instance": maps["instance"], "mask": maps["mask"][:, :4, :4]}, 4)
    with pytest.raises(UserError, match="set the network's `classes`"):
        joined({"mask": maps["mask"]})


@pytest.mark.parametrize(
    "network, side, said",
    [
        (TranslationUNet(SHAPE, 2, 3), 8, "1 blocks that can drop"),
        (TranslationUNet(SHAPE, 2, 3, dropout_blocks=1), 12, "8 divides, not 12x12"),
        (TranslationUNet(SHAPE, 2, 3, dropout_blocks=0, norm="layer"), 8, "norm is"),
        (TranslationUNet(SHAPE, 2, 3, dropout=1.0, dropout_blocks=1), 8, r"share in \[0, 1\)"),
        (TranslationResNet(SHAPE, 2, 2, 1), 4, "too few behind 2 halvings"),
        (CoarseToFine(SHAPE, 2, 0), 8, "at least one enhancer"),
        (CoarseToFine(SHAPE, 2, 1, 2, 1, 1), 12, "8 divides, not 12x12"),
    ],
)
def test_what_does_not_fit_is_refused(network, side, said):
    with pytest.raises(UserError, match=said):
        jax.eval_shape(network.init, jax.random.key(0), None, condition=pictures(1, side))


def test_boundaries_are_on_both_sides_of_where_numbers_change():
    maps = np.random.default_rng(0).integers(0, 2, (2, 6, 5))
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    shifted = [padded[:, 1 + a : 7 + a, 1 + b : 6 + b] for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    expected = np.any([maps != one for one in shifted], axis=0)
    np.testing.assert_array_equal(boundaries(jnp.asarray(maps, jnp.int32)), expected)


@pytest.mark.slow
def test_each_scale_sees_its_own_size_alone():
    """A fine pattern is gone in the small copy, and what is far away is in reach of the coarse scale only."""
    network = MultiScale(PatchDiscriminator(4, 1, "none"), 2)
    plain = jnp.zeros((1, 32, 32, 1))
    variables = jax.jit(network.init)(jax.random.key(1), plain)
    call = jax.jit(lambda x: network.apply(variables, x)["logits"])
    stripes = jnp.where(jnp.arange(32)[:, None] % 2, 1.0, -1.0) * jnp.ones((32, 32))
    fine = [jnp.abs(a - b).mean() for a, b in zip(call(stripes[None, ..., None]), call(plain), strict=True)]
    assert fine[0] > 5 * fine[1]
    dot = plain.at[0, 0, 0].set(1.0)
    reach = [int((jnp.abs(a - b) > 0).any(1).sum()) for a, b in zip(call(dot), call(plain), strict=True)]
    sizes = [one.shape[1] for one in call(plain)]
    assert reach[1] / sizes[1] > 1.5 * reach[0] / sizes[0]


def test_small_copies_keep_a_constant_at_the_border():
    np.testing.assert_allclose(halved(jnp.full((1, 7, 6, 2), 3.0)), np.full((1, 4, 3, 2), 3.0), rtol=1e-6)


def test_feature_matching_is_a_mean_over_scales_and_stops_at_real_images():
    a, b = (jnp.ones((2, 3, 3, 1)), jnp.ones((2, 4))), (jnp.zeros((2, 3, 3, 1)), jnp.full((2, 4), 3.0))
    assert feature_matching(a, b) == 3.0  # 1 + 2
    assert feature_matching((a, a), (b, a)) == 1.5
    slopes = jax.grad(lambda real, fake: feature_matching(real, fake), argnums=(0, 1))(a, b)
    assert not any(jnp.abs(leaf).any() for leaf in jax.tree.leaves(slopes[0]))
    assert all(jnp.abs(leaf).any() for leaf in jax.tree.leaves(slopes[1]))
