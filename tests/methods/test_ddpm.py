"""DDPM: learns, conditions on labels, shows its way from noise to images, scores examples one by one."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from running import opened
from tiny_methods import ddpm_config

from jaxgen.config import section
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import denoiser
from jaxgen.diffusion.prediction_types import X0, Epsilon, V
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.runs.setup import make_method, open_split

SHAPE = (8, 8, 1)


def make(num_classes=0, **changes):
    config = ddpm_config()
    config.data.num_classes = num_classes
    for key, value in changes.items():
        config.method[key] = value
    method = make_method(config)
    batch = {"image": jnp.zeros((2, *SHAPE)), "label": jnp.zeros(2, jnp.int32)}
    params, memory = jax.jit(lambda key: method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    # the last layer starts at zero; here everything is to have a say
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)
    leaves = [np.asarray(x) + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    return method, Model(jax.tree.unflatten(tree, leaves), memory)


@pytest.fixture(scope="module")
def unconditional():
    return make()


@pytest.fixture(scope="module")
def conditional():
    return make(num_classes=3)


def keys(*numbers):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.array(numbers))


def images(count):
    return jax.random.uniform(jax.random.key(7), (count, *SHAPE), minval=-1, maxval=1)


@pytest.mark.slow
def test_the_label_has_a_say_in_samples_and_scores(conditional):
    method, model = conditional
    same = keys(0, 0, 0)
    batch = {"label": jnp.array([0, 1, 1]), "image": images(1).repeat(3, 0)}
    drawn = jax.jit(method.sample)(model, same, batch)
    scores = jax.jit(method.scores)(model, same, batch)["denoising_loss"]
    assert method.conditions == ("label",)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3 and np.abs(drawn[1] - drawn[2]).max() < 1e-5
    assert abs(scores[0] - scores[1]) > 1e-5 and abs(scores[1] - scores[2]) < 1e-5


def test_an_unconditional_model_needs_no_label(unconditional):
    method, model = unconditional
    drawn = jax.jit(method.sample)(model, keys(0, 1), {})
    assert method.conditions == () and drawn.shape == (2, *SHAPE) and np.isfinite(drawn).all()
    assert np.abs(drawn).max() <= 1 + 1e-6  # DDIM with clipping ends at a clipped x0


@pytest.mark.slow
def test_an_image_and_its_score_depend_on_its_key_alone(unconditional):
    method, model = unconditional
    score, sample = jax.jit(method.scores), jax.jit(method.sample)
    held = images(4)
    together = score(model, keys(3, 1, 4, 0), {"image": held})["denoising_loss"]
    assert together.shape == (4,) and len(set(together.tolist())) == 4
    drawn = sample(model, keys(3, 1, 4, 0), {})
    for i, number in enumerate((3, 1, 4, 0)):  # the same one among other neighbours, in another place
        others = keys(9, 8, number, 7)
        again = score(model, others, {"image": jnp.zeros_like(held).at[2].set(held[i])})["denoising_loss"]
        np.testing.assert_allclose(again[2], together[i], rtol=1e-4)
        np.testing.assert_allclose(sample(model, others, {})[2], drawn[i], atol=1e-4)


def test_the_trajectory_begins_at_the_noise_and_ends_at_the_sample(unconditional):
    method, model = unconditional
    panel = jax.jit(method.panels, compiler_options=tiny.USUAL)(model, keys(5, 6), {})["trajectory"]
    assert panel.shape == (method.sampler.steps + 1, 2, *SHAPE)
    start = jax.jit(lambda keys: per_image_noise(keys, 0, SHAPE), compiler_options=tiny.USUAL)(keys(5, 6))
    np.testing.assert_array_equal(panel[0], start)
    np.testing.assert_allclose(panel[-1], jax.jit(method.sample)(model, keys(5, 6), {}), atol=1e-5)
    assert np.abs(panel[1] - panel[0]).max() > 0.1


@dataclasses.dataclass(frozen=True)
class Oracle(DDPM):
    """Knows the only image that there is."""

    answer: jax.Array | None = None

    def denoiser(self, params, **options):
        knows = denoiser(self.schedule, X0(), lambda x, *time, **label: jnp.broadcast_to(self.answer, x.shape))
        return lambda *args, **condition: knows(*args, **condition).to(self.prediction_type)


@pytest.mark.parametrize("prediction", [Epsilon(), V(), X0()])
def test_who_knows_the_image_has_no_loss_and_draws_it(prediction, unconditional):
    method, model = unconditional
    method = dataclasses.replace(method, prediction_type=prediction)
    image = images(1)
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    batch = {"image": image.repeat(3, 0)}
    oracle, fool = Oracle(**fields, answer=image), Oracle(**fields, answer=-image)
    found, wrong = (who.scores(model, keys(0, 1, 2), batch)["denoising_loss"] for who in (oracle, fool))
    assert np.abs(found).max() < 1e-3 < np.abs(wrong).min()
    assert abs(oracle.loss(model.params, batch, jax.random.key(0), None)[0]) < 1e-3
    np.testing.assert_allclose(oracle.sample(model, keys(0, 1), {})[0], image[0], atol=1e-5)


@pytest.mark.slow
def test_training_lowers_the_held_out_loss(tmp_path):
    """A few dozen steps on digits; the EMA is what is evaluated."""
    config = ddpm_config(dropout=0.0)
    config.data.update(flip=False, crop=0)
    config.optimizer.update(learning_rate=3e-3)
    config.train.update(batch_size=32, total_images=32 * 60, ema_decay=0.8, log_every_images=10_000)
    config.mesh.data = 2
    config.evaluate.batch_size = 50
    with opened(config, tmp_path) as trainer:
        held_out = open_split(config, "test")
        before = trainer.generator.scores(trainer.model(), 0, held_out)["denoising_loss"]
        trainer.train()
        after = trainer.generator.scores(trainer.model(), 0, held_out)["denoising_loss"]
    assert after < 0.75 * before


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a loss sees of the state."""

    memory: dict


@pytest.mark.nightly
def test_dropped_labels_are_the_null_class():
    """Where labels are as good as always dropped, the loss is that of the null class."""
    method, model = make(num_classes=3, label_dropout=0.999999)
    null = jnp.full(4, 3)
    batch = {"image": images(4), "label": jnp.array([0, 1, 2, 0])}
    dropped = method.loss(model.params, batch, jax.random.key(0), None)[0]
    plain = dataclasses.replace(method, label_dropout=0.0)
    same = plain.loss(model.params, {**batch, "label": null}, jax.random.key(0), None)[0]
    other = plain.loss(model.params, batch, jax.random.key(0), None)[0]
    np.testing.assert_allclose(dropped, same, rtol=1e-6)
    assert abs(dropped - other) > 1e-6


def test_classifier_free_guidance_of_scale_zero_forgets_the_label():
    config = ddpm_config()
    config.data.num_classes = 3
    config.method.label_dropout = 0.1
    drawn = {}
    for scale in (0.0, 1.0, 3.0):
        config.guidance = section(name="classifier_free", scale=scale)
        method = make_method(config)
        model = make(num_classes=3)[1]
        drawn[scale] = jax.jit(method.sample)(model, keys(0, 0), {"label": jnp.array([0, 1])})
    assert np.abs(drawn[0.0][0] - drawn[0.0][1]).max() < 1e-5
    apart = {scale: float(np.abs(images[0] - images[1]).mean()) for scale, images in drawn.items()}
    assert apart[3.0] > apart[1.0] > 1e-4


@pytest.mark.slow
def test_a_learned_variance_is_trained_by_the_bound_alone():
    method, model = make(
        network=section(**{**ddpm_config().method.network.to_dict(), "out_channels": 2}), learned_variance=True
    )
    batch = {"image": images(4)}

    def loss(params, weight):
        return dataclasses.replace(method, vlb_weight=weight).loss(params, batch, jax.random.key(0), None)[0]

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    with_bound, without = (gradient(model.params, w)["denoiser"]["conv_out"]["kernel"] for w in (1e-3, 0.0))
    np.testing.assert_allclose(with_bound[..., 0], without[..., 0], rtol=1e-4, atol=1e-7)  # the mean is not moved
    assert np.abs(without[..., 1]).max() == 0 < np.abs(with_bound[..., 1]).max()


@pytest.mark.slow
def test_loss_aware_times_remember_in_the_state():
    method, model = make(timesteps=section(name="loss_aware", bins=4, history=2))
    assert set(model.memory) == {"timesteps"}
    batch = {"image": images(16)}
    step = jax.jit(lambda memory, key: method.loss(model.params, batch, key, Memory(memory))[1][1])
    memory = model.memory
    for i in range(3):
        memory = step(memory, jax.random.key(i))
    carried = memory["timesteps"]
    assert (np.asarray(carried["seen"]) >= 2).all() and (np.asarray(carried["losses"]) > 0).all()


def test_the_error_is_read_by_noise_level(unconditional):
    method, model = unconditional
    scores = jax.jit(method.scores)(model, keys(0, 1), {"image": images(2)})
    profile = {name: value for name, value in scores.items() if "@" in name}
    assert len(profile) == 10 and all(value.shape == (2,) for value in profile.values())
    assert all(name.startswith("denoising_loss_by_time@0.") for name in profile)
