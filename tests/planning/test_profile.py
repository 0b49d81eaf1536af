"""Profiles: where operations come from, times from a real trace, and what is refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import pytest
import tiny
from tiny_methods import ddpm_config, tiny_config

from jaxgen.command.flags import Flags
from jaxgen.command.run import run
from jaxgen.errors import UserError
from jaxgen.files import read_json
from jaxgen.planning import trace
from jaxgen.planning.profile import UPDATES, profile
from jaxgen.report.page import write_report
from jaxgen.report.profile import profile_text

ORIGINS = {
    "jit(update)/transpose(jvp(UNet))/down_0_block_0/conv_in/conv_general_dilated": (
        "UNet/down_0_block_0/conv_in", "conv_general_dilated", True,
    ),
    "jit(update)/jvp(DiT)/while/body/closed_call/blocks.step/blocks.step/checkpoint/blocks/mlp/in/dot_general": (
        "DiT/blocks/mlp/in", "dot_general", False,
    ),
    "jit(update)/jvp(UNet)/UNet.embed/time_in/add": ("UNet.embed/time_in", "add", False),
    "jit(update)/jvp(UNet)/UNet._block/up_0/conv_in/mul": ("UNet/up_0/conv_in", "mul", False),
    "jit(update)/jvp()/jit(silu)/mul": ("", "mul", False),
    "": ("", "", False),
    "jit(f)/jvp(A)/a/add;jit(f)/jvp(A)/b/mul": ("several layers", "add", False),
    "jit(f)/transpose(jvp(A))/(a/(add:mul):b/dot_general)": ("several layers", "add", True),
    "jit(f)/jvp(A)/(a/add:a/mul)": ("A/a", "add", False),
    "jit(f)/transpose(jvp(A))/a/add;jit(f)/jvp(A)/a/mul": ("A/a", "add", True),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ORIGINS))
def test_operations_know_their_layer(name):
    assert trace.origin(name) == ORIGINS[name]


def test_a_trace_gives_every_instruction_its_calls_and_most_of_its_time(tmp_path):
    def work(x):
        with jax.named_scope("heavy"):
            x = jax.lax.scan(lambda c, _: (jnp.sin(c @ c), None), x, None, length=4)[0]
        return x + 1

    compiled = jax.jit(work).lower(jnp.zeros((256, 256))).compile()
    x = jnp.ones((256, 256)) / 256
    jax.block_until_ready(compiled(x))
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            jax.block_until_ready(compiled(x))
    found = trace.operations(
        tmp_path, {"jit_work": compiled.as_text(), "jit_other": ""}, {"jit_work": 3, "jit_other": 1}
    )
    assert found["jit_other"] == []
    dots = [each for each in found["jit_work"] if each.layer == "heavy" and each.kind.startswith("dot")]
    assert dots and sum(each.calls for each in dots) == 4
    assert not any(each.kind == "while" for each in found["jit_work"])
    assert all(each.seconds > 0 for each in found["jit_work"])
    times = [each.seconds for each in found["jit_work"]]
    assert times == sorted(times, reverse=True)


def test_the_command_runs_update_and_sampler_and_writes_trace_table_and_report(tmp_path, capsys):
    config = tiny_config("Plain")
    assert run(config, Flags(workdir="", mode="profile", out=str(tmp_path))) == 0
    printed = capsys.readouterr().out
    assert "Update: 8 images" in printed and "Sampler: 8 images" in printed and "data: digits" in printed
    made = read_json(tmp_path / "profile.json")
    update, sampler = made["programs"]
    assert update["runs"] == UPDATES and sampler["runs"] == 1
    for program in (update, sampler):
        assert program["operations"] and program["seconds"] > 0
    layers = {each["layer"] for each in update["operations"]}
    assert any("dense" in layer for layer in layers) and any(each["backward"] for each in update["operations"])
    assert list((tmp_path / "trace" / "update").rglob("*.xplane.pb"))
    assert '<section id="timing">' in (tmp_path / "report.html").read_text()

    (tmp_path / "profile.json").write_text('{"device": 1}')
    with pytest.raises(UserError, match="is not a profile"):
        write_report(tmp_path)


def test_it_needs_a_place_to_write_to():
    with pytest.raises(UserError, match="--mode=profile needs --out"):
        run(tiny_config("Plain"), Flags(workdir="", mode="profile"))


@pytest.mark.slow
def test_data_and_weights_that_are_not_here_are_replaced_and_said_so(tmp_path):
    config = ddpm_config()
    config.data.source = "folder:/nowhere/at/all"
    made = profile(config, tmp_path).to_dict()
    assert made["data"] == "random" and "/nowhere/at/all" in made["notes"][0]
    update = made["programs"][0]
    layers = {each["layer"] for each in update["operations"]}  # all of them: the text lists only the slowest
    assert "UNet/up_0_block_1/conv_in" in layers
    assert "The data are random ones" in profile_text(json.loads(json.dumps(made)))
    with jax.profiler.trace(str(tmp_path / "other")), pytest.raises(UserError, match="profiler cannot start"):
        profile(tiny_config("Plain"), tmp_path / "again")


@pytest.mark.slow
def test_frozen_weights_that_are_not_here_are_fresh(tmp_path):
    from jaxgen.config.files import load_config

    config, _ = load_config(tiny.ROOT / "configs" / "autoencoder_probe_digits.py")
    config.init_from.encoder = "/nowhere/at/all"
    made = profile(config, tmp_path)
    assert "All frozen weights are fresh ones." in made.notes[0]
    assert [program.name for program in made.programs] == ["update"]
