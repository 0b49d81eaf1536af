"""LPIPS: what makes it a distance, its closed form on given features, and its weights' files."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.interop.feature_networks.lpips import lpips_from_torch
from jaxgen.networks.pretrained.lpips import LPIPS, TRUNKS, Layer, check_size, unit_length

# as deep and wide as properties need
LAYERS = (Layer(6, 5, stride=2, padding=2, tap=True), Layer(8, pool=3, tap=True), Layer(8), Layer(10, pool=2, tap=True))
TINY = LPIPS("tiny")
SIZE = 35


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNKS, "tiny", LAYERS)
        yield


@pytest.fixture(scope="module")
def params():
    """Random trunk, random heads."""
    x = jnp.zeros((1, SIZE, SIZE, 3))
    made = jax.jit(TINY.init)(jax.random.key(0), x, x)["params"]
    chance = np.random.default_rng(0)
    return {k: chance.uniform(0, 1, v.shape).astype(np.float32) if "head" in k else v for k, v in made.items()}


@pytest.fixture(scope="module")
def distance(params):
    compiled = jax.jit(lambda params, x, y: TINY.apply({"params": params}, x, y))
    return lambda x, y, params=params: np.asarray(compiled(params, x, y))


@pytest.fixture(scope="module")
def gradient():
    """Of the distance to y in x."""
    return jax.jit(jax.grad(lambda x, y, params: TINY.apply({"params": params}, x, y).sum()))


def images(seed=0, count=4):
    return np.random.default_rng(seed).uniform(-1, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


def test_it_is_zero_on_equal_images_symmetric_and_positive(distance):
    x, y = images(0), images(1)
    np.testing.assert_allclose(distance(x, x), 0, atol=1e-12)
    np.testing.assert_allclose(distance(x, y), distance(y, x), rtol=1e-5)
    assert (distance(x, y) > 0).all()


def test_more_noise_is_further_away(distance):
    x, noise = images(0), images(1)
    near, far = distance(x, x + 0.05 * noise), distance(x, x + 0.5 * noise)
    assert (far > 4 * near).all()


def test_a_pair_depends_on_no_other(distance):
    x, y = images(0), images(1)
    swapped = [3, 1, 0, 2]
    np.testing.assert_allclose(distance(x[swapped], y[swapped]), distance(x, y)[swapped], rtol=1e-5)


def test_features_have_unit_length_whatever_the_contrast(params):
    features = jax.jit(lambda params, x: TINY.apply({"params": params}, x, method="features"))
    for tap in features(params, images()):
        length = np.linalg.norm(tap, axis=-1)
        assert np.all((np.abs(length - 1) < 1e-5) | (length == 0))  # dead positions stay at zero


def test_heads_weigh_squared_differences_of_channels(params):
    # at each position of each tap one image has channel 0 alone, the other channel 1 alone
    widths = [layer.features for layer in LAYERS if layer.tap]
    a, b = ([np.zeros((2, 3, 5, width), np.float32) for width in widths] for _ in range(2))
    for x, y in zip(a, b, strict=True):
        x[..., 0] = 1
        y[..., 1] = 1
        y[1, 0] = 0  # in the second pair, nothing in the first of three rows
    found = jax.jit(lambda params, a, b: TINY.apply({"params": params}, a, b, method="compare"))(params, a, b)
    one, other = (sum(params[f"head_{i}"][channel] for i in range(3)) for channel in (0, 1))
    np.testing.assert_allclose(found, [one + other, one + other * 2 / 3], rtol=1e-6)


def test_the_gradient_is_finite_where_all_channels_are_dead(params, gradient):
    dead = {**params, "conv_1": {**params["conv_1"], "bias": params["conv_1"]["bias"] - 1e3}}
    x, y = images(0), images(1)
    for weights in (params, dead):
        found = np.asarray(gradient(x, y, weights))
        assert np.isfinite(found).all() and np.abs(found).max() > 0
    np.testing.assert_allclose(gradient(y, y, params), 0, atol=1e-8)  # the distance's minimum


def test_the_gradient_is_the_slope(params, distance, gradient):
    x, y, step = images(0), images(1), images(2)
    slope = (distance(x + 1e-3 * step, y) - distance(x - 1e-3 * step, y)) / 2e-3
    found = (gradient(x, y, params) * step).sum((1, 2, 3))
    np.testing.assert_allclose(found, slope, rtol=0.03, atol=0.01 * np.abs(slope).max())


def test_unit_length_keeps_directions():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    x[1] = 0
    found = np.asarray(unit_length(jnp.asarray(x)))
    np.testing.assert_allclose(found[[0, 2]], x[[0, 2]] / np.linalg.norm(x[[0, 2]], axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(found[1], 0)
    assert np.isfinite(jax.grad(lambda x: unit_length(x).sum())(jnp.asarray(x))).all()


@pytest.mark.parametrize(("trunk", "convolutions", "channels"), [("alex", 2_469_696, 1152), ("vgg", 14_714_688, 1472)])
def test_trunks_have_the_published_sizes(trunk, convolutions, channels):
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(LPIPS(trunk).init, jax.random.key(0), x, x)["params"]
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes.items()}
    assert sum(size for name, size in sizes.items() if "conv" in name) == convolutions
    assert [sizes[f"head_{i}"] for i in range(5)] == [layer.features for layer in TRUNKS[trunk] if layer.tap]
    assert sum(size for name, size in sizes.items() if "head" in name) == channels


@pytest.mark.parametrize(("trunk", "smallest"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_image_leaves_one_position(trunk, smallest):
    check_size(trunk, smallest, 100)
    with pytest.raises(UserError, match=f"{smallest - 1}x100 are too small for LPIPS"):
        check_size(trunk, smallest - 1, 100)
    x = jax.ShapeDtypeStruct((1, smallest, smallest, 3), np.float32)
    taps, _ = jax.eval_shape(lambda k, x: LPIPS(trunk).init_with_output(k, x, method="features"), jax.random.key(0), x)
    assert taps[-1].shape[1:3] == (1, 1)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((1, 40, 40, 1)), np.zeros((1, 40, 40, 1)), "RGB"),
        (np.zeros((1, 40, 40, 3)), np.zeros((1, 40, 44, 3)), "one shape"),
        (np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 3)), "4x4 are too small"),
    ],
)
def test_other_images_are_refused(params, x, y, says):
    with pytest.raises(UserError, match=says):
        TINY.apply({"params": params}, x, y)


def test_an_unknown_trunk_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'alex'"):
        LPIPS("alexnet").init(jax.random.key(0), images(), images())


# torchvision numbers convolutions, ReLUs and poolings in one row
NUMBERS = (0, 3, 6, 8, 10)


@pytest.fixture(scope="module")
def alex():
    """Parameters of LPIPS("alex"), every value its own."""
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(LPIPS("alex").init, jax.random.key(0), x, x)["params"]
    chance = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: chance.random(leaf.shape, np.float32), shapes)


def files(params):
    """The two state dicts that torchvision and the package would write."""
    trunk, heads = {"classifier.1.weight": np.ones((2, 2))}, {}
    for i, number in enumerate(NUMBERS):
        trunk[f"features.{number}.weight"] = params[f"conv_{i}"]["kernel"].transpose(3, 2, 0, 1)
        trunk[f"features.{number}.bias"] = params[f"conv_{i}"]["bias"]
        heads[f"lin{i}.model.1.weight"] = params[f"head_{i}"].reshape(1, -1, 1, 1)
    return trunk, heads


def test_published_names_become_the_networks(alex):
    jax.tree.map(np.testing.assert_array_equal, lpips_from_torch(*files(alex)), alex)


def test_foreign_files_are_refused_by_name(alex):
    def refuses(says, change):
        trunk, heads = files(alex)
        change(trunk, heads)
        with pytest.raises(UserError, match=says):
            lpips_from_torch(trunk, heads)

    refuses("'lin3.model.1.weight' is missing", lambda trunk, heads: heads.pop("lin3.model.1.weight"))
    refuses("'features.6.bias' is missing", lambda trunk, heads: trunk.pop("features.6.bias"))
    refuses("'fc.weight' is no weight", lambda trunk, heads: trunk.update({"fc.weight": np.ones(2)}))
    refuses("'lin5.model.1.weight' is no weight", lambda _, heads: heads.update({"lin5.model.1.weight": np.ones(2)}))
    refuses("4 convolutions", lambda trunk, _: [trunk.pop(f"features.10.{x}") for x in ("weight", "bias")])
    refuses("has shape", lambda trunk, _: trunk.update({"features.3.weight": np.ones((192, 64, 3, 3))}))
    refuses("head 2 .* negative", lambda _, heads: heads.update({"lin2.model.1.weight": -np.ones((1, 384, 1, 1))}))
    trunk, heads = files(alex)
    with pytest.raises(UserError, match="5 convolutions .* 'vgg' has 13"):
        lpips_from_torch(trunk, heads, "vgg")
