"""The seven uses of a generator of one picture, here one that has not learned: what is kept, and what is written."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen.adversarial.pyramid import resized
from jaxgen.editing.single_image import commands, uses
from jaxgen.editing.single_image.__main__ import main
from jaxgen.editing.single_image.commands import SinglePicture
from jaxgen.methods.base import Model
from jaxgen.methods.gans.singan import SinGAN
from jaxgen.networks.gans.singan import SinGANDiscriminator, SinGANGenerator

WIDTHS = dict(width=3, least_width=3, layers=2)
METHOD = SinGAN(SinGANGenerator(**WIDTHS), SinGANDiscriminator(**WIDTHS), (12, 16, 3), scales=2, coarsest=7)
WORDS = ["--workdir=unread", "--seed=3"]


@functools.cache
def model():
    picture = resized(jax.random.uniform(jax.random.key(1), (1, 3, 4, 3), minval=-1, maxval=1), (12, 16))

    @jax.jit
    def started():
        params, memory = METHOD.init(jax.random.key(0), {"image": picture}, 0, {}, {}, {})
        return METHOD.init(jax.random.key(1), {"image": picture}, 1, {}, params, memory)

    params, memory = started()
    return Model(params, {**memory, "amplitudes": jnp.asarray([1.0, 0.5])}, 1)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs a use on the model above, in the folder `out`; returns the status."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), np.uint8)

    def opened(workdir, out, seed, trust):
        return SinglePicture(METHOD, model(), picture, tmp_path / "out", seed)

    monkeypatch.setattr(commands, "open_run", opened)
    return lambda use, *words: main([use, f"--out={tmp_path / 'out'}", *WORDS, *words])


def save(path, *shape):
    Image.fromarray(np.random.default_rng(7).integers(0, 256, shape, np.uint8)).save(path)
    return path


def size_of(path):
    with Image.open(path) as image:
        return image.size[::-1]


def test_new_images_have_any_size(command, tmp_path):
    assert command("samples", "--num=2", "--size=9x30") == 0
    assert size_of(tmp_path / "out/images/sample_2.png") == (9, 30)
    assert (tmp_path / "out/panel_samples.png").exists()


def test_the_picture_is_enlarged_by_the_factor_in_steps_near_the_ratio_of_the_scales(command, tmp_path):
    assert uses.steps_of(METHOD, 3.0) == round(np.log(3) / -np.log(METHOD.ratio)) == 2
    assert command("super_resolution", "--factor=3") == 0
    assert size_of(tmp_path / "out/images/picture_3x.png") == (36, 48)


def test_a_painting_keeps_its_aspect_and_is_drawn_from_each_scale(command, tmp_path):
    assert command("paint", f"--image={save(tmp_path / 'paint.png', 20, 10, 3)}") == 0
    assert size_of(tmp_path / "out/images/paint_scale_1.png") == (16, 8)  # its longer side is that of the model
    assert json.loads((tmp_path / "out/captions.json").read_text()) == {"paint": commands.CAPTIONS["paint"]}


def test_injection_sees_nothing_that_the_scale_below_does_not_show():
    """Two images that differ in single pixels alone are the same to it, and two layouts are not."""
    fine = np.float32(np.indices((24, 32)).sum(0) % 2 * 2 - 1)[None, :, :, None]
    layout = np.broadcast_to(np.linspace(-0.4, 0.4, 32, dtype=np.float32)[None, None, :, None], (1, 24, 32, 3))
    keys = jax.random.split(jax.random.key(0), 1)
    draw = jax.jit(lambda image: uses.inject(METHOD, model(), keys, image, (12, 16), 1))
    one, two, other = (draw(image) for image in (layout + 0.2 * fine, layout - 0.2 * fine, -layout))
    assert np.abs(one - two).max() < 0.1 < np.abs(one - other).max()


def test_an_edit_keeps_the_image_far_from_the_mask(command, tmp_path):
    image = save(tmp_path / "moved.png", 12, 16, 3)
    mask = np.zeros((12, 16), np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = [f"--image={image}", f"--mask={tmp_path / 'mask.png'}", "--scale=1", "--radius=1"]
    for use in ("harmonise", "edit"):
        assert command(use, *words) == 0
        with Image.open(tmp_path / "out/images/moved_scale_1.png") as drawn, Image.open(image) as given:
            change = np.abs(np.asarray(drawn, int) - np.asarray(given, int)).max(axis=(0, 2))
        assert change[:4].min() > 8 and change[7:].max() == 0  # the mask, once and twice again its radius


@pytest.mark.parametrize("radius", [0, 2])
def test_a_mask_is_whole_within_its_radius_and_nothing_beyond_three(radius):
    mask = np.zeros((1, 1, 30, 1), np.float32)
    mask[:, :, :10] = 1
    share = np.asarray(uses.soft(jnp.asarray(mask), radius))[0, 0, :, 0]
    assert (share[: 10 + radius] == 1).all() and (share[10 + 3 * radius :] == 0).all()
    assert (np.diff(share) <= 1e-6).all()


def test_a_walk_begins_at_the_picture_and_moves_evenly(command, tmp_path):
    assert command("animation", "--frames=3", "--start=1") == 0
    with Image.open(tmp_path / "out/animation.gif") as gif:
        assert gif.n_frames == 3
    own = np.random.default_rng(2).normal(size=(1, 5, 6, 1)).astype(np.float32)
    walk = jax.jit(lambda alpha, beta: uses.walk(jax.random.key(1), own, 60, alpha, beta))
    steady, back = (np.asarray(walk(alpha, 0.9)) for alpha in (0.1, 1.0))
    np.testing.assert_allclose(back[1:], np.broadcast_to(own, back[1:].shape), atol=1e-6)  # alpha 1 goes back at once
    assert np.abs(steady[0] - own).mean() < 0.2 < np.abs(steady[-1] - own).mean()
    moves = np.diff(steady, axis=0).reshape(59, -1)
    along = [np.corrcoef(a, b)[0, 1] for a, b in zip(moves, moves[1:], strict=False)]
    assert np.mean(along) > 0.5  # a step goes on as the one before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["paint"], "--image"),
        (["samples", "--size=0x4"], "--size=0x4"),
        (["samples", "--start=2"], "config.sampler.start=2"),
        (["samples", "--size=9x9", "--start=1"], "config.sampler.size"),
        (["samples", "--factor=2"], "--factor"),
        (["samples", "--size=90000x90000"], "--size"),
        (["super_resolution", "--factor=1"], "--factor=1"),
        (["animation", "--alpha=2"], "--alpha=2"),
        (["animation", "--start=2"], "--start=2"),
        (["paint", "--image={image}", "--scale=0"], "--scale=0"),
        (["paint", "--image={image}", "--scale=2"], "--scale=2"),
        (["paint", "--image={image}", "--image={twin}"], "one name"),
        (["edit", "--image={image}", "--mask={small}", "--scale=1"], "the mask of image 0"),
        (["edit", "--image={image}", "--mask={black}", "--scale=1"], "without white"),
        (["paints"], "paints"),
    ],
)
def test_words_that_make_no_sense_are_refused_and_nothing_is_written(words, named, command, tmp_path, capsys):
    (tmp_path / "again").mkdir()
    paths = {"image": save(tmp_path / "a.png", 12, 16, 3), "twin": save(tmp_path / "again/a.png", 12, 16, 3)}
    paths["small"] = save(tmp_path / "small.png", 6, 8)
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(tmp_path / "black.png")
    paths["black"] = tmp_path / "black.png"
    assert command(*(word.format(**paths) for word in words)) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
