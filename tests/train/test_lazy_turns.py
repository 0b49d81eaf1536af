"""Turns that are not due at every step: each is a program of its own, in front of the others."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import differing, largest_difference, on_host, opened, run
from tiny_methods import Lazy, tiny_config

from jaxgen.command.flags import Flags
from jaxgen.command.run import run as command
from jaxgen.files import read_json
from jaxgen.methods.base import Turn
from jaxgen.train.update import programs


def named_turns(*every):
    return [Turn(f"{i}", (), lambda *_: None, every=n) for i, n in enumerate(every)]


def test_lazy_turns_that_are_due_stand_in_front_in_their_order_and_the_others_stay_together():
    turns = named_turns(1, 4, 1, 2)

    def found(step):
        return [[turn.name for turn in program] for program in programs(turns, step)]

    assert found(0) == found(8) == [["1"], ["3"], ["0", "2"]]
    assert found(2) == [["3"], ["0", "2"]] and found(3) == [["0", "2"]]
    assert programs(named_turns(2), 1) == ((),)  # a step without a turn still ends


def test_a_step_is_the_lazy_turns_update_and_then_that_of_the_others(tmp_path):
    """A hand-made Adam does the same: first on the penalty, then on the error, both of which share its moments."""
    config = tiny_config("Lazy")
    with opened(config, tmp_path) as trainer:
        start, held = on_host(trainer.state), jax.tree.leaves(trainer.state)
        metrics = jax.device_get(trainer.take_step())
        end = on_host(trainer.state)
        assert all(leaf.is_deleted() for leaf in held)
        method, batch = trainer.method, trainer.builder.inputs.example  # the first step's batch
    image = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1
    state = start.replace(memory={"diary": jnp.asarray(start.memory["diary"])})
    adam, params = optax.adam(1e-3), start.params["net"]
    moments = adam.init(params)
    for loss, name in ((method.penalty, "penalty"), (method.loss, "fit")):
        value, gradient = jax.jit(
            jax.value_and_grad(lambda net, loss=loss: loss({"net": net}, {"image": image}, jax.random.key(0), state)[0])
        )(params)
        np.testing.assert_allclose(value, metrics[f"{name}/loss"], rtol=1e-5)
        updates, moments = adam.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
    assert largest_difference(params, end.params["net"]) < 1e-5
    assert end.memory["diary"][1].tolist() == [-1, 0] and end.memory["diary"][0, 0] >= 0  # the penalty was first
    assert end.step == 1 and end.images == 8
    ema = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, start.params, end.params)  # of the first step's end
    assert largest_difference(ema, end.ema) < 1e-6


@pytest.mark.slow
def test_steps_without_a_lazy_turn_have_the_bits_of_a_method_without_one(tmp_path):
    config = tiny_config("Plain")
    state = run(config, tmp_path / "plain", 16)
    config.method.update(name="tiny_methods:Lazy", every=2, fail=(0,))
    lazy = run(config, tmp_path / "lazy", 16)
    assert differing(state.params, lazy.params) == [] and differing(state.opt_state, lazy.opt_state) == []
    assert differing(state.ema, lazy.ema) == [] and differing(state.memory, lazy.memory) == []
    assert lazy.nonfinite_count == {"fit": 0, "penalty": 1}


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"train.accumulate": 2}, {"mesh.fsdp": 4}, {"mesh.data": 1}])
def test_accumulation_and_devices_change_rounding_only(tmp_path, change):
    config = tiny_config("Lazy", every=2)
    whole = run(config, tmp_path / "whole", 32)
    for key, value in change.items():
        config[key.partition(".")[0]][key.partition(".")[2]] = value
    config.sharding.min_size = 64
    other = run(config, tmp_path / "other", 32)
    assert largest_difference(whole.params, other.params) < 1e-5 and largest_difference(whole.ema, other.ema) < 1e-5


@pytest.mark.slow
def test_a_run_stopped_between_two_lazy_steps_goes_on_to_the_same_bits_and_lines(tmp_path):
    config = tiny_config("Lazy")
    config.train.log_every_images = 16
    whole = run(config, tmp_path / "whole")
    for images in (16, 48, 64):  # a run that ends between two lines has one more
        part = run(config, tmp_path / "part", images)
    assert differing(whole, part) == []
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "part")
    ]
    of_images = [{row["images"]: row for row in rows} for rows in lines]
    for images, row in of_images[0].items():
        assert ("penalty/loss" in row) == (images in (16, 48)) and "fit/loss" in row
        same = {name: value for name, value in row.items() if "second" not in name}
        assert same == {name: value for name, value in of_images[1][images].items() if "second" not in name}
    assert of_images[0][48]["penalty/step"] == 4


def test_plan_and_profile_show_each_program(tmp_path, capsys):
    config = tiny_config("Lazy")
    assert command(config, Flags(workdir="", mode="plan", topology="cpu:1", out=str(tmp_path))) == 0
    assert command(config, Flags(workdir="", mode="profile", out=str(tmp_path))) == 0
    assert capsys.readouterr().out.count("Lazy turn penalty, every 4 steps: 8 images") == 2
    for file in ("plan.json", "profile.json"):
        found = [program["name"] for program in read_json(tmp_path / file)["programs"]]
        assert found == ["update", "lazy turn penalty, every 4 steps", "sampler"]
    update, lazy, _ = read_json(tmp_path / "profile.json")["programs"]
    assert lazy["seconds"] > 0 and update["work"] > 0 and Lazy(every=4).turns(0)[1].every == 4
