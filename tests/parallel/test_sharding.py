"""Where arrays lie: rules over paths, FSDP and tensor parallelism against one device, and restoring on other meshes."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P
from running import differing, largest_difference, on_host, opened, run
from tiny_methods import ddpm_config, tiny_config

from jaxgen.config import check, differences, from_json, may_change, section, to_json
from jaxgen.data_shards import rows_sharded_as
from jaxgen.errors import UserError
from jaxgen.methods.base import State
from jaxgen.networks.dit import DiT
from jaxgen.networks.unet import UNet
from jaxgen.parallel.mesh import data_shards, make_mesh, over_data
from jaxgen.parallel.sharding import TENSOR, Layout, bytes_per_device
from jaxgen.runs.optim import Optimizer
from jaxgen.train.loop import Trainer


def shapes(**arrays):
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in arrays.items()}


def specs(layout: Layout, params):
    return jax.tree.map(lambda s: s.spec, layout.params(params))


def layout(fsdp=1, tensor=1, rules=(), **options) -> Layout:
    config = tiny_config("Plain")
    config.sharding.update(rules=rules, **options)
    return Layout.of(config, make_mesh(0, 8, fsdp, tensor))


# ------------------------------------------------------------------ rules


def test_without_rules_everything_is_whole():
    params = {"net": shapes(kernel=(64, 512), bias=(512,))}
    assert layout().all_replicated
    assert specs(layout(), params) == {"net": {"kernel": P(), "bias": P()}}


def test_fsdp_splits_the_largest_dimension_that_it_divides():
    arrays = {"wide": (64, 512), "tall": (512, 64), "odd": (1001, 12), "none": (1001, 999), "conv": (3, 3, 128, 128)}
    params = {"net": shapes(**arrays, small=(8,))}
    found = specs(layout(fsdp=4), params)["net"]
    assert found["wide"] == P(None, "fsdp") and found["tall"] == P("fsdp", None)
    assert found["odd"] == P(None, "fsdp")  # the larger is not divisible
    assert found["none"] == P() and found["small"] == P()
    assert found["conv"] == P(None, None, None, "fsdp")
    assert specs(layout(fsdp=4, min_size=1), params)["net"]["small"] == P("fsdp")


def test_a_rule_of_the_user_comes_first_and_is_final():
    params = {"net": {"a": shapes(kernel=(64, 512)), "b": shapes(kernel=(64, 512))}}
    mine = layout(fsdp=2, tensor=2, rules=((r"a/kernel$", ("tensor",)), (r"kernel$", (None, ("data", "fsdp")))))
    found = specs(mine, params)["net"]
    assert found["a"]["kernel"] == P("tensor") and found["b"]["kernel"] == P(None, ("data", "fsdp"))


def test_layers_that_are_scanned_lie_as_those_that_are_not():
    x = jnp.zeros((1, 8, 8, 3))
    plain = DiT(width=32, depth=8, heads=4, num_classes=3)
    trees = [
        jax.eval_shape(dit.init, jax.random.key(0), x, jnp.zeros(1), jnp.zeros(1, jnp.int32))["params"]
        for dit in (plain, plain.clone(scan_blocks=True))
    ]
    for sizes in ({"fsdp": 8}, {"tensor": 2}, {"fsdp": 2, "tensor": 2}):
        each, stacked = (specs(layout(**sizes, min_size=1), tree) for tree in trees)
        expected = jax.tree.map(lambda spec: P(None, *spec) if spec else spec, each["block_0"])
        assert stacked["blocks"] == expected and stacked["patch_in"] == each["patch_in"]


@pytest.mark.parametrize("make", [DiT, UNet])
def test_activations_stay_split_by_rows_where_weights_are_split(make):
    options = {"depth": 3, "heads": 2} if make is DiT else {"channel_multipliers": (1,), "norm_groups": 4, "blocks": 3}
    network = make(out_channels=1, **({"width": 16} if make is DiT else {"channels": 8}), **options)
    x, time = jnp.zeros((8, 8, 8, 1)), jnp.zeros(8)
    params = jax.eval_shape(network.init, jax.random.key(0), x, time)

    def constraints(fsdp):
        with rows_sharded_as(over_data(make_mesh(0, 8, fsdp))):
            return str(jax.make_jaxpr(network.apply)(params, x, time)).count("sharding_constraint[")

    assert constraints(fsdp=1) == 0 and constraints(fsdp=2) > 3


def test_tensor_rules_pair_columns_with_rows_and_leave_room_for_fsdp():
    attention = {name: shapes(kernel=(64, 64), bias=(64,)) for name in ("query", "key", "value", "out")}
    mlp = {"in": shapes(kernel=(64, 256)), "out": shapes(kernel=(256, 64))}
    params = {"net": {"middle_attention": attention, "mlp": mlp}}
    found = specs(layout(fsdp=2, tensor=2, min_size=1000), params)["net"]
    assert found["middle_attention"]["query"] == {"kernel": P("fsdp", "tensor"), "bias": P("tensor")}
    assert found["middle_attention"]["out"] == {"kernel": P("tensor", "fsdp"), "bias": P()}
    assert found["mlp"]["in"]["kernel"] == P("fsdp", "tensor") and found["mlp"]["out"]["kernel"] == P("tensor", "fsdp")
    assert len(TENSOR) > 5


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "lion"])
def test_optimiser_state_lies_where_its_parameter_does(name):
    params = {"net": {"kernel": jnp.zeros((256, 512)), "bias": jnp.zeros(512)}}
    optimizer = Optimizer({"name": name, "learning_rate": 1e-3}, 100, "config.optimizer")
    zero = jnp.zeros((), jnp.int32)
    pool, moments = {"pool": jnp.zeros((64, 512))}, {"net": optimizer.init(params["net"])}
    state = State(zero, zero, params, pool, moments, params, {})
    mine = layout(fsdp=8)
    found = mine.state(state)
    assert found.params["net"]["kernel"].spec == P(None, "fsdp") == found.ema["net"]["kernel"].spec
    assert found.memory["pool"].spec == P() == found.step.spec
    for leaf, sharding in zip(jax.tree.leaves(state.opt_state), jax.tree.leaves(found.opt_state), strict=True):
        if leaf.shape == (256, 512):
            assert sharding.spec == P(None, "fsdp")
        if leaf.shape == (512,) and name == "adafactor":  # the columns' factor, or the bias's own
            assert sharding.spec in (P("fsdp"), P())
        assert len(sharding.shard_shape(leaf.shape)) == leaf.ndim  # raises where it does not divide
    if name == "adafactor":
        assert sum(x.size for x in jax.tree.leaves(state.opt_state)) < 5000
        assert P("fsdp") in [sharding.spec for sharding in jax.tree.leaves(found.opt_state)]


WRONG = [
    ({"rules": (("kernel$", (None, "tenser")),)}, r"'kernel\$' names the axis 'tenser'; did you mean 'tensor'\?"),
    ({"rules": (("kernle$", ("fsdp",)),)}, r"'kernle\$' is found in no parameter's path; paths look like 'net/"),
    ({"rules": (("kernel$", ("data",)),)}, r"8 devices on 'data' do not divide dimension 0 of net/out/kernel, \(12, 6"),
    ({"rules": (("bias$", (None, "fsdp")),)}, r"gives 2 dimensions to net/dense_0/bias, which has 1"),
    ({"rules": (("k(", ("fsdp",)),)}, r"'k\(' is no regular expression"),
    ({"rules": ("kernel$",)}, r"'kernel\$' is not a pair of an expression and the axes"),
    ({"rules": (("out/kernel$", ("fsdp", "fsdp")),)}, r"uses an axis for two dimensions"),
    ({"tensor": 2}, r"config\.mesh\.tensor=2, but no rule splits any parameter over it"),
    ({"fsdp": 3}, r"fsdp=3, tensor=1 does not divide a \(micro-\)batch of 8 images"),
    ({"fsdp": 16}, r"fsdp=16, tensor=1, but there are 8 devices"),
    ({"fsdp": 0}, r"config\.mesh\.fsdp is 0; it must be 1"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_mistake_is_one_sentence(tmp_path, change, message):
    config = tiny_config("Plain")
    for key, value in change.items():
        config[("sharding" if key == "rules" else "mesh")][key] = value
    with pytest.raises(UserError, match=message) as error:
        Trainer(config, tmp_path)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------ training


def dit_config():
    config = ddpm_config()
    config.method.network = section(name="dit", out_channels=1, patch_size=2, width=32, depth=1, heads=4)
    return config


def unet_config():
    return ddpm_config(channels=8, channel_multipliers=(1, 2), middle_attention=True, heads=2)


def losses(config, workdir, steps=3):
    with opened(config, workdir) as trainer:
        held = bytes_per_device(trainer.state)
        found = [float(jax.device_get(trainer.take_step())["denoise/loss"]) for _ in range(steps)]
        return np.array(found), held, on_host(trainer.state.params), data_shards(trainer.mesh)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "meshes"),
    [
        (dit_config, [(1, 8, 1), (0, 2, 2)]),
        pytest.param(unet_config, [(1, 8, 1), (0, 1, 2)], marks=pytest.mark.slow),
    ],
)
def test_sharded_training_computes_what_one_device_does(tmp_path, make, meshes):
    config = make()
    config.optimizer.update(name="adamw", learning_rate=1e-4, warmup_images=0)
    config.sharding.min_size = 64
    config.mesh.data = 1
    one, whole, params, _ = losses(config, tmp_path / "one")
    for data, fsdp, tensor in meshes:
        config.mesh.update(data=data, fsdp=fsdp, tensor=tensor)
        found, held, moved, parts = losses(config, tmp_path / f"{fsdp}_{tensor}")
        np.testing.assert_allclose(found, one, rtol=1e-5, atol=1e-5)
        assert largest_difference(moved, params) < 1e-5
        assert parts == 8 // tensor
        assert held < (whole / 6 if fsdp == 8 else whole)


@pytest.mark.slow
def test_accumulation_and_the_guard_work_on_a_sharded_state(tmp_path):
    config = tiny_config("Plain", fail_at=(1,))
    config.optimizer.update(name="adam", clip_norm=0.5)
    config.train.accumulate = 2
    config.sharding.min_size = 1
    runs = {}
    for fsdp in (1, 4):
        config.mesh.update(data=1, fsdp=fsdp)
        runs[fsdp] = run(config, tmp_path / str(fsdp), 32)
    assert largest_difference(runs[1].params, runs[4].params) < 1e-6
    assert largest_difference(runs[1].ema, runs[4].ema) < 1e-6


@pytest.mark.slow
def test_a_checkpoint_is_restored_on_any_mesh(tmp_path):
    config = tiny_config("Plain")
    config.sharding.min_size = 16
    config.mesh.update(data=1, fsdp=8)
    before = run(config, tmp_path, 32)
    for data, fsdp in ((2, 4), (1, 1), (4, 2)):
        config.mesh.update(data=data, fsdp=fsdp)
        with opened(config, tmp_path) as trainer:
            assert trainer.step == 4 and dict(trainer.mesh.shape) == {"data": data, "fsdp": fsdp, "tensor": 1}
            assert differing(on_host(trainer.state), before) == []
            kernel = trainer.state.params["net"]["dense_0"]["kernel"]
            assert kernel.addressable_shards[0].data.size == kernel.size // fsdp
    config.mesh.update(data=2, fsdp=4)
    assert int(run(config, tmp_path, 64).step) == 8


@pytest.mark.slow
def test_a_sharded_model_draws_what_a_whole_one_does(tmp_path):
    config = tiny_config("Plain")
    config.sharding.min_size = 16
    config.mesh.update(data=1, fsdp=8)
    run(config, tmp_path, 16)
    images = []
    for fsdp in (8, 1):
        config.mesh.update(fsdp=fsdp)
        with opened(config, tmp_path) as trainer:
            images.append(trainer.generator.images(trainer.model(), 5, 12).images)
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


@pytest.mark.nightly
def test_a_growing_method_keeps_its_sharding_over_a_boundary(tmp_path):
    config = tiny_config("Growing")
    config.sharding.min_size = 16
    states = {}
    for fsdp in (1, 2):
        config.mesh.update(data=1, fsdp=fsdp)
        states[fsdp] = run(config, tmp_path / str(fsdp), 64)
    assert largest_difference(states[1].params, states[2].params) < 1e-5


def test_initialisation_leaves_no_array_whole(tmp_path):
    config = tiny_config("Plain")
    config.sharding.min_size = 16
    config.mesh.update(data=1, fsdp=8)
    with opened(config, tmp_path) as trainer:
        builder = trainer.builder
        compiled = builder.begin_program.lower(builder.inputs).compile()
        written = jax.tree.leaves(compiled.output_shardings)
        sizes = {
            math.prod(sharding.shard_shape(x.shape)) / x.size
            for x, sharding in zip(jax.tree.leaves(trainer.state), written, strict=True)
            if x.ndim == 2 and x.size > 500
        }
        assert sizes == {1 / 8}


# ------------------------------------------------------------------ the config


def test_a_run_that_began_before_there_were_rules_goes_on():
    old = tiny_config("Plain").to_dict()
    del old["sharding"], old["distributed"], old["mesh"]["fsdp"], old["mesh"]["tensor"]
    again = from_json(json.dumps(old))
    check(again)
    assert differences(tiny_config("Plain"), again) == {}


def test_rules_survive_the_workdir():
    config = tiny_config("Plain")
    config.sharding.rules = (("kernel$", (None, ("data", "fsdp"))), ("bias$", ()))
    again = from_json(to_json(config))
    assert Layout.of(again, make_mesh(0, 8)).rules == config.sharding.rules
    assert all(may_change(key) for key in ("sharding.rules", "mesh.fsdp", "distributed.process_id"))


def test_rules_may_come_from_the_command_line(tmp_path, capsys):
    words = [f"--config={tiny.write_config(tmp_path)}", "--config.sharding.rules=(('kernel$', (None, 'tenser')),)"]
    assert tiny.call(*words, f"--workdir={tmp_path / 'run'}") == 2
    assert "'kernel$' names the axis 'tenser'; did you mean 'tensor'?" in capsys.readouterr().err
    assert tiny.call(words[0], "--mode=plan") == 2
    assert "--topology is needed in --mode=plan: give --topology=<machine>" in capsys.readouterr().err
    assert tiny.call(words[0], f"--workdir={tmp_path / 'run'}", "--find_batch") == 2
    assert "--find_batch has no use in --mode=train; it is for --mode=plan" in capsys.readouterr().err
