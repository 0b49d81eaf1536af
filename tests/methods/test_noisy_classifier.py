"""The classifier of noisy images: it sees the noise that it is told of, and learns what noise leaves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import opened
from tiny_methods import tiny_config

from jaxgen.config import section
from jaxgen.diffusion import schedules
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.classifiers.noisy_classifier import LEVELS, NoisyClassifier
from jaxgen.networks.unet_encoder import UNetEncoder
from jaxgen.runs.setup import open_split


class Eye:
    """A network that shows what it is given: class 1 where the mean is above 0; and the time as a feature."""

    def apply(self, variables, x, time, **options):
        mean = x.mean((1, 2, 3))
        return jnp.stack([-mean, mean], axis=1), time[:, None]


def batch_of(count=400):
    label = jnp.arange(count) % 2
    return {"image": jnp.broadcast_to((2.0 * label - 1)[:, None, None, None], (count, 2, 2, 1)), "label": label}


def test_accuracy_falls_with_the_noise_as_the_schedule_says():
    """The mean of four pixels of alpha (+-1) + sigma z has the right sign with probability Phi(2 alpha / sigma)."""
    schedule, batch = schedules.Cosine(), batch_of(4000)
    method = NoisyClassifier(Eye(), schedule, num_classes=2)
    keys = jax.random.split(jax.random.key(0), 4000)
    scores = jax.jit(lambda: method.scores(Model({"classifier": {}}, {}), keys, batch))()
    levels = np.asarray(LEVELS)
    chance = jax.scipy.stats.norm.cdf(2 * schedule.alpha(levels) / schedule.sigma(levels))
    found = [scores[f"accuracy_by_time@{t}"].mean() for t in LEVELS]
    np.testing.assert_allclose(found, chance, atol=0.03)
    every = np.arange(1, 1001) / 1000
    mean = jax.scipy.stats.norm.cdf(2 * schedule.alpha(every) / schedule.sigma(every)).mean()
    np.testing.assert_allclose(scores["accuracy"].mean(), mean, atol=0.03)


def test_the_network_is_told_the_time_on_the_schedule_s_scale():
    seen = []

    class Spy(Eye):
        def apply(self, variables, x, time, **options):
            seen.append((np.asarray(x), np.asarray(time)))
            return super().apply(variables, x, time)

    x = jnp.ones((3, 2, 2, 1))
    for schedule in (schedules.Linear(), schedules.EDM()):
        t = jnp.asarray([0.1, 0.5, 1.0])
        NoisyClassifier(Spy(), schedule, num_classes=2).logits({"classifier": {}}, x, t)
        np.testing.assert_allclose(seen[-1][1], schedule.conditioning(t), rtol=1e-6)
        np.testing.assert_allclose(seen[-1][0][:, 0, 0, 0], schedule.input_scale(t), rtol=1e-6)


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Images with a bright bar at one of three places, which is their class."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    images = random.integers(0, 60, (300, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 180
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


@pytest.mark.slow
def test_it_learns_from_noisy_images(tmp_path, bars):
    config = tiny_config("Plain")
    network = section(
        name="unet_encoder",
        channels=8,
        channel_multipliers=(1,),
        blocks=1,
        attention_resolutions=(),
        middle_attention=False,
        norm_groups=4,
    )
    schedule = section(name="cosine", steps=1000)
    config.method = section(name="noisy_classifier", network=network, schedule=schedule)
    config.data.update(source=f"npz:{bars}", num_classes=3, crop=0)
    config.optimizer.update(learning_rate=5e-3)
    config.train.update(batch_size=32, total_images=32 * 80, log_every_images=10_000)
    config.mesh.data = 2
    with opened(config, tmp_path) as trainer:
        held_out = open_split(config, "test")
        trainer.train()
        after = trainer.generator.scores(trainer.model(), 0, held_out)
        with pytest.raises(UserError, match="makes no images"):
            trainer.generator.images(trainer.model(), 0, 4)
    assert after["accuracy_by_time@0.05"] > 0.95 and after["accuracy"] > 0.7
    assert after["accuracy_by_time@0.05"] > after["accuracy_by_time@0.95"]


# the network


def encoder(**options):
    return UNetEncoder(**{"num_classes": 3, "channels": 8, "channel_multipliers": (1, 2), "blocks": 1, **options})


@pytest.mark.nightly
@pytest.mark.parametrize(
    "options",
    [
        {"norm_groups": 4, "attention_resolutions": (4,), "heads": 2},
        {
            "norm_groups": 4,
            "pool": "mean",
            "time_mode": "adaptive",
            "resample": "residual",
            "attention_resolutions": (),
        },
    ],
)
def test_logits_depend_on_image_and_time_and_on_no_other_image(options):
    network = encoder(**options)
    x, time = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)), jnp.asarray([0.0, 10.0, 500.0, 999.0])
    params = jax.jit(network.init)(jax.random.key(1), x, time)
    params = jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size).reshape(a.shape)), params)
    apply = jax.jit(network.apply)
    logits, features = apply(params, x, time)
    assert logits.shape == (4, 3) and logits.dtype == jnp.float32 and features.shape == (4, 16)
    np.testing.assert_allclose(apply(params, x[1:3], time[1:3])[0], logits[1:3], atol=1e-4)
    assert float(jnp.abs(apply(params, x, time[::-1])[0] - logits).max()) > 1e-4
    assert float(jnp.abs(apply(params, x[::-1], time)[0] - logits).max()) > 1e-4


def test_its_way_down_has_the_names_and_shapes_of_the_u_net_s():
    from jaxgen.networks.unet import UNet

    options = {"norm_groups": 4, "attention_resolutions": (4,)}
    x, time = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1)
    shared = {"channels": 8, "channel_multipliers": (1, 2), "blocks": 1, **options}
    whole = jax.eval_shape(UNet(out_channels=1, **shared).init, jax.random.key(0), x, time)["params"]
    half = jax.eval_shape(encoder(**options).init, jax.random.key(0), x, time)["params"]
    names = [n for n in half if n.startswith(("conv_in", "time_", "down_", "middle_"))]
    assert len(names) == 10
    for name in names:
        assert jax.tree.map(lambda a: a.shape, half[name]) == jax.tree.map(lambda a: a.shape, whole[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"pool": "max"}, "pool is"),
        ({"channel_multipliers": (1, 1, 1, 1, 1)}, "multiples of 16"),
        ({"heads": 3, "attention_resolutions": (), "middle_attention": False}, "heads do not divide"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(encoder(norm_groups=4, **options).init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))
