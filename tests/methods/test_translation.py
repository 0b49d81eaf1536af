"""pix2pix and CycleGAN: what each loss is made of, what is random, the pool, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.translation.cyclegan import Direction, right_changes
from jaxgen.methods.translation.pool import empty_pool, exchanged
from jaxgen.runs.state import fold_name

BATCH, SIDE = 4, 8
KEY = jax.random.key(3)


def made(name, generator=None, discriminator=None, **options):
    kind = "translation_unet" if name == "pix2pix" else "translation_resnet"
    small = {"downs": 3, "dropout_blocks": 1} if name == "pix2pix" else {"downs": 1, "blocks": 1}
    norm = {"norm": "instance", "reads": ("condition",) if name == "pix2pix" else ()}
    parts = {
        "generator": section(name=kind, width=2, **{**small, **(generator or {})}),
        "discriminator": section(name="patch_discriminator", width=2, layers=1, **{**norm, **(discriminator or {})}),
    }
    return build(section(name=name, **parts, **options), "method", "config.method", image_shape=(SIDE, SIDE, 3))


def batch():
    chance = np.random.default_rng(1)
    entries = {"image": 3, "condition": 1, "other_image": 3, "drawing": 3}
    return {
        name: jnp.asarray(chance.uniform(-1, 1, (BATCH, SIDE, SIDE, channels)), jnp.float32)
        for name, channels in entries.items()
    }


def begun(name, **options):
    """The method, its parameters and memory after `init`."""
    return _begun(name) if not options else _fresh(made(name, **options))


@functools.cache
def _begun(name):
    return _fresh(made(name))


def _fresh(method):
    return method, *jax.jit(lambda key: method.init(key, batch(), 0, {}, {}, {}))(jax.random.key(0))


def test_a_generators_loss_is_the_game_and_the_distance_to_the_true_image():
    method, params, memory = begun("pix2pix")
    state = SimpleNamespace(memory=memory)

    @jax.jit
    def losses(params):
        alone = [dataclasses.replace(method, **o) for o in ({}, {"l1": 0.0}, {"adversarial": 0.0})]
        return [one.generator_loss(params, batch(), KEY, state) for one in alone]

    (both, (metrics, _)), (game, _), (distance, _) = losses(params)
    np.testing.assert_allclose(both, game + distance, rtol=1e-5)
    np.testing.assert_allclose(distance, 100 * metrics["l1"], rtol=1e-5)


@pytest.mark.parametrize(("discriminator_steps", "fakes"), [(1, 1), (2, 2)])
def test_with_one_step_of_the_discriminator_both_players_see_one_fake_which_is_drawn_once(discriminator_steps, fakes):
    """The compiled step of both players has as many of the generator's last functions, tanh, as fakes are drawn."""
    method, params, memory = begun("pix2pix", discriminator_steps=discriminator_steps)
    names = [turn.keys or turn.name for turn in method.turns(0)]
    state = SimpleNamespace(memory=memory)

    def updated(params, turn, name):
        learned = {group: params[group] for group in turn.groups}
        loss = lambda groups: turn.loss({**params, **groups}, batch(), fold_name(KEY, name), state)[0]  # noqa: E731
        return {**params, **jax.tree.map(jnp.subtract, learned, jax.grad(loss)(learned))}

    def step(params):
        return functools.reduce(
            lambda params, one: updated(params, *one), zip(method.turns(0), names, strict=True), params
        )

    program = jax.jit(step).lower(params).compile().as_text()
    assert len(re.findall(r" tanh\(", program)) == fakes


def test_dropout_is_the_only_randomness_and_can_be_left_out_in_use():
    method, params, memory = begun("pix2pix")
    model = Model(params, memory)
    keys = jax.random.split(KEY, 2 * BATCH).reshape(2, BATCH)
    off = dataclasses.replace(method, sampler=dataclasses.replace(method.sampler, dropout=False))
    draw = jax.jit(lambda keys: (method.sample(model, keys, batch()), off.sample(model, keys, batch())))
    (first, still), (second, again) = draw(keys[0]), draw(keys[1])
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(still, again)


@pytest.mark.slow
def test_mode_seeking_and_feature_matching_add_their_terms():
    """The second fake plays the game too; feature matching reads the layers of real images."""
    method, params, memory = begun("pix2pix", generator=section(z_dim=2), mode_seeking=2.0)
    state = SimpleNamespace(memory=memory)
    options = ({}, {"mode_seeking": 4.0}, {"feature_matching": 3.0})

    @jax.jit
    def losses(params):
        return [dataclasses.replace(method, **o).generator_loss(params, batch(), KEY, state) for o in options]

    found = losses(params)
    (total, (metrics, _)), (more, _), (matched, (of_matching, _)) = found
    np.testing.assert_allclose(more - total, 2 * metrics["mode_seeking"], rtol=1e-4)
    np.testing.assert_allclose(matched - total, 3 * of_matching["feature_matching"], rtol=1e-4)
    panels = jax.eval_shape(method.panels, Model(params, memory), jax.random.split(KEY, BATCH), batch())
    assert panels["translation"].shape == (BATCH * 4, SIDE, SIDE, 3) and method.columns == {"translation": 4}


@pytest.mark.nightly
def test_the_losses_of_both_directions():
    """The total is the sum of the terms by their weights; without identity that term is not there."""
    method, params, memory = begun("cyclegan")
    state = SimpleNamespace(memory=memory)

    @jax.jit
    def losses(params):
        both = [dataclasses.replace(method, **o) for o in ({}, {"identity": 0.0})]
        return [one.players_loss(params, batch(), KEY, state) for one in both]

    (total, (metrics, updates)), (plain, _) = losses(params)
    judges = metrics["discriminator_image"] + metrics["discriminator_other"]
    expected = 2 * metrics["adversarial"] + 10 * metrics["cycle"] + 5 * metrics["identity"] + judges
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(total - plain, 5 * metrics["identity"], rtol=1e-4)
    assert {name: int(pool["count"]) for name, pool in updates["pool"].items()} == {"image": BATCH, "other": BATCH}


@pytest.mark.slow
def test_each_player_learns_from_its_own_side_of_the_game():
    """The generators' loss has no slope in the discriminators, and theirs none in the generators."""
    method, params, memory = begun("cyclegan")
    real = {"image": batch()["image"], "other": batch()["other_image"]}

    @jax.jit
    def slopes(params):
        own = jax.grad(lambda p: method._generators_loss(p, real)[0])(params)
        both = jax.grad(lambda p: method.players_loss(p, batch(), KEY, SimpleNamespace(memory=memory))[0])(params)
        return own, both

    own, both = slopes(params)
    for domain in ("image", "other"):
        assert not any(np.abs(x).any() for x in jax.tree.leaves(own[f"discriminator_{domain}"]))
        assert all(np.abs(x).any() for x in jax.tree.leaves(both[f"discriminator_{domain}"]))
        pairs = zip(*(jax.tree.leaves(s[f"to_{domain}"]) for s in (own, both)), strict=True)
        assert all(np.abs(a).any() and np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)


@pytest.mark.slow
def test_the_pool_keeps_new_fakes_until_it_is_full_and_then_exchanges_half_of_them():
    fakes = jnp.arange(1.0, 401.0).reshape(-1, 1, 1, 1)
    first, pool = jax.jit(exchanged)(empty_pool(10, (1, 1, 1)), fakes[:7], KEY)
    np.testing.assert_array_equal(first, fakes[:7])
    assert pool["count"] == 7
    seen, pool = jax.jit(exchanged)(pool, fakes[7:], jax.random.key(1))
    np.testing.assert_array_equal(seen[:3], fakes[7:10])
    older = int((np.asarray(seen) != np.asarray(fakes[7:])).sum())
    assert 160 < older < 230  # 390 coins: a mean of 195 with a standard deviation of 10
    held, shown = {float(x) for x in pool["images"].ravel()}, [float(x) for x in seen.ravel()]
    # each fake is shown once, or is still in the pool, or was shown before it was kept
    early = {float(x) for x in fakes[:10].ravel()}
    assert set(shown) | held | early == {float(x) for x in fakes.ravel()}
    assert len(held) == 10 and all(shown.count(x) <= (2 if x in early else 1) for x in shown)
    same, still = exchanged(empty_pool(0, (1, 1, 1)), fakes, KEY)
    assert same is fakes and still["count"] == 0


def test_both_directions_are_sampled_and_scored_by_the_hidden_truth():
    method, params, memory = begun("cyclegan")
    model, keys = Model(params, memory), jax.random.split(KEY, BATCH)
    back = dataclasses.replace(method, sampler=Direction("other"))
    assert (method.conditions, back.conditions) == (("other_image",), ("image",))
    judged = dataclasses.replace(method, truth="drawing")
    run = jax.jit(lambda b: (method.sample(model, keys, b), back.sample(model, keys, b), judged.scores(model, keys, b)))
    to_image, to_other, scores = run(batch())
    assert to_image.shape == to_other.shape and np.abs(to_image - to_other).max() > 1e-3
    expected = np.abs(np.asarray(to_other) - np.asarray(batch()["drawing"])).mean((1, 2, 3))
    np.testing.assert_allclose(scores["l1_to_other"], expected, rtol=1e-4)
    assert method.better("accuracy_to_image") == "higher" and method.better("cycle_l1_image") == "lower"
    with pytest.raises(UserError, match="truth='nothing'"):
        dataclasses.replace(method, truth="nothing").scores(model, keys, batch())


def test_doing_nothing_has_no_right_changes_and_a_wrong_colour_has_none_either():
    source, true = jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 4, 4, 3)).at[:, :2].set(1.0)
    assert right_changes(source, source, true) == 0 and right_changes(true, source, true) == 1
    assert right_changes(-true, source, true) == 0
    assert right_changes(source, source, source) == 1  # nothing must change
    half = true.at[:, 0].set(0.0)
    assert right_changes(half, source, true) == 0.5


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("pix2pix", {"generator": section(norm="batch")}, "set it to 'affine_instance'"),
        ("pix2pix", {"mode_seeking": 1.0}, "generator.z_dim"),
        ("cyclegan", {"generator": section(reads=("a", "b"))}, "translates one picture"),
        ("cyclegan", {"discriminator": section(reads=("condition",))}, "no 'condition' beside"),
        ("cyclegan", {"pool": -1}, "must not be negative"),
    ],
)
def test_what_does_not_fit_is_refused(name, options, said):
    with pytest.raises(UserError, match=said):
        made(name, **options)


def test_a_direction_is_one_of_two():
    with pytest.raises(UserError, match="config.sampler.to is 'image' or 'other'"):
        Direction("both")


def test_two_kinds_of_pictures_have_one_shape():
    method = made("cyclegan")
    with pytest.raises(UserError, match="config.data.extra.other.channels"):
        method.init(KEY, {**batch(), "other_image": batch()["condition"]}, 0, {}, {}, {})
