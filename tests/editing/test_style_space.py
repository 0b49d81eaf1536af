"""Embedding and editing in the spaces of a style-based generator, here one that has not learned."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_methods import tiny_config

from jaxgen.editing.style_space import __main__ as command
from jaxgen.editing.style_space import directions, edits
from jaxgen.editing.style_space.codes import Directions, read_codes, write_directions
from jaxgen.editing.style_space.embedding import Embedding, embed, on_sphere, whiteness
from jaxgen.editing.style_space.model import StyleModel
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.metrics.networks.filters import Filters
from jaxgen.metrics.networks.perceptual_loss import PerceptualLoss, filtered, open_perceptual
from jaxgen.networks.stylegan.style2 import Style2Generator
from jaxgen.runs.setup import make_method

SHAPE = (4, 4, 3)
LOSS = PerceptualLoss({}, Filters((1.0,)))
KEYS = jax.random.split(jax.random.key(5), 2)
search = jax.jit(embed, static_argnames="settings")


@functools.cache
def model():
    """A generator of two layers, whose noise is seen."""
    network = Style2Generator(SHAPE, z_dim=4, w_dim=4, depth=1, channels=6, max_channels=6, mapping_rate=1.0)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 4)))
    variables["params"]["synthesis_network"]["layer_0"]["noise_strength"] = jnp.float32(0.1)
    return StyleModel(variables, None, network)


@functools.cache
def pictures():
    """The images of two random w, and the w."""
    w = jax.jit(lambda model: model.mapping(model.draw_z(KEYS)))(model())
    return jax.jit(lambda model, w: 0.3 * model.paint(model.broadcast(w), KEYS))(model(), w), w


def scaled():
    """The generator at a third of its contrast, so that no image is clipped."""
    variables = jax.tree.map(lambda x: x, model().variables)
    image = variables["params"]["synthesis_network"]["image_0"]
    image["kernel"] = 0.3 * image["kernel"]
    return model().replace(variables=variables)


def psnr(a, b):
    return 10 * np.log10(4 / np.square(np.asarray(a) - np.asarray(b)).mean((1, 2, 3)))


@functools.cache
def found(space, noise="fixed", steps=200):
    settings = Embedding(space, steps=steps, noise=noise, samples=64, exploration=0.0 if space == "z" else 0.05)
    return search(scaled(), pictures()[0], KEYS, LOSS, settings=settings)


def test_the_image_of_a_style_is_found_again_from_the_mean_of_w():
    images, w = pictures()
    embedded = found("w")
    before, after = (np.asarray(embedded.history["pixels"][i]) for i in (0, -1))
    assert (after < 1e-3 * before).all() and (psnr(embedded.images, images) > 30).all()
    np.testing.assert_allclose(embedded.styles[:, 0], embedded.styles[:, 1])  # one style for all layers
    np.testing.assert_allclose(embedded.noise[0], scaled().noise_maps(KEYS)[0], rtol=1e-6)  # it was not asked for
    again = scaled().paint(embedded.styles, embedded.noise)
    np.testing.assert_allclose(jnp.clip(again, -1, 1), embedded.images, atol=1e-6)


@pytest.mark.slow
def test_z_stays_on_the_sphere_and_a_style_for_each_layer_is_at_least_as_good():
    images, _ = pictures()
    of_z, of_layers = found("z"), found("w_plus", "learned")
    np.testing.assert_allclose(np.linalg.norm(of_z.z, axis=1), 2.0, rtol=1e-5)
    np.testing.assert_allclose(scaled().mapping(of_z.z), of_z.styles[:, 1], atol=1e-5)
    assert (psnr(of_z.images, images) > 20).all() and of_layers.z is None
    assert (psnr(of_layers.images, images) > 30).all()
    assert np.abs(of_layers.styles[:, 0] - of_layers.styles[:, 1]).max() > 1e-3
    maps = np.asarray(of_layers.noise[0])
    np.testing.assert_allclose(maps.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(maps.std((1, 2, 3)), 1, atol=1e-4)
    assert (whiteness(of_layers.noise) < 1e-3).all() and (whiteness(scaled().noise_maps(KEYS)) > 1e-3).all()


@pytest.mark.slow
def test_white_noise_is_near_0_at_every_size_and_what_repeats_is_not():
    white = jax.random.normal(jax.random.key(0), (1, 32, 32, 1))
    stripes = jnp.broadcast_to(jnp.sign(jnp.arange(32) % 16 - 7.5)[:, None, None], (1, 32, 32, 1))
    blocks = jnp.repeat(jnp.repeat(jax.random.normal(jax.random.key(1), (1, 4, 4, 1)), 8, 1), 8, 2)
    assert whiteness((white,)) < 0.3 < whiteness((stripes,)) and whiteness((blocks,)) > 1
    assert float(jnp.linalg.norm(on_sphere(jnp.ones((1, 9))))) == pytest.approx(3)


@pytest.mark.nightly
def test_the_loss_sees_what_the_feature_network_sees():
    levels = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), np.uint8)
    maps = filtered(jnp.float32(levels) / 127.5 - 1, (2.0,))  # which reaches beyond both borders
    np.testing.assert_allclose(maps, Filters((2.0,)).maps(levels), atol=1e-5)
    digits = open_perceptual("digits", (8, 8, 1))
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1), minval=-1)
    assert np.abs(digits(images, images)).max() == 0 < float(digits(images, images[::-1])[0])


def test_unknown_words_and_other_images_are_refused():
    for words, sentence in (
        (dict(space="W+"), "no latent space 'W[+]'"), (dict(noise="no"), "noise='no'"),
        (dict(steps=0), "at least 1 step"),
        (dict(ramp_up=2.0), "ramp_up=2"), (dict(pixels=0.0, perceptual=0.0), "both 0"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            Embedding(**words)
    with pytest.raises(UserError, match="resize"):
        embed(model(), jnp.zeros((1, 8, 8, 3)), KEYS[:1], LOSS)
    for words, sentence in (
        (("lpips",), "did you mean 'lpips_"), (("classifier",), "needs its file"),
        (("filters", "x"), "takes no weights"),
        (("digits",), "of shape"), (("lpips_vgg",), "too small for LPIPS"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            open_perceptual(words[0], SHAPE, *words[1:])
    other = make_method(tiny_config("Plain"))
    with pytest.raises(UserError, match="has no space of styles"):
        StyleModel.of(other, Model({}, {}))


def test_edits_keep_their_ends_and_their_layers():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 6, 4)).astype(np.float32)
    walk = edits.morph(a, b, 5)
    np.testing.assert_allclose(walk[::2], [a, (a + b) / 2, b], atol=1e-6)
    np.testing.assert_array_equal(edits.mix(a, b, 2), np.concatenate([a[:, :2], b[:, 2:]], 1))
    np.testing.assert_allclose(edits.transfer(a, a, b), b, atol=1e-6)
    moved = edits.move(a, b[0, 0], jnp.asarray([0.0, 2.0]), (1, 3))
    np.testing.assert_array_equal(moved[0], a)
    wanted = np.where(np.isin(np.arange(6), [1, 2])[:, None], 2 * b[0, 0], 0)
    np.testing.assert_allclose(moved[1] - a, np.broadcast_to(wanted, a.shape), atol=1e-6)


def test_directions_are_those_that_the_styles_were_made_with():
    chance = np.random.default_rng(0)
    turn = np.linalg.qr(chance.normal(size=(6, 6)))[0]
    w = chance.normal(size=(2000, 6)) * [5, 3, 2, 0.3, 0.3, 0.3] @ turn + 1
    found = directions.principal(w, 2)
    assert (np.abs((found.vectors * turn[:2]).sum(1)) > 0.99).all() and np.allclose(found.deviations, [5, 3], rtol=0.1)
    attribute = turn[2]
    side = directions.boundary(w, (w - 1) @ attribute > 1.5)
    assert side.normal @ attribute > 0.95 and side.accuracy > 0.95 and side.deviation == pytest.approx(2, rel=0.1)
    rest = directions.without(side.normal + turn[0], turn[:1])
    assert abs(rest @ turn[0]) < 1e-6 and rest @ attribute > 0.95
    with pytest.raises(UserError, match="at least 10 must"):
        directions.boundary(w, np.arange(2000) < 9)
    with pytest.raises(UserError, match="have 1 to 6 components, not 7"):
        directions.principal(w, 7)
    with pytest.raises(UserError, match="in the span"):
        directions.without(turn[0], turn[:2])


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Runs a use on the generator above, in the folder `out`; returns the status."""
    monkeypatch.setattr(command, "open_run", lambda *words: scaled())
    return lambda use, *words: command.main([use, "--workdir=unread", f"--out={tmp_path / 'out'}", *words])


@pytest.mark.slow
def test_pictures_are_embedded_and_their_codes_are_edited(use, tmp_path, caplog):
    caplog.set_level("INFO", logger="jaxgen")
    chance, out = np.random.default_rng(0), tmp_path / "out"
    for name, shape in (("a", (4, 4, 3)), ("b", (9, 12, 3))):
        Image.fromarray(chance.integers(0, 256, shape, np.uint8)).save(tmp_path / f"{name}.png")
    given = [f"--image={tmp_path / name}.png" for name in "ab"]
    assert use("embed", *given, "--space=w_plus", "--steps=20", "--noise=fixed") == 0
    assert "cropped in the centre and resized to 4x4" in caplog.text  # b is not square, and of another size
    codes = read_codes(out / "codes_w_plus.npz", scaled())
    assert codes.names == ("a", "b") and codes.styles.shape == (2, 2, 4) and codes.noise[0].shape == (2, 4, 4, 1)
    of = f"--codes={out / 'codes_w_plus.npz'}"
    assert use("morph", of, "--frames=3") == 0 and use("mix", of) == 0
    with Image.open(out / "images/a_with_a.png") as same, Image.open(out / "images/a_w_plus.png") as image:
        np.testing.assert_allclose(np.asarray(same, int), np.asarray(image, int), atol=1)
    assert use("directions", "--num=40", "--components=2") == 0
    assert use("edit", of, f"--directions={out / 'directions.npz'}", "--direction=component_2", "--frames=3") == 0
    assert use("edit", of, "--before=a", "--after=b") == 0
    with Image.open(out / "images/a_a_to_b.png") as moved, Image.open(out / "images/b_w_plus.png") as image:
        assert np.abs(np.asarray(moved, int) - np.asarray(image, int)).max() < 128  # b's code with a's noise
    panels = {"embed", "morph", "mix", "directions", "edit"}
    assert {f"panel_{name}.png" for name in panels} <= {path.name for path in out.iterdir()}


def test_bad_words_are_answered_before_anything_is_written(use, tmp_path, capsys):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "other.npz", names=np.array(["a"]), styles=np.zeros((1, 3, 4), np.float32))
    write_directions(tmp_path / "wide.npz", Directions(("x",), np.zeros((1, 9)), np.zeros(1)))
    image, other = f"--image={tmp_path / 'a.png'}", f"--codes={tmp_path / 'other.npz'}"
    for words, sentence in (
        (("embed", image, "--space=y"), "no latent space 'y'"), (("embed", image, "--recipe=x"), "--recipe=x"),
        (("embed", f"--image={tmp_path / 'none.png'}"), "none.png"),
        (("embed", image, "--network=x"), "no network 'x'"),
        (("mix", other), "styles [1, 3, 4]"), (("mix", f"--codes={tmp_path / 'wide.npz'}"), "no array 'styles'"),
        (("edit", other), "An edit follows"), (("edit", other, "--before=a", "--after=b", "--layers=2"), "such as 0:4"),
    ):  # fmt: skip
        assert use(*words) == 2
        told = capsys.readouterr().err
        assert sentence in told and told.count("\n") == 1, told
    assert not (tmp_path / "out").exists()
