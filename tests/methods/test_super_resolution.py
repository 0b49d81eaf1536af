"""Super-resolution: the network is told the noise level of its own example, and its control predicts in one pass."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from tiny_methods import ddpm_config

from jaxgen.conditions.image import Image
from jaxgen.config import section
from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction import embedded
from jaxgen.diffusion.prediction_types import Epsilon, V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.samplers.ddpm import DDPM as Ancestral
from jaxgen.diffusion.samplers.dpmpp import DPMpp2M
from jaxgen.diffusion.timesteps import BetweenLevels, Uniform
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.regression import Regression
from jaxgen.networks.unet import UNet
from jaxgen.runs.setup import make_method

SHAPE = (8, 8, 1)
IMAGE = 0.37  # the value of every pixel of the only image
PARTS = {"low": Image()}


class Oracle(nn.Module):
    """Knows that every image is `IMAGE`, and finds the noise in x_t by the noise level that it is told."""

    @nn.compact
    def __call__(self, x, time, condition=None, train=False):
        alpha = time[:, None, None, None] / 1000
        return (x - alpha * IMAGE) / jnp.sqrt(1 - alpha**2) + 0 * self.param("unused", nn.initializers.ones, ())


def oracle(schedule, **options):
    return DDPM(Oracle(), schedule, DDIM(steps=5), SHAPE, **{"embed": "noise_level", **options})


def loss_of(method, count=64):
    batch = {"image": jnp.full((count, *SHAPE), IMAGE)}
    params, memory = method.init(jax.random.key(0), batch, 0, {}, {}, {})
    state = type("State", (), {"memory": memory})
    return float(jax.jit(lambda params, key: method.loss(params, batch, key, state)[0])(params, jax.random.key(1)))


@pytest.mark.parametrize("timesteps", [Uniform(), BetweenLevels()], ids=lambda way: type(way).__name__)
@pytest.mark.parametrize("schedule", [schedules.Cosine(steps=20), schedules.VP()], ids=lambda s: type(s).__name__)
def test_each_example_is_told_the_noise_level_of_its_own_x(schedule, timesteps):
    assert loss_of(oracle(schedule, timesteps=timesteps)) < 1e-3
    if timesteps == Uniform():
        assert loss_of(oracle(schedule, timesteps=timesteps, embed="time")) > 0.1


@pytest.mark.parametrize(
    "sampler",
    [DDIM(steps=5), DDIM(steps=7, spacing="log_snr"), Ancestral(steps=6), DPMpp2M(steps=4)],
    ids=["ddim", "log_snr", "ancestral", "dpmpp_2m"],
)
def test_a_sampler_tells_the_levels_of_its_own_steps(sampler):
    for schedule in (schedules.Linear(steps=1000), schedules.VP()):
        method = dataclasses.replace(oracle(schedule), sampler=sampler)
        params, _ = method.init(jax.random.key(0), {"image": jnp.zeros((2, *SHAPE))}, 0, {}, {}, {})
        drawn = jax.jit(method.sample)(Model(params, {}), jax.random.split(jax.random.key(2), 2), {})
        np.testing.assert_allclose(drawn, IMAGE, atol=2e-2)


def test_the_level_falls_from_1000_to_nothing_whatever_the_number_of_steps():
    t = jnp.linspace(0, 1, 21)
    for schedule in (schedules.Cosine(steps=20), schedules.Cosine(steps=1000), schedules.ContinuousCosine()):
        told = embedded(schedule, t, "noise_level")
        assert told[0] > 999 and told[-1] < 60 and (np.diff(told) < 0).all()
        np.testing.assert_allclose(np.square(told / 1000) + np.square(schedule.sigma(t)), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: oracle(schedules.EDM(), prediction_type=Epsilon()), "is 1 at all times of the schedule EDM"),
        (
            lambda: oracle(schedules.Cosine(), timesteps=BetweenLevels(), learned_variance=True),
            "BetweenLevels draws noise levels between them; use uniform timesteps",
        ),
        (lambda: Regression(UNet(), SHAPE), "is told nothing: add a condition, such as config.method.parts.low"),
    ],
)
def test_what_does_not_go_together_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.fixture(scope="module")
def control():
    """The regression method with weights that all have a say, and a batch."""
    network = UNet(1, 4, (1,), 1, (), middle_attention=False, norm_groups=4)
    method = Regression(network, SHAPE, parts=PARTS)
    low = jax.random.uniform(jax.random.key(3), (3, 4, 4, 1), minval=-1, maxval=1)
    batch = {"image": jax.image.resize(low, (3, *SHAPE), "cubic") + 0.1, "condition": low}
    params, memory = jax.jit(lambda key: method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    chance = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * chance.normal(size=x.shape).astype(np.float32), params)
    return method, Model(params, memory), batch


@pytest.mark.slow
def test_the_control_has_the_parameters_of_the_diffusion_model(control):
    method, model, batch = control
    diffusion = DDPM(method.network, schedules.Cosine(), DDIM(), SHAPE, prediction_type=V(), parts=PARTS)
    theirs = jax.eval_shape(lambda key: diffusion.init(key, batch, 0, {}, {}, {})[0]["denoiser"], jax.random.key(0))
    assert jax.tree.map(jnp.shape, model.params["network"]) == jax.tree.map(lambda x: x.shape, theirs)
    assert method.conditions == diffusion.conditions == ("condition",)


def test_the_control_s_image_follows_from_its_condition_alone(control):
    method, model, batch = control
    keys = jax.random.split(jax.random.key(5), 6)
    sample = jax.jit(method.sample)
    one, again = (sample(model, keys[i : i + 3], {"condition": batch["condition"]}) for i in (0, 3))
    np.testing.assert_array_equal(one, again)
    other = sample(model, keys[:3], {"condition": batch["condition"].at[1].set(0)})
    assert np.abs(other[1] - one[1]).max() > 1e-3
    np.testing.assert_allclose(other[::2], one[::2], atol=1e-6)


def test_the_control_s_loss_is_the_error_of_what_it_samples(control):
    method, model, batch = control
    keys = jax.random.split(jax.random.key(5), 3)
    found = np.asarray(jax.jit(method.sample)(model, keys, batch))
    state = type("State", (), {"memory": {}})
    for error, of in (("squared", np.square), ("absolute", np.abs)):
        method = dataclasses.replace(method, error=error)
        expected = of(found - np.asarray(batch["image"])).mean((1, 2, 3))

        def both(model, key, method=method):
            loss = method.loss(model.params, batch, key, state)[0]
            return loss, method.scores(model, keys, batch)[f"{method.error}_error"]

        loss, scores = jax.jit(both)(model, jax.random.key(7))
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_the_control_s_output_is_an_image_of_the_data(control):
    method, model, batch = control
    wide = dataclasses.replace(method, network=method.network.clone(out_channels=2))

    def drawn(key):
        return wide.sample(Model(*wide.init(key, batch, 0, {}, {}, {})), jax.random.split(key, 3), batch)

    with pytest.raises(UserError, match="out_channels must be the images' channels"):
        jax.eval_shape(drawn, jax.random.key(5))


def tiny_run(name):
    config = ddpm_config()
    low = section(name="image", noise=0.3, noise_features=8, blur=(0.4, 0.6))
    network = {**config.method.network.to_dict(), "vector_dim": 8}
    config.method = section(
        name="ddpm" if name == "stage" else name, network=section(**network), parts=section(low=low)
    )
    if name == "stage":  # of a cascade: the small picture and the class
        config.method.update(schedule=section(name="cosine", steps=100), prediction_type="v", label_dropout=0.1)
        config.data.num_classes = 10
    elif name == "ddpm":
        config.method.update(schedule=section(name="cosine", steps=100), prediction_type="v", embed="noise_level")
        config.method.timesteps = "between_levels"
    else:
        config.sampler = section()
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ddpm", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("regression", "stage"))]
)
def test_a_run_resumes_bit_for_bit_and_devices_change_rounding_only(name, tmp_path):
    config = tiny_run(name)
    whole = running.run(config, tmp_path / "whole", 64)
    running.run(config, tmp_path / "parts", 32)
    assert not running.differing(running.run(config, tmp_path / "parts", 64), whole)
    config.mesh.data = 8
    eight = running.run(config, tmp_path / "eight", 64)
    assert running.largest_difference(eight.params, whole.params) < 2e-3  # of learning rates of 1e-3, eight steps


def test_a_config_builds_both(tmp_path):
    ours = make_method(tiny_run("ddpm"))
    assert ours.embed == "noise_level" and ours.timesteps == BetweenLevels()
    assert isinstance(make_method(tiny_run("regression")), Regression)
