"""What a batch gains from its images, beside Pillow's and SciPy's results and by its properties."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.data import corruptions
from jaxgen.data.corruptions import corrupt
from jaxgen.data.transforms import prepare
from jaxgen.errors import UserError

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 6)


@pytest.fixture(scope="module")
def levels():
    """A smooth scene with an edge, uint8 [48, 64, 3]."""
    y, x = np.mgrid[:48, :64]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 13)], axis=-1)
    scene = 127 + 90 * waves + 30 * (x > 40)[..., None]
    return np.clip(scene, 0, 255).astype(np.uint8)


def floats(levels):
    return jnp.asarray(levels, jnp.float32) / 127.5 - 1


def decibels(a, b):
    return 10 * np.log10(255**2 / np.square(a - b).mean())


def to_levels(picture):
    return (np.asarray(picture) + 1) * 127.5


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "area"])
def test_a_low_resolution_is_that_of_pillow(levels, name):
    filter = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR, "area": Image.BOX}[name]
    found = jax.jit(corruptions.LowResolution(4, name))(KEY, floats(levels)).picture
    expected = np.asarray(Image.fromarray(levels).resize((16, 12), filter), np.float32)
    assert np.abs(to_levels(found) - expected).max() < 1.01  # Pillow rounds to whole levels, twice


def test_grey_is_that_of_pillow(levels):
    found = corruptions.Grey()(KEY, floats(levels)).picture
    expected = np.asarray(Image.fromarray(levels).convert("L"), np.float32)
    assert found.shape == (48, 64, 1) and np.abs(to_levels(found)[..., 0] - expected).max() < 1.01


def test_edges_are_the_length_of_sobels_gradient(levels):
    grey = np.asarray(corruptions.luminance(floats(levels)))[..., 0].astype(np.float64) / 2
    rows, columns = (scipy.ndimage.sobel(grey, axis, mode="nearest") for axis in (0, 1))
    expected = np.hypot(rows, columns) / 4
    found = corruptions.Edges(0.0)(KEY, floats(levels)).picture[..., 0]
    np.testing.assert_allclose((found + 1) / 2, np.clip(expected, 0, 1), atol=1e-5)
    binary = np.asarray(corruptions.Edges(0.05)(KEY, floats(levels)).picture[..., 0])
    far = np.abs(expected - 0.05) > 1e-4
    np.testing.assert_array_equal((binary > 0)[far], (expected >= 0.05)[far])


def test_brightness_is_light_and_dark_whatever_the_colours_are():
    """A pattern of two colours gives the same hint for any two of other luminance, and that of black and white."""
    pattern = np.random.default_rng(0).random((8, 8)) < 0.5
    black_and_white = floats(np.where(pattern[..., None], 255, 0).astype(np.uint8))
    wanted = np.where(pattern, 1.0, -1.0)
    make = corruptions.Brightness()
    np.testing.assert_array_equal(make(KEY, black_and_white).picture[..., 0], wanted)
    for light, dark in (((240, 225, 40), (130, 40, 170)), ((50, 210, 220), (220, 30, 30))):
        image = floats(np.where(pattern[..., None], light, dark).astype(np.uint8))
        np.testing.assert_array_equal(make(KEY, image).picture[..., 0], wanted)
        np.testing.assert_array_equal(make(KEY, -image).picture[..., 0], -wanted)
    alike = floats(np.where(pattern[..., None], (128, 128, 128), (118, 138, 128)).astype(np.uint8))
    assert not make(KEY, alike).picture.any() and corruptions.Brightness(0.0)(KEY, alike).picture.any()


@pytest.mark.parametrize("quality", [5, 20, 50, 90])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_the_reference_library(levels, quality, channels):
    pixels = levels if channels == 3 else levels[..., 0]
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(stored), np.float32).reshape(48, 64, channels)
    image = floats(pixels).reshape(48, 64, channels)
    found = to_levels(jax.jit(corruptions.JPEG((quality, quality)))(KEY, image).picture)
    own_loss = decibels(expected, pixels.reshape(48, 64, channels).astype(np.float32))
    assert decibels(found, expected) > max(40, own_loss + 5)


def test_jpeg_takes_images_of_any_size_and_draws_its_quality():
    image = jax.random.uniform(KEY, (13, 21, 3), minval=-1, maxval=1)
    draws = jax.vmap(corruptions.JPEG((5, 60)), (0, None))(KEYS, image).picture
    assert draws.shape == (6, 13, 21, 3)
    assert len({np.asarray(each).tobytes() for each in draws}) > 3


HOLES = {
    "centre": corruptions.Hole("centre", 0.5),
    "half": corruptions.Hole("half"),
    "free_form": corruptions.Hole("free_form"),
    "box": corruptions.Hole("box", 0.6),
    "one": corruptions.Uncrop("one"),
    "all": corruptions.Uncrop("all", 0.5),
}
SHARES = {"centre": 0.25, "half": 0.5, "one": 0.5, "all": 0.75}


@pytest.mark.parametrize("name", sorted(HOLES))
def test_what_is_known_is_kept_and_what_is_not_is_mid_grey(levels, name):
    pictures, masks = jax.vmap(HOLES[name], (0, None))(KEYS, floats(levels))
    assert masks.shape == (6, 48, 64) and masks.dtype == jnp.int32 and set(np.unique(masks)) == {0, 1}
    for picture, mask in zip(np.asarray(pictures), np.asarray(masks), strict=True):
        np.testing.assert_array_equal(picture[mask == 0], np.asarray(floats(levels))[mask == 0])
        assert (picture[mask == 1] == 0).all()
        assert 0.01 < mask.mean() < 0.9 if name in ("free_form", "box") else mask.mean() == SHARES[name]
    if name in ("half", "one", "free_form", "box"):
        assert len({mask.tobytes() for mask in np.asarray(masks)}) > 1


def test_a_box_lies_within_the_image_and_has_sides_of_half_the_share_to_the_share():
    keys = jax.random.split(KEY, 40)
    image = jnp.zeros((40, 40, 1))
    masks = np.asarray(jax.vmap(lambda key: corruptions.Hole("box", 0.6)(key, image).mask)(keys))
    sides = np.stack([masks.any(2).sum(1), masks.any(1).sum(1)], axis=1)
    np.testing.assert_array_equal(masks.sum((1, 2)), sides.prod(1))  # a rectangle
    assert sides.min() >= 11 and sides.max() <= 25 and np.ptp(sides) > 5
    assert masks.any(0)[8:-8, 8:-8].all() and masks.any(0).mean() > 0.8  # anywhere, and in corners seldom


def test_one_of_several_tasks_is_drawn_for_each_image(levels):
    tasks = section(colour="grey", hole=section(name="hole", form="centre"), small=section(name="low_resolution"))
    several = build(section(name="one_of", tasks=tasks), "corruption", "config.data.corruptions.condition")
    pictures, masks = jax.jit(jax.vmap(several, (0, None)))(jax.random.split(KEY, 30), floats(levels))
    assert pictures.shape == (30, 48, 64, 3) and masks.shape == (30, 48, 64)
    assert len({np.asarray(each).tobytes() for each in pictures}) == 3
    whole = np.asarray(masks).mean((1, 2)) == 1
    assert 0 < whole.sum() < 30 and (np.asarray(masks)[~whole].mean((1, 2)) == 0.25).all()


def test_only_one_of_the_tasks_gives_what_the_mixture_gives_where_it_draws_it(levels):
    tasks = {"hole": corruptions.Hole("free_form"), "uncrop": corruptions.Uncrop("all")}
    keys, image = jax.random.split(KEY, 12), floats(levels)[:32, :32]

    def masks(key):
        return [corruptions.OneOf(tasks, only)(key, image).mask for only in ("", "hole", "uncrop")]

    mixed, holes, uncrops = map(np.asarray, jax.jit(jax.vmap(masks))(keys))
    drawn = np.array([np.array_equal(m, h) for m, h in zip(mixed, holes, strict=True)])
    assert 0 < drawn.sum() < 12
    np.testing.assert_array_equal(mixed[~drawn], uncrops[~drawn])


def test_a_mask_of_the_data_and_one_of_a_corruption_are_not_mistaken_for_each_other():
    batch = {"image": jnp.zeros((2, 8, 8, 3)), "mask": jnp.ones((2, 8, 8), jnp.int32)}
    with pytest.raises(UserError, match="config.data.rename.object_mask='mask'"):
        prepare(batch, KEY, corruptions={"condition": corruptions.Hole("centre")})
    prepare(batch, KEY, corruptions={"condition": corruptions.LowResolution(2)})  # which makes no mask


@pytest.mark.slow
def test_an_image_s_entries_depend_on_its_own_key_alone(levels):
    images = jnp.stack([floats(levels)[:, i : i + 32] for i in range(6)])
    made = {"condition": corruptions.Hole("free_form"), "hint": corruptions.Edges()}
    all_of_them = corrupt({"image": images}, KEYS, made)
    some = corrupt({"image": images[2:4]}, KEYS[2:4], made)
    alone = corrupt({"image": images}, KEYS, {"condition": made["condition"]})
    for name in ("condition", "mask", "hint"):
        np.testing.assert_array_equal(some[name], all_of_them[name][2:4])
    np.testing.assert_array_equal(alone["mask"], all_of_them["mask"])


def test_what_a_user_gives_is_kept(levels):
    given = jnp.ones((6, 4, 4, 3))
    made = {"condition": corruptions.LowResolution(4)}
    images = jnp.stack([floats(levels)] * 6)
    np.testing.assert_array_equal(corrupt({"image": images, "condition": given}, KEYS, made)["condition"], given)
    assert corrupt({"condition": given}, KEYS, made).keys() == {"condition"}
    with pytest.raises(UserError, match="makes 'condition' from images"):
        corrupt({"label": jnp.zeros(6)}, KEYS, made)
    with pytest.raises(UserError, match="Two of config.data.corruptions"):
        corrupt({"image": images}, KEYS, {"a": HOLES["half"], "b": HOLES["centre"]})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: corruptions.LowResolution(1), "factor of 2"),
        (lambda: corruptions.LowResolution(5)(KEY, jnp.zeros((32, 32, 3))), "not divided by low_resolution's factor 5"),
        (lambda: corruptions.JPEG((0, 50)), "1 to 100"),
        (lambda: corruptions.JPEG()(KEY, jnp.zeros((8, 8, 4))), "1 or 3 channels"),
        (lambda: corruptions.Hole(share=1.0), "share in"),
        (lambda: corruptions.Uncrop(known=0.0), "known share"),
        (lambda: corruptions.Edges(-1.0), "must not be negative"),
        (lambda: corruptions.Brightness(1.0), r"in \[0, 1\)"),
        (lambda: corruptions.Brightness()(KEY, jnp.zeros((8, 8, 4))), "1 or 3 channels, not 4"),
        (lambda: corruptions.Grey()(KEY, jnp.zeros((8, 8, 1))), "3 channels"),
        (lambda: corruptions.OneOf({}), "needs tasks"),
        (lambda: corruptions.OneOf({"hole": corruptions.Hole()}, "hoel"), "only='hoel'; did you mean 'hole'"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, told):
    with pytest.raises(UserError, match=told):
        make()
