"""The demo without a browser: which controls a model has, what a request may say, and that its pictures are drawn."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.util
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny_methods import ddpm_config, gan_config, tiny_config

from jaxgen.command import modes
from jaxgen.command.demo import make_studio
from jaxgen.command.flags import Flags
from jaxgen.config import section, to_json
from jaxgen.config.files import load_config
from jaxgen.demo.controls import Controls, Number, Picture, chosen_config, controls_of, sampler_controls
from jaxgen.demo.request import read_place, read_request
from jaxgen.demo.watch import pictured, watchable, watched
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import X0
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.samplers.ddpm import DDPM
from jaxgen.diffusion.samplers.dpmpp import DPMpp2M
from jaxgen.diffusion.samplers.ode import ODE
from jaxgen.diffusion.samplers.runge_kutta import Heun
from jaxgen.diffusion.schedules.continuous import VP
from jaxgen.errors import UserError
from jaxgen.files.carried import INDEX, carried_texts
from jaxgen.files.pictures import read_picture
from jaxgen.methods.base import Model
from jaxgen.methods.gans.stylegan2 import Truncation
from jaxgen.methods.translation.cyclegan import Direction
from jaxgen.report.images import save_png
from jaxgen.runs.setup import make_method
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel


def classes_config():
    config = ddpm_config(num_classes=10)
    config.method.label_dropout = 0.1
    config.data.num_classes = 10
    config.sampler.guidance_scale = 2.0
    return config


def untrained(config, initial: bool = False) -> TrainedModel:
    """A model without weights, or with those of its first step."""
    generator = Generator(make_method(config), config)
    batch = {"image": jnp.zeros((8, 8, 8, 1))}
    begin = jax.jit(lambda key: generator.method.init(key, batch, 0, {}, {}, {}))
    params, memory = begin(jax.random.key(0)) if initial else ({}, {})
    return TrainedModel(generator, Model(params, memory), 0, 0)


@pytest.fixture(scope="module")
def studio():
    """That of a diffusion model, which is asked for its pictures at strength 0 alone: no network is compiled."""
    return make_studio(classes_config(), Flags(mode="demo"), untrained(classes_config()))


def test_a_model_has_the_controls_of_what_it_reads(studio):
    found = studio.controls
    assert found.labels == tuple("0123456789") and not found.prompt and not found.negative_prompt
    assert found.numbers.keys() == {"sampler.steps", "sampler.guidance_scale"}
    assert found.numbers["sampler.steps"].value == 3 and found.numbers["sampler.guidance_scale"].value == 2
    assert found.choices["sampler.name"].value == "ddim" and "dpmpp_2m" in found.choices["sampler.name"].words
    assert found.pictures.keys() == {"image", "mask"} and found.strength and found.panels and found.quiz


def test_a_gan_has_a_truncation_and_no_picture_to_begin_with():
    config = gan_config()
    found = controls_of(config, untrained(config))
    assert found.numbers.keys() == {"sampler.threshold"} and found.numbers["sampler.threshold"].value is None
    assert not (found.labels or found.choices or found.pictures or found.strength or found.degrade)
    styles, ways = (sampler_controls(config, types.SimpleNamespace(sampler=of)) for of in (Truncation(), Direction()))
    assert styles[0]["sampler.truncation"].value == 1 and styles[1]["sampler.noise_inputs"].words[0] == "random"
    assert ways == ({}, {"sampler.to": ways[1]["sampler.to"]}) and ways[1]["sampler.to"].words == ("image", "other")


def test_a_restorer_reads_a_picture_and_a_mask_or_makes_them():
    config = tiny_config("Restorer")
    config.data.corruptions.condition = section(name="hole", form="free_form")
    found = controls_of(config, untrained(config))
    assert found.pictures.keys() == {"image", "mask"} and found.degrade and not found.strength


def test_what_cannot_be_seen_has_no_demo():
    config = tiny_config("Plain")
    output = types.SimpleNamespace(pictured=False, plural="embeddings")
    generator = types.SimpleNamespace(method=types.SimpleNamespace(has_sampler=True), output=output)
    with pytest.raises(UserError, match="draws embeddings, of which a page has nothing to show"):
        controls_of(config, types.SimpleNamespace(generator=generator))


def test_another_sampler_keeps_the_options_that_it_has():
    config = ddpm_config()
    config.sampler = section(name="ddim", steps=5, eta=0.5, spacing="trailing", guidance_scale=3.0)
    made = chosen_config(config, {"sampler.steps": 7}, {"sampler.name": "dpmpp_2m"})
    assert made.sampler.to_dict() == {"name": "dpmpp_2m", "steps": 7, "spacing": "trailing", "guidance_scale": 3.0}
    assert config.sampler.name == "ddim" and chosen_config(config, {}, {"sampler.name": "ddim"}) == config


READS = Controls(
    labels=("0: cat", "1: dog"), prompt="needed", numbers={"sampler.steps": Number("Steps", 5, True, 1, 1000)},
    pictures={"image": Picture("Picture")}, strength=True, degrade=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seed": -1}, r"Seed is -1; it is a whole number from 0 to 4294967295\."),
        ({"seed": 0.5}, "Seed is 0.5; it is a whole number"),
        ({"seed": float("nan")}, "Seed is nan"),
        ({"num": 1000}, "number of images is 1000; it is a whole number from 1 to 64"),
        ({"num": 0}, "number of images is 0; it is a whole number from 1 to 64"),
        ({"strength": 0.5}, "Strength is the share of a picture that may change: give a picture"),
        ({"num": "many"}, "'many'; give a number"),
        ({"prompt": " \n"}, "write a prompt"),
        ({"prompt": "x" * 20_000}, "20000 characters"),
        ({"prompt": "a\nb\nc", "num": 2}, "There are 3 prompts for 2 images"),
        ({"labels": ["2: bird"]}, "'2: bird' is no class of this model; they are 0 to 1"),
        ({"sampler.steps": 0}, "Steps is 0; it is a number from 1 to 1000"),
        ({"sampler.steps": 1.5}, "Steps is 1.5; it is a whole number"),
        ({"image": "a.png", "strength": 2}, "Strength is 2"),
        ({"degrade": True}, "A clean picture is needed"),
        ({"image": ["a.png"] * 65, "num": 64}, "65 pictures"),
    ],
)
def test_bad_values_are_sentences(values, said):
    with pytest.raises(UserError, match=said):
        read_request(READS, {"prompt": "a cat", **values})


def test_what_is_empty_is_not_given():
    found = read_request(READS, {"prompt": "a cat", "seed": None, "labels": [], "sampler.steps": None, "image": None})
    assert (found.seed, found.num, found.labels, found.numbers, found.pictures) == (0, 1, None, {}, {})
    assert read_request(READS, {"prompt": "a", "labels": ["1: dog"], "unknown": 3}).labels == (1,)


def _asked(studio, folder, **values):
    folder.mkdir()
    return studio.draw(read_request(studio.controls, values), folder)


def test_pictures_are_those_of_their_seeds_and_carry_their_settings(tmp_path, monkeypatch):
    """Asked for by several threads at once; `--like` draws one again, to the bit."""
    config, seeds = gan_config(), [3, 4, 3]
    studio = make_studio(config, Flags(mode="demo"), untrained(config, initial=True))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda i: _asked(studio, tmp_path / str(i), seed=seeds[i], num=3), range(3)))
    whole = [results.all.read_bytes() for results in drawn]
    assert whole[0] == whole[2] != whole[1] and len(studio) == 1  # one program for both seeds
    texts = carried_texts(drawn[0].images[2], "")
    assert texts[INDEX] == "2" and json.loads(texts["jaxgen"])["asked"]["seed"] == 3
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(to_json(config))
    monkeypatch.setattr(modes, "_trained", lambda config, flags: untrained(config, initial=True))
    like = f"--like={drawn[0].images[2]}"
    assert tiny.call("--mode=sample", f"--workdir={run}", like, f"--out={tmp_path / 'out'}") == 0
    assert (tmp_path / "out" / "samples.png").read_bytes() == whole[0]
    again = np.load(tmp_path / "out" / "samples.npz")["images"][2, ..., 0]
    assert (np.asarray(read_picture(drawn[0].images[2])[1].convert("L")) == again).all()


def test_a_picture_is_begun_with_and_programs_are_bounded(studio, tmp_path, monkeypatch):
    save_png(tmp_path / "picture.png", np.full((8, 8, 1), 200, np.uint8))
    kept = _asked(studio, tmp_path / "kept", image=str(tmp_path / "picture.png"), strength=0, num=1, seed=1)
    assert (np.asarray(read_picture(kept.images[0])[1].convert("L")) == 200).all()
    assert json.loads(carried_texts(kept.images[0], "")["jaxgen"])["files"]["--image"]["name"] == "picture.png"
    monkeypatch.setattr(studio, "_most", 1)
    _asked(studio, tmp_path / "other", image=str(tmp_path / "picture.png"), strength=0, num=1, seed=2)
    assert len(studio) == 1
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(UserError, match=r"no\.png cannot be read as an image"):
        _asked(studio, tmp_path / "bad", image=str(tmp_path / "no.png"))


def test_without_gradio_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text(to_json(ddpm_config()))
    real = importlib.util.find_spec
    hidden = lambda name, *more: None if name == "gradio" else real(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    assert tiny.call("--mode=demo", f"--workdir={tmp_path}") == 2
    assert 'pip install "jaxgen[demo]"' in tiny.Result(2, *capsys.readouterr()).complaint


@pytest.mark.parametrize("sampler", [DDIM(6), DDPM(6), DPMpp2M(6), Heun(3)], ids=lambda one: type(one).__name__)
def test_a_watched_sampler_draws_the_same_bits_and_shows_its_states(sampler):
    schedule, seen = VP(), []
    x = jax.random.normal(jax.random.key(1), (6, 4, 4, 1))
    keys = jax.random.split(jax.random.key(2), 6)

    def denoise(x, t):  # the best estimate for images that are normal with variance 1 / 4
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Prediction(x * alpha / 4 / (alpha**2 / 4 + sigma**2), x, t, schedule, X0())

    made = watched(dataclasses.replace(make_method(ddpm_config()), sampler=sampler), lambda *of: seen.append(of))
    drawn = jax.jit(lambda x: made.sampler(denoise, schedule, x, keys))(x)
    jax.effects_barrier()
    assert (drawn == jax.jit(lambda x: sampler(denoise, schedule, x, keys))(x)).all()
    assert len(seen) == sampler.evaluations == made.sampler.evaluations
    times = sorted((float(t) for t, _ in seen), reverse=True)
    assert times[0] == 1 and times[-1] < 0.5
    first = next(states for t, states in seen if float(t) == 1)
    np.testing.assert_array_equal(first, x[:4])


def test_states_become_pictures_and_an_ode_is_not_watched():
    latents = np.broadcast_to(np.linspace(-0.5, 0.25, 4), (2, 3, 3, 4))
    assert pictured(latents).shape == (2, 3, 3, 3)
    np.testing.assert_allclose(pictured(latents), latents[..., :3])
    noisy = pictured(80 * np.random.default_rng(0).standard_normal((4, 16, 16, 1)))
    assert 0.5 < noisy.std() < 1
    method = make_method(ddpm_config())
    assert watchable(method) and not watchable(dataclasses.replace(method, sampler=ODE()))
    assert not watchable(make_method(gan_config()))


def test_a_place_between_latents_is_an_image_and_a_corner_is_one_of_four():
    config = gan_config()
    studio = make_studio(config, Flags(mode="demo"), untrained(config, initial=True))
    assert studio.controls.plane
    corners = studio.plane(read_request(studio.controls, {"seed": 3}), [(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5)])
    assert corners.shape == (5, 8, 8, 3) and corners.dtype == np.uint8
    assert len({image.tobytes() for image in corners}) == 5
    again = studio.plane(read_request(studio.controls, {"seed": 3}), [(1, 1)])
    np.testing.assert_allclose(again[0].astype(int), corners[3].astype(int), atol=1)  # programs of two sizes
    other = studio.plane(read_request(studio.controls, {"seed": 4}), [(1, 1)])
    assert (other[0] != corners[3]).any()


def test_a_corner_of_the_plane_is_a_draw_and_the_middle_lies_between():
    method = make_method(gan_config())
    keys = jnp.repeat(jax.random.key(5)[None], 3)
    z = method.plane_z(keys, jnp.asarray([[0.0, 0.0], [1.0, 1.0], [0.5, 0.0]]))
    drawn, _ = method.sample_z(jax.random.split(jax.random.key(5), 4), method.sampler)
    np.testing.assert_allclose(z[:2], drawn[jnp.asarray([0, 3])], atol=1e-5)
    lengths = jnp.linalg.norm(drawn, axis=1)
    np.testing.assert_allclose(jnp.linalg.norm(z[2]), (lengths[0] + lengths[1]) / 2, rtol=1e-5)


def test_the_plane_of_two_latents_has_equal_probabilities():
    method = make_method(load_config(str(tiny.ROOT / "configs" / "vae_mnist_plane.py"))[0])
    seen = []
    object.__setattr__(method, "decode", lambda params, z, **labels: seen.append(z) or jnp.zeros((len(z), 28, 28, 1)))
    place = jnp.asarray([[0.5, 0.5], [1.0, 0.0]])
    method.latent_plane(Model({}, {}), jnp.repeat(jax.random.key(0)[None], 2), {"place": place})
    np.testing.assert_allclose(seen[0], [[0, 0], [2.0537, -2.0537]], atol=1e-3)  # 0.98 of a normal lies below 2.0537


@pytest.mark.parametrize("x, y, said", [("a", 0, "give a number"), (0.2, 1.5, "y is 1.5"), (None, 0, "x is None")])
def test_a_place_outside_the_plane_is_a_sentence(x, y, said):
    with pytest.raises(UserError, match=said):
        read_place(x, y)
