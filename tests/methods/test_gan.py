"""The adversarial methods: who learns in which turn, what is seen by whom, and what each adds to the game."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_games import OnTrees, Rooms, Scales

from jaxgen.adversarial import losses
from jaxgen.adversarial.augment import DiffAugment
from jaxgen.build import build
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.gans.gan import FRAMES, slerp
from jaxgen.networks.layers.stateful import apply_stateful

BATCH = 8
LABELLED = {"conditioning": "concat"}


def make(name="gan", generator=None, discriminator=None, kind="dcgan_discriminator", **options):
    parts = {
        "generator": section(name="dcgan_generator", z_dim=4, channels=4, **(generator or {})),
        "discriminator": section(name=kind, channels=4, **(discriminator or {})),
    }
    given = {"image_shape": (8, 8, 1), "num_classes": 3}
    return build(section(name=name, **parts, **options), "method", "config.method", **given)


def batch():
    image = np.tanh(np.random.default_rng(5).normal(size=(BATCH, 8, 8, 1)).astype(np.float32))
    return {"image": jnp.asarray(image), "label": jnp.arange(BATCH, dtype=jnp.int32) % 3}


def begun(method):
    params, memory = jax.jit(lambda key: method.init(key, batch(), 0, {}, {}, {}))(jax.random.key(0))
    return params, SimpleNamespace(memory=memory, step=jnp.int32(0), images=jnp.uint32(0))


def loss_of(method, turn, params, state, key=None):
    found = {t.name: t for t in method.turns(0)}[turn].loss
    return found(params, batch(), jax.random.key(1) if key is None else key, state)


METHODS = {
    "gan": dict(),
    "conditional": dict(generator=LABELLED, discriminator={"conditioning": "projection"}, loss=section(name="hinge")),
    "acgan": dict(name="acgan", generator=LABELLED),
    "infogan": dict(name="infogan"),
    "ebgan": dict(name="ebgan", kind="energy_autoencoder", discriminator={"codes": 3}),
    "msgan": dict(name="msgan", generator=LABELLED, discriminator=LABELLED),
    "wgan_gp": dict(name="wgan_gp", discriminator={"norm": "layer"}),
}


QUICK = ("gan", "infogan", "wgan_gp")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS])
def test_every_turn_is_finite_and_reaches_its_groups(name):
    method = make(**METHODS[name])
    params, state = begun(method)

    def gradients(params, turn):
        return jax.grad(lambda groups: turn.loss({**params, **groups}, batch(), jax.random.key(1), state)[0])(
            {g: params[g] for g in turn.groups}
        )

    for turn in method.turns(0):
        found = jax.jit(functools.partial(gradients, turn=turn))(params)
        for group in turn.groups:
            leaves = [np.asarray(x) for x in jax.tree.leaves(found[group])]
            assert all(np.isfinite(x).all() for x in leaves) and any(np.abs(x).max() > 0 for x in leaves), turn.name


def test_the_numbers_of_steps_are_the_configs():
    turns = {
        t.name: t
        for t in make("gan", discriminator={"norm": "none"}, discriminator_steps=3, r1=2.0, r1_every=4).turns(0)
    }
    assert list(turns) == ["discriminator", "r1", "generator"]
    assert turns["discriminator"].repeats == 3 and turns["r1"].every == 4 and turns["generator"].repeats == 1
    assert (
        make("wgan").discriminator_steps == 5 and make("wgan_gp", discriminator={"norm": "none"}).gradient_penalty == 10
    )


def test_a_lazy_penalty_weighs_as_much_as_one_at_every_step():
    often, seldom = (make(discriminator={"norm": "none"}, r1=2.0, r1_every=n) for n in (1, 16))
    params, state = begun(often)
    np.testing.assert_allclose(
        16 * loss_of(often, "r1", params, state)[0], loss_of(seldom, "r1", params, state)[0], rtol=1e-6
    )


@pytest.mark.slow
def test_real_and_fake_are_separate_batches():
    """The discriminator's statistics are those of two calls, real first; of one call on both they would differ."""
    method = make(discriminator={"extra": 1})
    params, state = begun(method)
    _, (_, changed) = loss_of(method, "discriminator", params, state)
    of_z = jax.random.split(jax.random.key(1), 4)[0]
    z, _ = method.sample_z(jax.random.split(of_z, BATCH))
    fake, _ = method.generate(params, state.memory, z, batch(), train=True)
    look = functools.partial(apply_stateful, method.discriminator_with_heads(), params["discriminator"], train=True)
    _, apart = look(look(state.memory["discriminator"], batch()["image"])[1], fake)
    _, together = look(state.memory["discriminator"], jnp.concatenate([batch()["image"], fake]))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, changed["discriminator"], apart)
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), apart, together)
    assert max(jax.tree.leaves(gaps)) > 1e-3
    assert set(changed) == {"discriminator"}  # the generator's statistics are its own turn's


def test_the_generators_turn_leaves_the_discriminators_statistics_alone():
    method = make()
    params, state = begun(method)
    assert set(loss_of(method, "generator", params, state)[1][1]) == {"generator"}


@pytest.mark.parametrize("options", [{"gradient_penalty": 10.0}, {"r1": 1.0}])
def test_slopes_and_batch_norm_do_not_go_together(options):
    with pytest.raises(UserError, match=r"discriminator\.norm"):
        make(**options)


@pytest.mark.slow
def test_ebgans_generator_learns_through_both_sides_of_the_error():
    method = make(**METHODS["ebgan"], pull_away=0.0)
    params, state = begun(method)
    z, _ = method.sample_z(jax.random.split(jax.random.key(2), BATCH))

    def energy(generator, hold):
        fake, _ = method.generate({**params, "generator": generator}, state.memory, z, batch(), train=True)
        outputs, _ = method.discriminate(params, state.memory, fake, batch())
        target = jax.lax.stop_gradient(fake) if hold else fake
        return jnp.square(outputs["reconstruction"] - target).mean()

    def norm(function):
        return sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(jax.grad(function)(params["generator"])))

    key = jax.random.key(7)
    of_z = jax.random.split(key, 3)[0]
    z, _ = method.sample_z(jax.random.split(of_z, BATCH))
    ours = norm(lambda g: loss_of(method, "generator", {**params, "generator": g}, state, key)[0])
    assert abs(ours - norm(lambda g: energy(g, False))) < 1e-3 * ours
    assert abs(ours - norm(lambda g: energy(g, True))) > 1e-2 * ours


def test_msgans_two_fakes_both_play():
    method = make(**METHODS["msgan"], mode_seeking=0.0)
    params, state = begun(method)
    plain = make("gan", generator=LABELLED, discriminator=LABELLED)
    two, one = (float(loss_of(m, "generator", params, state)[0]) for m in (method, plain))
    assert 1.5 * one < two < 2.5 * one


def test_acgan_tells_the_generator_alone():
    for wrong in (dict(), dict(generator=LABELLED, discriminator=LABELLED)):
        with pytest.raises(UserError, match="AC-GAN tells the generator"):
            make("acgan", **wrong)


def test_both_players_of_acgan_want_images_to_show_their_labels():
    method, given = make("acgan", generator=LABELLED), batch()
    right = {"label": 5.0 * jax.nn.one_hot(given["label"], 3)}
    wrong = {"label": jnp.roll(right["label"], 1, axis=1)}
    best = method.discriminator_terms(right, right, given)[0]
    for real, fake in ((wrong, right), (right, wrong)):
        assert method.discriminator_terms(real, fake, given)[0] > best + 1
    seen = [method.generator_terms(SimpleNamespace(outputs=o, batch=given))[0] for o in (right, wrong)]
    assert seen[1] > seen[0] + 1


def test_infogans_codes_enter_and_are_read_back():
    method = make("infogan", codes=section(name="Codes", categorical=(3,), continuous=1))
    keys = jax.random.split(jax.random.key(3), 400)
    z, codes = method.sample_z(keys)
    assert z.shape == (400, 4 + 3 + 1)
    np.testing.assert_array_equal(z[:, 4:7].argmax(axis=1), codes["categorical"][:, 0])
    np.testing.assert_array_equal(z[:, 7], codes["continuous"][:, 0])
    assert len(set(np.asarray(codes["categorical"]).ravel())) == 3
    swapped = method.with_codes(z, {"categorical": jnp.zeros((400, 1), jnp.int32), "continuous": codes["continuous"]})
    np.testing.assert_array_equal(swapped[:, :4], z[:, :4])
    assert (swapped[:, 4] == 1).all()


def test_images_depend_on_their_own_key_and_label_alone():
    method = make(generator=LABELLED)
    params, state = begun(method)
    model = Model(params=params, memory=state.memory)
    keys = jax.random.split(jax.random.key(4), BATCH)
    draw = jax.jit(method.sample)
    whole = draw(model, keys, batch())
    part = draw(model, keys[2:4], {k: v[2:4] for k, v in batch().items()})
    np.testing.assert_allclose(part, whole[2:4], atol=1e-5)
    other = draw(model, keys, {**batch(), "label": (batch()["label"] + 1) % 3})
    assert float(jnp.abs(other - whole).max()) > 1e-4


def test_slerp_keeps_lengths_and_ends():
    a, b = jax.random.normal(jax.random.key(0), (2, 5, 64))
    np.testing.assert_allclose(slerp(a, b, jnp.float32(0)), a, atol=1e-5)
    np.testing.assert_allclose(slerp(a, b, jnp.float32(1)), b, atol=1e-5)
    middle = jnp.linalg.norm(slerp(a, b, jnp.float32(0.5)), axis=1)
    ends = (jnp.linalg.norm(a, axis=1) + jnp.linalg.norm(b, axis=1)) / 2
    np.testing.assert_allclose(middle, ends, rtol=1e-5)
    assert (jnp.linalg.norm((a + b) / 2, axis=1) < 0.9 * ends).all()  # the straight line would leave the shell


@pytest.fixture(scope="module")
def on_trees():
    return OnTrees(Rooms(), Scales(), (8, 8, 1), loss=losses.Relativistic(), gradient_penalty=1.0, r1=1.0)


def paired():
    return {**batch(), "outline": jnp.sign(batch()["image"])}


@pytest.mark.slow
def test_inputs_and_logits_may_be_trees_and_the_generator_may_see_real_images(on_trees):
    begin = jax.jit(lambda key: on_trees.init(key, paired(), 0, {}, {}, {}))
    params, memory = begin(jax.random.key(0))
    state = SimpleNamespace(memory=memory, step=jnp.int32(0), images=jnp.uint32(0))
    assert on_trees.conditions == ("outline",)
    for turn in on_trees.turns(0):
        loss = jax.value_and_grad(
            lambda mine, turn=turn: turn.loss({**params, **mine}, paired(), jax.random.key(1), state)[0]
        )
        found, gradient = jax.jit(loss)({group: params[group] for group in turn.groups})
        assert np.isfinite(found)
        assert all(np.abs(g).max() > 0 for path, g in leaves(gradient) if "bias" not in path)
    draw = jax.jit(on_trees.sample)
    model, keys = Model(params=params, memory=memory), jax.random.split(jax.random.key(4), BATCH)
    whole = draw(model, keys, paired())
    part = draw(model, keys[2:4], {k: v[2:4] for k, v in paired().items()})
    np.testing.assert_allclose(part, whole[2:4], atol=1e-5)
    walk = jax.jit(on_trees.panels)(model, keys, paired())["interpolation"]
    assert walk.shape == (BATCH // 2 * FRAMES, 8, 8, 1) and np.isfinite(walk).all()


def leaves(tree):
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def test_an_augmentation_that_moves_the_image_alone_is_refused_beside_a_picture(on_trees):
    method = dataclasses.replace(on_trees, augment=DiffAugment())
    with pytest.raises(UserError, match="moves the image but not 'outline'"):
        jax.eval_shape(lambda key: method.init(key, paired(), 0, {}, {}, {}), jax.random.key(0))
