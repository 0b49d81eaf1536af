"""A control beside a frozen U-Net: it begins as nothing, learns alone, steers by a hint, and goes with other grafts."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_latents

from jaxgen.codecs.latents import Latents
from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.base import bare_network
from jaxgen.methods.grafts.control import Control
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.methods.tuned import Tuned
from jaxgen.networks.control import ControlNet, hint_widths
from jaxgen.networks.dit import DiT
from jaxgen.networks.unet import UNet

SHAPE, COUNT = (8, 8, 1), 3
KEYS = jax.random.split(jax.random.key(3), COUNT)
BATCH = {
    "image": jnp.tanh(jax.random.normal(jax.random.key(5), (COUNT, *SHAPE))),
    "hint": jnp.tanh(jax.random.normal(jax.random.key(6), (COUNT, *SHAPE))),
    "depth": jnp.tanh(jax.random.normal(jax.random.key(7), (COUNT, *SHAPE))),
}
STATE = SimpleNamespace(memory={}, step=jnp.int32(0), images=jnp.uint32(0), ema={})
X, TIME = jax.random.normal(jax.random.key(8), (COUNT, *SHAPE)), jnp.array([5.0, 400.0, 900.0])


def drawn(part, seed=7):
    leaves, structure = jax.tree.flatten(part)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    fresh = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, fresh)


@pytest.fixture(scope="module")
def base():
    """A U-Net whose weights are all drawn, also those that begin at zero."""
    network = UNet(1, 8, (1,), 1, (), middle_attention=False, middle_blocks=1, norm_groups=4, patch_size=2)
    method = DDPM(network, schedules.Cosine(100), DDIM(steps=2), SHAPE, prediction_type=V())
    params, _ = method.init(jax.random.key(0), BATCH, 0, {}, {}, {})
    return method, drawn(params, 1)


def begun(method, params):
    learned, _ = method.init(jax.random.key(2), BATCH, 0, params, {}, {})
    return learned


def predicted(method, params, **hints):
    """What the method's network gives, with its grafts on."""
    network = method.method.network
    return np.asarray(
        jax.jit(lambda params: network.apply({"params": method.on(params)["denoiser"]}, X, TIME, **hints))(params)
    )


@pytest.mark.slow
def test_it_begins_as_the_method_and_only_its_last_convolutions_have_a_gradient(base):
    trained, params = base
    method = Tuned(trained, {"control": Control()})
    learned = begun(method, params)
    part = learned["control"]
    one, other = (tree["down_0_block_0"]["conv_in"]["kernel"] for tree in (part, params["denoiser"]))
    np.testing.assert_array_equal(one, other)
    assert not [name for name in part if name.startswith("up_")] and hint_widths(part) == (16, 32)
    assert method.conditions == ("hint",)
    (turn,) = method.turns(0)
    (own,) = trained.turns(0)

    def asked(learned):
        return turn.loss({**params, **learned}, BATCH, KEYS[0], STATE)[0]

    loss, gradient = jax.jit(jax.value_and_grad(asked))(learned)
    assert loss == jax.jit(lambda: own.loss(params, BATCH, KEYS[0], STATE)[0])()
    moved = {name for name, of in gradient["control"].items() if max(np.abs(x).max() for x in jax.tree.leaves(of)) > 0}
    assert moved == {name for name in part if name.startswith("zero_")}
    jit = functools.partial(jax.jit, compiler_options=tiny.USUAL)
    before = jit(trained.sample)(Model(params=params, memory={}), KEYS, {})
    after = jit(method.sample)(Model(params={**params, **learned}, memory={}), KEYS, BATCH)
    np.testing.assert_array_equal(before, after)


def test_what_it_adds_depends_on_the_hint_and_on_the_scale(base):
    trained, params = base
    method = Tuned(trained, {"control": Control()})
    parts = {**params, "control": drawn(begun(method, params)["control"])}
    plain = np.asarray(jax.jit(trained.network.apply)({"params": params["denoiser"]}, X, TIME))
    one = predicted(method, parts, hint_hint=BATCH["hint"])
    assert np.abs(one - plain).max() > 0.1
    assert np.abs(one - predicted(method, parts, hint_hint=BATCH["depth"])).max() > 0.01
    without = Tuned(trained, {"control": Control(scale=0.0)})
    np.testing.assert_array_equal(predicted(without, parts, hint_hint=BATCH["hint"]), plain)


def test_the_control_is_the_networks_equation(base):
    """The U-Net with the residuals of a ControlNet that is called by itself, times the scale."""
    trained, params = base
    method = Tuned(trained, {"control": Control(scale=0.5)})
    parts = {**params, "control": drawn(begun(method, params)["control"])}
    network = ControlNet.beside(trained.network, (16, 32))
    added = network.apply({"params": parts["control"]}, X, TIME, BATCH["hint"])
    wanted = trained.network.apply({"params": params["denoiser"]}, X, TIME, residuals=tuple(0.5 * y for y in added))
    np.testing.assert_allclose(predicted(method, parts, hint_hint=BATCH["hint"]), wanted, atol=1e-5)


def test_it_steers_within_its_share_of_the_way(base):
    """The times 5, 400 and 900 of 1000: from a half on, the last one has no hint yet."""
    trained, params = base
    always, late = (Tuned(trained, {"control": Control(start_share=share)}) for share in (0.0, 0.5))
    parts = {**params, "control": drawn(begun(always, params)["control"])}
    plain = np.asarray(trained.network.apply({"params": params["denoiser"]}, X, TIME))
    full, found = (predicted(method, parts, hint_hint=BATCH["hint"]) for method in (always, late))
    np.testing.assert_allclose(found[:2], full[:2], atol=1e-6)
    np.testing.assert_allclose(found[2], plain[2], atol=1e-6)
    assert np.abs(full[2] - plain[2]).max() > 0.01


def test_two_controls_add_up_beside_low_rank_updates_that_do_not_reach_the_copies(base):
    trained, params = base
    grafts = {"a": Control(), "b": Control(entry="depth"), "lora": LowRank(where="block_0/time$", rank=2)}
    method = Tuned(trained, grafts)
    assert set(method.conditions) == {"hint", "depth"}
    parts = {**params, **{name: drawn(part, i) for i, (name, part) in enumerate(begun(method, params).items())}}
    network = ControlNet.beside(bare_network(method.method.network), (16, 32))
    pairs = (("a", "hint"), ("b", "depth"))
    added = [network.apply({"params": parts[name]}, X, TIME, BATCH[entry]) for name, entry in pairs]
    hooked = Tuned(trained, {"lora": grafts["lora"]})
    wanted = hooked.method.network.apply(
        {"params": hooked.on({**params, "lora": parts["lora"]})["denoiser"]}, X, TIME,
        residuals=tuple(x + y for x, y in zip(*added, strict=True)),
    )  # fmt: skip
    found = predicted(method, parts, hint_hint=BATCH["hint"], hint_depth=BATCH["depth"])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_hint_of_latents_has_the_size_of_the_image():
    unet = UNet(4, 8, (1,), 1, (), middle_attention=False, norm_groups=4)
    codec = Latents(tiny_latents.Folded(), 1.0)
    trained = DDPM(unet, schedules.Cosine(), DDIM(2, clip=False), (16, 16, 1), codec=codec)
    factor = 16 // trained.shape[0]
    assert factor > 1
    batch = {"image": jnp.zeros((COUNT, 16, 16, 1)), "hint": jnp.zeros((COUNT, 16, 16, 1))}
    given, memory = trained.untrained(jax.random.key(0), batch)
    given |= trained.init(jax.random.key(0), batch, 0, given, {}, memory)[0]
    learned, _ = Tuned(trained, {"control": Control()}).init(jax.random.key(0), batch, 0, given, {}, memory)
    assert len(hint_widths(learned["control"])) == 1 + np.log2(factor)


def test_a_grey_hint_is_repeated_for_a_network_that_takes_three_channels(base):
    trained, params = base
    method = Tuned(trained, {"control": Control(channels=3)})
    parts = {**params, "control": drawn(begun(method, params)["control"])}
    assert method.entries["hint"] == ((8, 8, 3), "float32")
    one, three = (predicted(method, parts, hint_hint=x) for x in (BATCH["hint"], BATCH["hint"].repeat(3, -1)))
    np.testing.assert_array_equal(one, three)


def test_a_network_whose_levels_are_kept_keeps_its_control(base):
    trained, _ = base
    attends = dataclasses.replace(trained, network=trained.network.clone(attention_resolutions=(4,)))
    network = Tuned(attends, {"control": Control()}).method.network
    kept = network.levels_kept(8, 8)
    assert kept == dataclasses.replace(network, network=attends.network.levels_kept(8, 8)) != network
    transformer = dataclasses.replace(kept, network=DiT(out_channels=1, patch_size=2, width=16, depth=1, heads=2))
    assert transformer.levels_kept(8, 8) is transformer


def test_refusals(base):
    trained, params = base
    with pytest.raises(UserError, match="start_share to end_share"):
        Control(start_share=0.5, end_share=0.5)
    with pytest.raises(UserError, match="not negative"):
        Control(channels=-1)
    with pytest.raises(UserError, match="give one width more than halvings"):
        begun(Tuned(trained, {"control": Control(hint_widths=(4,))}), params)
    with pytest.raises(UserError, match="reads the entry 'sketch' .* config.data.corruptions.sketch"):
        begun(Tuned(trained, {"control": Control(entry="sketch")}), params)
    fine = begun(Tuned(trained, {"control": Control()}), params)["control"]
    wide = dataclasses.replace(trained, network=trained.network.clone(channels=16))
    others, _ = wide.init(jax.random.key(0), BATCH, 0, {}, {}, {})
    with pytest.raises(UserError, match="config.init_from.control does not belong to this model: '.*' has shape"):
        Tuned(wide, {"control": Control()}).init(jax.random.key(0), BATCH, 0, {**others, "control": fine}, {}, {})
    with pytest.raises(UserError, match="no ControlNet"):
        Control().loaded("control", {"a": jnp.zeros(1)}, trained, params, BATCH)
    network = DiT(out_channels=1, patch_size=2, width=16, depth=1, heads=2)
    with pytest.raises(UserError, match="has the network DiT"):
        Control().onto(dataclasses.replace(trained, network=network))
