"""What a batch gains from its images reaches training, sampling, panels and scores alike."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from tiny_methods import tiny_config

from jaxgen.config import section
from jaxgen.config.checks import check
from jaxgen.data.transforms import prepare, to_float
from jaxgen.errors import UserError
from jaxgen.runs.setup import make_corruptions, open_split
from jaxgen.sampling.generator import Generator


def config():
    made = tiny_config("Restorer")
    made.data.corruptions.condition = section(name="hole", form="centre", share=0.5)
    made.data.flip = True
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with running.opened(config(), tmp_path_factory.mktemp("run")) as trainer:
        trainer.train()
        yield trainer.generator, trainer.model()


@pytest.mark.slow
def test_a_run_trains_on_what_its_images_give_and_resumes_bit_for_bit(tmp_path):
    whole = running.run(config(), tmp_path / "whole", 64)
    running.run(config(), tmp_path / "parts", 32)
    assert not running.differing(running.run(config(), tmp_path / "parts", 64), whole)


def test_samples_keep_what_is_known_of_held_out_images(trained):
    generator, model = trained
    drawn = generator.images(model, 0, 12).images
    truth = open_split(config(), "test").take(list(range(12)))["image"]
    known = np.ones((8, 8), bool)
    known[2:6, 2:6] = False
    np.testing.assert_array_equal(drawn[:, known], truth[:, known])
    assert (drawn[:, ~known] != truth[:, ~known]).any()


def test_a_picture_of_the_user_s_takes_the_place_of_held_out_ones(trained):
    generator, model = trained
    mine = np.full((1, 8, 8, 1), 51, np.uint8)
    mask = np.zeros((1, 8, 8), np.int32)
    asked = Generator(generator.method, config(), given={"condition": mine, "mask": mask})
    assert (asked.images(model, 0, 3).images == 51).all()


def test_panels_and_scores_see_the_same_corruption(trained):
    generator, model = trained
    pictures = generator.panels(model, 0, 8)["restored"]
    real, seen, restored = np.split(pictures, 3)
    assert (seen[:, 2:6, 2:6] == 0).all() and np.array_equal(seen[:, :2], real[:, :2])
    source = open_split(config(), "test")
    found = generator.scores(model, 0, source, 8)["error"]
    chosen = np.linspace(0, len(source) - 1, 8).astype(int)
    batch = prepare(
        {"image": jnp.asarray(source.take(list(chosen))["image"])},
        jax.random.key(3),
        corruptions=make_corruptions(config()),
    )
    drawn = generator.method.restored(model.params, batch)
    expected = np.square(drawn - to_float(batch)["image"]).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isfinite(restored).all()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("condition", section(name="blurr"), "config.data.corruptions.condition.name='blurr' is unknown"),
        ("condition", section(name="hole", shape="centre"), "condition.shape does not exist; did you mean .share."),
        ("condition", 3, "must be a section with a 'name'"),
        ("image", section(name="grey"), "has a meaning of its own"),
        ("condition", section(name="low_resolution", factor=3), "not divided by low_resolution's factor 3"),
        ("label2", section(name="edges"), "'condition'"),  # the method's own entry is then missing
    ],
)
def test_a_wrong_corruption_is_one_sentence_before_anything_is_written(tmp_path, name, value, told):
    made = tiny_config("Restorer")
    made.data.corruptions[name] = value
    with pytest.raises(UserError, match=told), running.opened(made, tmp_path / "run"):
        check(made)


def test_data_that_have_the_entry_already_are_not_replaced():
    batch = {"image": jnp.zeros((2, 8, 8, 1)), "condition": jnp.zeros((2, 8, 8, 1))}
    with pytest.raises(UserError, match="already"):
        prepare(batch, jax.random.key(0), corruptions=make_corruptions(config()))
