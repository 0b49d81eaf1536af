"""The FID's Inception: its shape as published, its poolings, its taps and what is asked of images."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.interop.feature_networks.inception import EPS, inception_params, shapes
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.networks.inception import Inception as Features
from jaxgen.networks.layers.convolution import conv
from jaxgen.networks.pretrained.inception import CLASSES, TAPS, Inception, average, maximum

MOST = ("64", "192", "768", "2048", "logits_unbiased", "logits")


@functools.cache
def params() -> dict:
    """Random ones whose activations keep their size."""
    chance = np.random.default_rng(0)

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1])
        scale = (2 / fan_in) ** 0.5 if len(leaf.shape) > 1 else 0.1
        return scale * chance.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes())


@functools.cache
def small() -> Features:
    """The network on images as small as they may be, in their own size."""
    return Features(resize="none", given=params())


@pytest.fixture(scope="module", autouse=True)
def let_go():
    """Gigabytes, on eight devices: not to be held while other modules run."""
    yield
    for kept in (params, small, state):
        kept.cache_clear()


def images(count: int, side: int = 75, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


@functools.cache
def state() -> dict[str, np.ndarray]:
    """A state dict as it is published: random convolutions and batch normalisations."""
    chance = np.random.default_rng(2)
    found = {}

    def fill(tree, prefix):
        if "kernel" not in tree:
            for name, part in tree.items():
                fill(part, f"{prefix}{name}.")
            return
        shape = tree["kernel"].shape
        if len(shape) == 2:
            found[f"{prefix}weight"] = chance.normal(size=shape[::-1]).astype(np.float32)
            found[f"{prefix}bias"] = chance.normal(size=shape[1:]).astype(np.float32)
            return
        found[f"{prefix}conv.weight"] = chance.standard_normal((shape[3], shape[2], *shape[:2]), np.float32)
        for name in ("weight", "bias", "running_mean", "running_var"):
            found[f"{prefix}bn.{name}"] = chance.random(shape[3:], np.float32) + 0.1

    fill(shapes(), "")
    return found


def test_it_has_as_many_numbers_as_the_published_file():
    """95,628,359 bytes, of which names and places take less than a fifth of a megabyte."""
    size = sum(4 * value.size for value in state().values())
    assert 0 < 95_628_359 - size < 200_000


def test_a_published_state_becomes_convolutions_with_batch_normalisation_in_them():
    tree = inception_params({**state(), "Mixed_5b.branch1x1.bn.num_batches_tracked": np.asarray(7)})
    assert jax.tree.map(np.shape, tree) == jax.tree.map(lambda leaf: leaf.shape, shapes())
    x = np.random.default_rng(3).normal(size=(1, 5, 6, 768)).astype(np.float32)
    layer, prefix = tree["Mixed_6b"]["branch7x7_1"], "Mixed_6b.branch7x7_1"
    weight, bias, mean, variance = (
        state()[f"{prefix}.bn.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    plain = np.einsum("nhwi,oi->nhwo", x.astype(np.float64), state()[f"{prefix}.conv.weight"][:, :, 0, 0])
    expected = (plain - mean) / np.sqrt(variance + EPS) * weight + bias
    np.testing.assert_allclose(x @ layer["kernel"][0, 0] + layer["bias"], expected, rtol=1e-4, atol=1e-3)


def test_states_that_are_not_the_networks_are_refused():
    missing = {key: value for key, value in state().items() if key != "Mixed_7c.branch_pool.bn.bias"}
    with pytest.raises(UserError, match=r"lack 'Mixed_7c\.branch_pool\.bn\.bias'"):
        inception_params(missing)
    with pytest.raises(UserError, match=r"have 'AuxLogits\.fc\.bias'"):
        inception_params({**state(), "AuxLogits.fc.bias": np.zeros(3)})
    with pytest.raises(UserError, match=r"'fc\.weight' has shape \(1000, 2048\)"):
        inception_params({**state(), "fc.weight": np.zeros((1000, 2048))})


def test_an_average_counts_only_what_lies_within():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    found = np.asarray(average(jnp.asarray(x)))
    for row in range(5):
        for column in range(4):
            window = x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            np.testing.assert_allclose(found[:, row, column], window.mean((1, 2)), atol=1e-6)


def test_an_average_may_come_before_or_after_a_1x1_convolution():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 7, 8)), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(1, 1, 8, 3)), jnp.float32)
    np.testing.assert_allclose(average(conv(x, kernel) + 0.5), conv(average(x), kernel) + 0.5, atol=1e-5)


def test_what_lies_beyond_the_border_is_never_a_maximum():
    x = -1 - np.random.default_rng(0).random((1, 5, 5, 2)).astype(np.float32)
    found = np.asarray(maximum(jnp.asarray(x), 1, 1))
    assert found.shape == x.shape
    for row, column in np.ndindex(5, 5):
        window = x[0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        np.testing.assert_array_equal(found[0, row, column], window.max((0, 1)))


@pytest.mark.slow
def test_taps_are_what_their_names_say():
    found = small().taps(images(3), 8, MOST)
    assert {name: value.shape for name, value in found.items()} == {name: (3, TAPS[name].width) for name in MOST}
    assert all(value.dtype == np.float32 and value.std() > 1e-3 for value in found.values())
    bias = found["logits"] - found["logits_unbiased"]
    np.testing.assert_allclose(bias, np.broadcast_to(params()["fc"]["bias"], (3, CLASSES)), atol=1e-4)
    assert (found["64"] >= 0).all() and (found["2048"] >= 0).all()


def test_an_image_does_not_depend_on_its_neighbours_nor_on_the_batch():
    x = images(9)
    whole = small().taps(x, 8, MOST)
    alone = small().taps(x[8:], 8, MOST)
    for name in MOST:
        np.testing.assert_allclose(whole[name][8:], alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_probabilities_are_those_of_the_logits_without_bias():
    found = small()(images(2), 8)
    logits = small().taps(images(2), 8, MOST)["logits_unbiased"].astype(np.float64)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(found.probabilities / found.probabilities[:, :1], np.exp(logits - logits[:, :1]), 1e-4)
    assert found.features.shape == (2, 2048)


def test_maps_keep_their_places_and_need_no_large_image():
    x = images(2, 24)
    found = small().taps(x, 8, ("map_64", "map_192"))
    assert found["map_64"].shape == (2, 9, 9, 64) and found["map_192"].shape == (2, 2, 2, 192)
    x[:, :, 20:] = 255 - x[:, :, 20:]
    changed = small().taps(x, 8, ("map_64",))["map_64"] != found["map_64"]
    columns = changed.any((0, 1, 3))
    assert not columns[:6].any() and columns[-1]


def test_grey_images_are_repeated_and_others_refused():
    grey = images(2, channels=1)
    found = small().taps(grey, 8, ("map_64",))["map_64"]
    np.testing.assert_array_equal(found, small().taps(np.repeat(grey, 3, -1), 8, ("map_64",))["map_64"])
    for wrong, told in (
        (images(1, channels=4), "alpha"),
        (images(1, channels=2), "2 channels"),
        (images(1) / 255.0, "uint8"),
        (images(1)[0], "N, H, W, C"),
        (images(0), "N, H, W, C"),
    ):
        with pytest.raises(UserError, match=told):
            small().taps(wrong, 8)
    with pytest.raises(UserError, match="'768' needs images of at least 43"):
        small().taps(images(1, 42), 8, ("768",))


@pytest.mark.slow
def test_a_small_image_is_resized_in_one_of_two_ways():
    x = images(2, 20)
    legacy, clean = (Features(resize=way, given=params()).taps(x, 8, ("64",))["64"] for way in ("legacy", "clean"))
    assert legacy.shape == clean.shape == (2, 64)
    assert 0.01 < np.abs(legacy - clean).max() / np.abs(clean).max() < 1


def test_it_is_a_feature_network_that_loads_nothing_before_it_is_used(tmp_path):
    network: FeatureNetwork = Features(weights=tmp_path / "none.pth", resize="clean", tap="768")
    assert (network.name, network.resize) == ("inception", "clean")
    with pytest.raises(UserError, match=r"none\.pth"):
        network(images(1))
    assert len(small().digest) == 16
    other = {**params(), "fc": {**params()["fc"], "bias": params()["fc"]["bias"] + 1}}
    assert small().digest == Features(given=params()).digest != Features(given=other).digest


@pytest.mark.parametrize(
    "options,told",
    [({"resize": "bicubic"}, "legacy, clean, none"), ({"tap": "2084"}, "'2048'"), ({"tap": "map_64"}, "taps")],
)
def test_unknown_options_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        Features(**options)
    with pytest.raises(UserError, match="did you mean 'logits'"):
        Inception().apply({"params": params()}, jnp.zeros((1, 75, 75, 3)), ("logit",))
