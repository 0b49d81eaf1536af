"""LPIPS of uint8 images over all devices, and the diversity within groups."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.networks.lpips import Lpips
from jaxgen.metrics.pairs.lpips import intra_set_diversity, nearest_reference
from jaxgen.networks.pretrained.lpips import LPIPS, TRUNKS, Layer

SIZE = 33
NETWORK = LPIPS("tiny")


@pytest.fixture(scope="module")
def lpips():
    """Of a small trunk with random weights."""
    x = np.zeros((1, SIZE, SIZE, 3), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNKS, "tiny", (Layer(8, 5, stride=2, padding=2, tap=True), Layer(8, pool=3, tap=True)))
        yield Lpips("tiny", params=jax.jit(NETWORK.init)(jax.random.key(0), x, x)["params"])


def images(count, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, channels), np.uint8)


def test_distances_are_the_networks_at_minus_one_to_one(lpips):
    a, b = images(9), images(9, 1)
    found = lpips(a, b, batch=8)  # the last batch has one pair
    floats = [x.astype(np.float32) / 127.5 - 1 for x in (a, b)]
    wanted = jax.jit(NETWORK.apply)({"params": lpips._params}, *floats)
    assert found.shape == (9,) and found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_grey_images_are_repeated(lpips):
    a, b = images(2, channels=1), images(2, 1, channels=1)
    np.testing.assert_array_equal(lpips(a, b, 8), lpips(np.repeat(a, 3, -1), np.repeat(b, 3, -1), 8))


def test_the_matrix_holds_every_pair(lpips):
    a, b = images(5), images(3, 1)
    found = lpips.matrix(a, b, batch=8)
    pairs = np.indices((5, 3)).reshape(2, -1)
    np.testing.assert_allclose(found.reshape(-1), lpips(a[pairs[0]], b[pairs[1]], 8), rtol=1e-4)


def test_an_image_goes_to_the_reference_it_was_made_of(lpips):
    references = images(4)
    groups = np.array([2, 0, 3, 3, 1, 0])
    noisy = references[groups].astype(int) + np.random.default_rng(1).integers(-8, 9, (6, SIZE, SIZE, 3))
    found = nearest_reference(lpips, noisy.clip(0, 255).astype(np.uint8), references, batch=8)
    np.testing.assert_array_equal(found, groups)


def test_the_digest_is_of_the_weights(lpips):
    same = Lpips("tiny", params=jax.tree.map(np.array, lpips._params))
    other = Lpips("tiny", params={**lpips._params, "head_0": lpips._params["head_0"] + 1})
    assert len(lpips.digest) == 16 and lpips.digest == same.digest != other.digest
    assert lpips.name == "lpips_tiny"


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (images(2), images(3), "as many of one shape"),
        (images(2, channels=4), images(2, channels=4), "grey or RGB"),
        (images(2) / 255.0, images(2) / 255.0, "uint8"),
        (images(2)[:, :4], images(2)[:, :4], "4x33 are too small"),
    ],
)
def test_other_images_are_refused(lpips, a, b, says):
    with pytest.raises(UserError, match=says):
        lpips(a, b)


def test_a_folder_without_the_files_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="alexnet-owt-7be5be79.pth"):
        Lpips(weights=str(tmp_path))
    with pytest.raises(UserError, match="did you mean 'vgg'"):
        Lpips("vgg16", str(tmp_path))


def levels(values):
    """Images of one grey each."""
    return np.asarray(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)


def apart(a, b):
    """A distance with simple values: the difference of the first pixels."""
    return np.abs(a[:, 0, 0, 0].astype(float) - b[:, 0, 0, 0])


def test_diversity_is_the_mean_over_groups_of_the_mean_over_pairs():
    values, groups = [0, 10, 40, 7, 9, 50], [3, 3, 3, 1, 1, 2]
    found = intra_set_diversity(apart, levels(values), np.array(groups))
    # group 1: 2. group 3: 10, 30, 40. group 2 has one image
    assert found.groups == (1, 3) and found.sizes == (2, 3) and found.pairs == (1, 3)
    np.testing.assert_allclose(found.means, [2, 80 / 3])
    assert found.mean == pytest.approx((2 + 80 / 3) / 2) and found.std == pytest.approx((80 / 3 - 2) / 2)
    assert (found.images, found.left_out, found.seed) == (6, 1, 0)


def test_a_collapsed_generator_has_no_diversity(lpips):
    copies = np.repeat(images(2), 4, 0)
    found = intra_set_diversity(lpips, copies, np.repeat([0, 1], 4), pairs=6)
    assert found.mean < 1e-12
    varied = intra_set_diversity(lpips, images(8), np.repeat([0, 1], 4), pairs=6)
    assert varied.mean > 0.001


def test_drawn_pairs_are_different_images_of_one_group_and_never_twice():
    seen = []

    def distance(a, b):
        seen.extend(zip(a[:, 0, 0, 0].tolist(), b[:, 0, 0, 0].tolist(), strict=True))
        return np.zeros(len(a))

    groups = np.arange(100) % 3
    found = intra_set_diversity(distance, levels(np.arange(100)), groups, pairs=50, seed=1)
    assert found.pairs == (50, 50, 50) and len(seen) == 150 == len({frozenset(pair) for pair in seen})
    assert all(a != b and a % 3 == b % 3 for a, b in seen)
    counts = np.bincount(np.ravel(seen), minlength=100)
    assert counts.max() <= 12  # 3 are expected of each image


def test_a_draw_estimates_the_mean_over_all_pairs():
    values = np.random.default_rng(0).integers(0, 256, 200)
    groups = np.zeros(200, int)
    everything = intra_set_diversity(apart, levels(values), groups, pairs=10**6)
    assert everything.pairs == (200 * 199 // 2,)
    some = [intra_set_diversity(apart, levels(values), groups, 400, seed).mean for seed in range(30)]
    spread = np.std(some)
    assert abs(np.mean(some) - everything.mean) < 4 * spread / 30**0.5
    assert spread > 0.1  # other seeds draw other pairs
    assert intra_set_diversity(apart, levels(values), groups, 400, 3).mean == some[3]


def test_a_groups_draw_is_its_own():
    values = np.random.default_rng(0).integers(0, 256, 120)
    groups = np.arange(120) % 2
    both = intra_set_diversity(apart, levels(values), groups, 20)
    alone = intra_set_diversity(apart, levels(values[groups == 1]), groups[groups == 1], 20)
    assert both.means[1] == alone.means[0]


@pytest.mark.parametrize(
    ("groups", "pairs", "says"),
    [([0, 1, 2], 5, "None of the 3 groups"), ([0, 0], 5, "a group for each"), ([0, 0, 0], 0, "at least one pair")],
)
def test_no_diversity_is_one_sentence(groups, pairs, says):
    with pytest.raises(UserError, match=says):
        intra_set_diversity(apart, levels([1, 2, 3]), np.array(groups), pairs)


def test_the_distance_of_a_region_is_of_that_region(lpips):
    a = images(3)
    b = a.copy()
    b[:, :, 16:] = images(3, 1)[:, :, 16:]
    everything = np.ones((3, SIZE, SIZE), bool)
    np.testing.assert_allclose(lpips.inside(a, b, everything, 8), lpips(a, b, 8), rtol=1e-5)
    columns = np.broadcast_to(np.arange(SIZE), everything.shape)
    left, right = (lpips.inside(a, b, part, 8) for part in (columns < 4, columns > 28))
    assert (left < 1e-6).all() and (right > lpips(a, b, 8)).all()
    assert np.isnan(lpips.inside(a, b, ~everything, 8)).all()
