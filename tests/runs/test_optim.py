"""Learning rates as functions of images seen, optimisers by name and by group."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import differing, named, opened
from tiny_methods import tiny_config

from jaxgen.errors import UserError
from jaxgen.runs.optim import Optimizer, clip_by_global_norm, learning_rate, optimizer_names, optimizers


def rates(images, **section):
    rate = learning_rate({"learning_rate": 2.0, **section}, 1000, "config.optimizer")
    return np.array([float(rate(jnp.uint32(i))) for i in images])


def test_warm_up_is_linear_and_then_the_rate_is_constant():
    found = rates(range(0, 400), warmup_images=100)
    np.testing.assert_allclose(np.diff(found[:100]), 0.02, rtol=1e-3)
    assert 0 < found[0] <= 0.02 and (found[100:] == 2).all()
    assert (rates([0, 10**9]) == 2).all()


def test_linear_decay_reaches_zero_and_stays():
    found = rates([0, 100, 325, 550, 775, 1000, 5000], warmup_images=100, decay="linear")
    np.testing.assert_allclose(found[1:], [2, 1.5, 1, 0.5, 0, 0], atol=1e-6)


def test_a_linear_decay_can_begin_later():
    """CycleGAN's schedule: half of the run at one rate, then in a line to 0 (Zhu et al. 2017, section 4)."""
    found = rates([0, 50, 300, 500, 750, 1000], warmup_images=100, constant_images=400, decay="linear")
    np.testing.assert_allclose(found[1:], [1.02, 2, 2, 1, 0], atol=1e-6)
    with pytest.raises(UserError, match="must end later"):
        rates([0], constant_images=1000, decay="linear")
    with pytest.raises(UserError, match="set config.optimizer.decay too"):
        rates([0], constant_images=10)


def test_cosine_decay_is_half_way_in_the_middle_and_flat_at_both_ends():
    found = rates([0, 1, 200, 399, 400, 900], decay="cosine", decay_images=400)
    np.testing.assert_allclose(found[[0, 2, 4, 5]], [2, 1, 0, 0], atol=1e-6)
    assert abs(found[1] - found[0]) < 1e-4 and found[3] < 1e-4
    # symmetric about the middle
    left = rates([50, 120, 170], decay="cosine", decay_images=400)
    right = rates([350, 280, 230], decay="cosine", decay_images=400)
    np.testing.assert_allclose(left + right, 2, rtol=1e-5)


def test_decay_without_a_length_ends_with_the_run():
    assert rates([1000], decay="linear")[0] == 0 < rates([999], decay="linear")[0]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop", "lion"])
def test_the_rate_is_applied_as_optax_would(name):
    """Ours computes updates at rate 1 and scales them: the same as the optimiser at a schedule."""
    params = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.ones(4)}
    ours = Optimizer({"name": name, "learning_rate": 0.1, "warmup_images": 32}, 100, "config.optimizer")
    theirs = getattr(optax, name)(learning_rate=lambda count: 0.1 * jnp.minimum((count * 8 + 1) / 32, 1))
    mine, state = params, ours.init(params)
    other, opt = params, theirs.init(params)
    for step in range(6):
        gradients = jax.tree.map(lambda p, step=step: jnp.cos(p + step), params)
        mine, state = ours.update(gradients, state, mine, jnp.uint32(8 * step))
        updates, opt = theirs.update(gradients, opt, other)
        other = optax.apply_updates(other, updates)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_norm_and_keeps_the_direction():
    gradients = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    clipped = clip_by_global_norm(gradients, jnp.float32(5), 1.0)
    np.testing.assert_allclose(clipped["a"], [0.6, 0])
    np.testing.assert_allclose(clipped["b"], [[0.8]])
    assert clip_by_global_norm(gradients, jnp.float32(5), 0.0) is gradients
    assert differing(clip_by_global_norm(gradients, jnp.float32(5), 9.0), gradients) == []


@pytest.mark.slow
def test_a_group_may_have_an_optimiser_of_its_own(tmp_path):
    config = tiny_config("TwoPlayers", repeats=1)
    config.optimizer.update(name="adamw", weight_decay=0.1)
    config.optimizers = {
        "discriminator": {"name": "rmsprop", "learning_rate": 0.0},
        "generator": {"learning_rate": 0.01},
    }
    with opened(config, tmp_path) as trainer:
        before = jax.device_get(trainer.state.params)
        before = jax.tree.map(np.copy, before)
        trainer.take_step()
        assert differing(before["discriminator"], trainer.state.params["discriminator"]) == []  # rate 0
        assert differing(before["generator"], trainer.state.params["generator"])
        names = {g: " ".join(named(s)) for g, s in trainer.state.opt_state.items()}
        assert "nu" in names["discriminator"] and "mu" not in names["discriminator"] and "mu" in names["generator"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": {"name": "adamww"}}, r"config\.optimizer\.name='adamww' is unknown; did you mean 'adamw'\?"),
        ({"optimizer": {"weigth_decay": 0.1}}, r"config\.optimizer\.weigth_decay does not exist for 'adamw'; did"),
        ({"optimizer": {"decay": "cosin"}}, r"config\.optimizer\.decay='cosin' is unknown; did you mean 'cosine'\?"),
        ({"optimizer": {"learning_rate": -1.0}}, r"config\.optimizer: learning_rate.* must not be negative"),
        (
            {"optimizers": {"discriminatr": {}}},
            r"config\.optimizers\.discriminatr: no such group learns; did you mean 'discriminator'\?",
        ),
        (
            {"optimizers": {"discriminator": {"name": "sgdd"}}},
            r"config\.optimizers\.discriminator\.name='sgdd' is unknown",
        ),
        (
            {"optimizers": {"discriminator": {"momentun": 0.9}}},
            r"config\.optimizers\.discriminator\.momentun does not exist",
        ),
    ],
)
def test_what_is_wrong_is_named(change, message):
    config = tiny_config("TwoPlayers")
    config.optimizer.name = "adamw"
    for key, values in change.items():
        config[key].update(values)
    with pytest.raises(UserError, match=message):
        optimizers(config, ("discriminator", "generator"))


def test_another_optimiser_does_not_inherit_arguments_that_it_lacks():
    config = tiny_config("TwoPlayers")
    config.optimizer.update(name="adamw", weight_decay=0.1, clip_norm=2.0)
    config.optimizers = {"discriminator": {"name": "sgd"}}
    found = optimizers(config, ("discriminator", "generator"))
    assert found["discriminator"].clip_norm == 2.0  # what is ours is inherited
    assert not jax.tree.leaves(found["discriminator"].init({"w": jnp.ones(2)}))


def test_weights_are_clipped_after_each_update_and_only_where_asked():
    params = {"w": jnp.array([-0.5, 0.005, 0.0099, 3.0])}
    clipped = Optimizer({"name": "sgd", "learning_rate": 0.1, "clip_weights": 0.01}, 100, "config.optimizer")
    free = Optimizer({"name": "sgd", "learning_rate": 0.1}, 100, "config.optimizer")
    gradients = {"w": jnp.array([0.0, 0.01, -1.0, 0.0])}
    new, _ = clipped.update(gradients, clipped.init(params), params, jnp.uint32(0))
    np.testing.assert_allclose(new["w"], [-0.01, 0.004, 0.01, 0.01], rtol=1e-6)
    new, _ = free.update(gradients, free.init(params), params, jnp.uint32(0))
    np.testing.assert_allclose(new["w"], [-0.5, 0.004, 0.1099, 3.0], rtol=1e-6)


@pytest.mark.parametrize("key", ["clip_norm", "clip_weights"])
def test_negative_limits_are_refused(key):
    with pytest.raises(UserError, match="must not be negative"):
        Optimizer({"name": "sgd", "learning_rate": 0.1, key: -1.0}, 100, "config.optimizer")


def test_the_type_of_moments_may_be_short():
    config = tiny_config("Plain")
    config.optimizer.mu_dtype = "bf16"
    state = optimizers(config, ("denoiser",))["denoiser"].init({"w": jnp.zeros(3)})
    assert {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim} == {jnp.dtype("bfloat16"), jnp.dtype("float32")}
    config.optimizer.mu_dtype = "int8"
    with pytest.raises(UserError, match="config.optimizer.mu_dtype='int8'"):
        optimizers(config, ("denoiser",))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "lbfgs"}, "name='lbfgs' needs more than gradients"),
        ({"name": "noisy_sgd"}, "name='noisy_sgd' keeps a random key, which checkpoints do not hold"),
        ({"name": "adam", "b1": "high"}, "optax cannot make adam with b1='high'"),
        ({"name": "sgd", "momentum": (0.9,)}, "optax cannot make sgd with momentum=\\(0.9,\\)"),
    ],
)
def test_an_optimiser_that_training_cannot_use_is_refused_at_once(section, message):
    config = tiny_config("Plain")
    config.optimizer.update(**section)
    with pytest.raises(UserError, match=f"^config.optimizer.*{message}"):
        optimizers(config, ("net",))


def test_every_optimiser_that_is_listed_updates_parameters_and_none_is_refused():
    config = tiny_config("Plain")
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    assert {"adam", "sgd", "lion"} <= {*optimizer_names()} and not {"lbfgs", "noisy_sgd"} & {*optimizer_names()}
    for name in optimizer_names():
        config.optimizer.name = name
        made = optimizers(config, ("net",))["net"]
        new, _ = jax.eval_shape(made.update, params, made.init(params), params, jnp.uint32(0))
        assert {key: leaf.shape for key, leaf in new.items()} == {"kernel": (2, 2), "bias": (2,)}


def test_a_rate_begins_again_after_every_so_many_images():
    once = rates([0, 7, 25, 99], decay="linear", decay_images=100, warmup_images=10)
    again = rates([200, 207, 225, 299], decay="linear", restart_images=100, warmup_images=10)
    np.testing.assert_array_equal(once, again)
    assert again[-1] < 0.02 * again[1]
    for options in (dict(restart_images=-1), dict(restart_images=10, decay_images=5)):
        with pytest.raises(UserError, match="restart_images"):
            rates([0], decay="linear", **options)
