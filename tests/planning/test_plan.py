"""Plans: what a state holds, what fits, what is suggested where it does not, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
import types

import jax
import jax.numpy as jnp
import pytest
import tiny
from running import run
from tiny_methods import ddpm_config, tiny_config

from jaxgen.config import section
from jaxgen.config.files import load_config
from jaxgen.errors import UserError
from jaxgen.files import read_json
from jaxgen.parallel.mesh import make_mesh
from jaxgen.planning import plan as plans
from jaxgen.planning import programs, roofline
from jaxgen.planning.topology import devices
from jaxgen.report.page import write_report
from jaxgen.report.plan import plan_text, size

# ------------------------------------------------------------------ plans


def absent(config):
    """A config whose data nobody has."""
    config.data.update(source="folder:/nowhere/at/all", split="train", eval_split="test")
    return config


def test_a_plan_of_data_that_are_not_here_holds_what_the_state_does():
    config = absent(tiny_config("Plain", diary=False))
    found = plans.plan(config, "cpu:8")
    assert found.fits and found.mesh == {"data": 8, "fsdp": 1, "tensor": 1} and found.suggestions == ()
    weights = 64 * 12 + 12 + 12 * 64 + 64
    assert found.parameters == weights
    assert found.state["parameters"] == found.state["EMA"] == 4 * weights
    assert found.state["optimiser"] == 8 * weights + 4  # Adam's two moments and its count
    update, sampler = found.programs
    assert update.images == 8 and sampler.images == 8
    assert update.work == pytest.approx(2 * 2 * 12 * 64 + 3 * 2 * 12 * 64)  # the first layer needs no input gradient
    assert set(update.collectives) == {"all-reduce"} and sampler.collectives == {}
    sent = update.collectives["all-reduce"]["bytes"]
    assert 4 * weights <= sent <= 4 * weights + 64  # the gradients, once, and the loss
    assert update.memory["total"] >= sum(found.state.values())
    assert update.estimate is None and "no time is estimated" in found.assumptions[0]


def test_fsdp_shows_as_less_state_and_gathered_weights():
    config = absent(tiny_config("Plain", diary=False))
    whole = plans.plan(config, "cpu:8", sampler=False)
    config.mesh.fsdp = 8
    config.sharding.min_size = 16
    split = plans.plan(config, "cpu:8", sampler=False)
    for part in ("parameters", "optimiser", "EMA"):
        assert split.state[part] < whole.state[part] / 6
    assert "all-gather" in split.programs[0].collectives


@pytest.mark.parametrize("name", ["ddpm_digits", "dit_digits"])
def test_eight_devices_hold_a_sixth_of_a_shipped_configs_state_each(name):
    config, _ = load_config(tiny.ROOT / "configs" / f"{name}.py")
    held = []
    for config.mesh.fsdp in (1, 8):
        held.append(sum(programs.Job(config, devices("cpu:8")).parts().values()))
    assert held[1] <= held[0] / 6


def test_a_plan_that_does_not_fit_names_the_first_change_that_does(monkeypatch):
    config = absent(tiny_config("Plain", diary=False))
    config.sharding.min_size = 16
    config.mesh.data = 2
    whole = plans.plan(config, "cpu:2", sampler=False).programs[0].memory["total"]
    monkeypatch.setattr(roofline, "memory_of", lambda device, count: whole - 4000)
    found = plans.plan(config, "cpu:2")
    assert not found.fits and len(found.programs) == 1
    assert found.suggestions[0].overrides == {"mesh.data": 0, "mesh.fsdp": 2}
    assert found.suggestions[-1].fits and not any(each.fits for each in found.suggestions[:-1])
    text = plan_text(found.to_dict())
    assert "DOES NOT FIT. It fits with --config.mesh.data=0 --config.mesh.fsdp=2" in text


def test_a_sampler_that_does_not_fit_gets_a_smaller_batch(monkeypatch):
    config = absent(tiny_config("Plain"))

    def sampler(job):
        size = job.config.evaluate.batch_size
        return programs.Program("sampler", size, size <= 2, {"total": float(size), "limit": 2.0}, 0.0)

    monkeypatch.setattr(plans.Job, "sampler", sampler)
    found = plans.plan(config, "cpu:2")
    assert [(each.overrides["evaluate.batch_size"], each.fits) for each in found.suggestions] == [(4, False), (2, True)]
    assert "DOES NOT FIT. It fits with --config.evaluate.batch_size=2" in plan_text(found.to_dict())


def test_a_change_that_the_last_program_shows_to_be_far_too_little_is_not_compiled(monkeypatch):
    config = absent(tiny_config("Plain"))
    config.train.batch_size = 64
    asked = []

    def update(job):
        train = job.config.train
        rows = train.batch_size // train.accumulate
        asked.append((rows, train.accumulate))
        memory = {"parameters": 5.0, "total": 5.0 + rows, "limit": 10.0}  # of which a batch of 5 fits
        return programs.Program("update", train.batch_size, rows <= 5, memory, 0.0)

    monkeypatch.setattr(plans.Job, "update", update)
    found = plans.plan(config, "cpu:1")
    # neither 32 nor 16 images at once, nor more than 8 micro-batches
    assert asked == [(64, 1), (8, 8), (8, 1), (4, 1)]
    assert found.suggestions[-1] == plans.Suggestion({"train.batch_size": 4}, True, 9.0)
    asked.clear()
    assert plans.find_batch(config, "cpu:1") == (4, {64: False, 8: False, 4: True})


def test_data_are_opened_only_for_what_images_and_labels_do_not_show():
    config = tiny_config("Table", rows=10)  # reads labels, though the config says that there are no classes
    assert plans.plan(config, "cpu:2").parameters == 640
    with pytest.raises(UserError, match="/nowhere"):
        plans.plan(absent(config), "cpu:2")


def test_weights_that_are_not_here_have_the_shapes_of_the_configs_own_networks():
    config, _ = load_config(tiny.ROOT / "configs" / "latent_diffusion_shapes.py")
    config.init_from.autoencoder = "/nowhere/at/all"
    job = programs.Job(absent(config), devices("cpu:2"))
    (sentence,) = job.absent
    assert "'/nowhere/at/all' is not the workdir of a run" in sentence and "config's own network" in sentence
    method = job.method
    fresh = jax.eval_shape(method.autoencoder.init, jax.random.key(0), jnp.zeros((1, *method.image_shape)))["params"]
    assert jax.tree.map(lambda x: x.shape, job.frozen["autoencoder"]) == jax.tree.map(lambda x: x.shape, fresh)
    assert job.example["tokens"].shape == (config.train.batch_size, config.method.text.length)
    assert set(job.state.params) == {"denoiser", "text"} and job.state.memory["autoencoder"]["mean"].shape == ()

    config, _ = load_config(tiny.ROOT / "configs" / "kl_autoencoder_shapes.py")
    config.init_from.perceptual = "/nowhere/at/all"  # which the method cannot make
    with pytest.raises(UserError, match="is not the workdir of a run"):
        programs.Job(absent(config), devices("cpu:2"))


def test_frozen_weights_have_the_type_of_init_from(tmp_path):
    run(tiny_config("Plain"), tmp_path / "plain", 8)
    config = tiny_config("Borrower")
    config.init_from = section(net=str(tmp_path / "plain"))
    full = plans.plan(config, "cpu:1", sampler=False)
    config.init_from.dtype = "bfloat16"
    half = plans.plan(config, "cpu:1", sampler=False)
    assert half.state["frozen"] * 2 == full.state["frozen"] > 0


@pytest.mark.slow
def test_a_whole_trained_model_in_half_precision_takes_half(tmp_path):
    run(ddpm_config(middle_attention=True), tmp_path / "base", 8)
    config = ddpm_config(middle_attention=True)
    config.method = section(name="tuned", grafts=section(lora=section(name="low_rank", rank=1)))
    config.sampler = section()
    config.init_from.pretrained = str(tmp_path / "base")
    full = plans.plan(config, "cpu:1", sampler=False)
    config.init_from.dtype = "bfloat16"
    half = plans.plan(config, "cpu:1", sampler=False)
    assert half.state["frozen"] * 2 == full.state["frozen"] > 0
    assert half.state["optimiser"] == full.state["optimiser"] > 0


def test_a_source_that_does_not_exist_is_refused_though_no_data_are_opened():
    config = tiny_config("Plain")
    config.data.source = "digts"
    with pytest.raises(UserError, match=r"config\.data\.source='digts' is unknown; did you mean 'digits'\?"):
        plans.plan(config, "cpu:1")
    config.data.update(source="digits", extra={"more": {"source": "folder", "split": "train"}})
    with pytest.raises(UserError, match="The data source 'folder' lacks its argument"):
        plans.plan(config, "cpu:1")


@pytest.mark.parametrize("network", [section(name="dit"), section(name="unet"), section(dtype="float32", remat="")])
def test_candidates_go_from_mild_to_harsh(network):
    """The last section has no name: it changes the network of a folder."""
    config = ddpm_config()
    config.method.network = network
    config.train.batch_size = 8
    found = plans._candidates(config, 8)
    assert found[:3] == [{"mesh.data": 0, "mesh.fsdp": 8}, {"method.network.remat": "block"}, {**found[0], **found[1]}]
    assert found[3] == {**found[2], "train.accumulate": 2}
    assert found[-1] == {**found[2], "train.batch_size": 1}


def test_the_batch_is_doubled_until_it_no_longer_fits(monkeypatch):
    config = absent(tiny_config("Plain"))
    asked = []

    class Job:
        def __init__(self, config, machine):
            asked.append(config.train.batch_size)

        lazy = {}

        def trace_update(self):
            pass

        def tightest(self):
            return programs.Program("update", asked[-1], asked[-1] <= limit, {"total": None, "limit": None}, 0.0)

    monkeypatch.setattr(programs, "Job", Job)
    limit = 40
    assert plans.find_batch(config, "cpu:1") == (32, {8: True, 16: True, 32: True, 64: False})
    limit = 3
    assert plans.find_batch(config, "cpu:1") == (2, {8: False, 4: False, 2: True})
    limit = 0
    assert plans.find_batch(config, "cpu:1")[0] == 0


def test_a_refused_program_says_what_it_would_have_used():
    used = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity"
    assert programs.refused(used, 1.0, 2.0) == {"total": 20.5 * 2**30, "limit": 15.75 * 2**30}
    other = (
        "Ran out of memory on HBM, the total memory required for HLO temporaries (25.42G) exceeds available HBM (1G)"
    )
    assert programs.refused(other, 100.0, 2.0)["total"] == pytest.approx(25.42 * 2**30 + 100)
    assert programs.refused("out of memory", 1.0, 2.0) == {"total": None, "limit": 2.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "is no machine; write v5e:2x4"),
        ("cpu:0", "is no machine"),
        ("cpu:100000", "more devices than 1,024"),
        ("v5e:2000x2000", "more devices than 1,000,000"),
        (f"cpu:{'9' * 5000}", "is no machine"),
        ("cpu:2x2", "is no machine"),
        ("cpu:64", "this process has 8 CPU devices"),
        ("gpu:1", "XLA compiles for GPUs that are here, and there are 0"),
    ],
)
def test_a_machine_that_cannot_be_planned_for_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        devices(name)


@pytest.mark.parametrize(("tensor", "needed"), [(1, 8), (2, 4)])
def test_a_batch_that_leaves_chips_of_a_tpu_idle_is_refused(tensor, needed):
    chips = [types.SimpleNamespace(platform="tpu")] * 8
    half, whole = (make_mesh(n // tensor, n, 1, tensor, jax.devices()[:n]) for n in (4, 8))
    with pytest.raises(UserError, match=f"size=4 fills 4 of 8 chips.* make it a multiple of {needed}, or take"):
        programs.check_complete(chips, half, "config.train.batch_size=4")
    programs.check_complete(chips, whole, "config.train.batch_size=8")
    programs.check_complete(devices("cpu:8"), half, "config.train.batch_size=4")


def test_a_tpu_without_its_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the TPU's compiler; install it with pip install -e '\.\[tpu\]'"):
        devices("v5e:2x4")


def test_the_report_has_a_section_for_the_plan(tmp_path):
    made = plans.plan(absent(tiny_config("Plain")), "cpu:4", sampler=False)
    (tmp_path / "plan.json").write_text(json.dumps(made.to_dict()))
    page = write_report(tmp_path).read_text()
    assert '<section id="plan">' in page and "cpu:4" in page and size(made.state["optimiser"]) in page
    (tmp_path / "plan.json").write_text('{"topology": 1}')
    with pytest.raises(UserError, match="is not a plan"):
        write_report(tmp_path)


@pytest.mark.slow
def test_the_command_plans_in_a_process_of_its_own(tmp_path):
    config = tiny.write_config(tmp_path)
    done = tiny.spawn(
        f"--config={config}",
        "--mode=plan",
        "--topology=cpu:4",
        f"--out={tmp_path / 'out'}",
        "--config.mesh.fsdp=2",
        "--config.data.source=folder:/nowhere",
        devices=4,
    )
    assert done.status == 0, done.err
    assert "cpu:4 (cpu; data 2, fsdp 2, tensor 1), 32 images an update: fits." in done.out
    assert read_json(tmp_path / "out" / "plan.json")["fits"] and (tmp_path / "out" / "report.html").exists()
    wrong = tiny.spawn(f"--config={config}", "--mode=plan", "--topology=v7:2x2")
    assert wrong.status == 2 and "is no machine" in wrong.complaint


SLICES = """
import sys
from jaxgen.parallel.mesh import make_mesh
from jaxgen.planning.topology import devices, use_topology
use_topology("v5e:2x4")
for name in sys.argv[1:]:
    found = devices(name)
    mesh = make_mesh(0, 1024, min(2, len(found)), 1, found)
    slices = {getattr(d, "slice_index", None) for d in mesh.devices[: len(mesh.devices) // 2].flat}
    print(name, len(found), found[0].device_kind, mesh.shape["data"], len(slices), sep=",")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra 'tpu'")
def test_slices_are_described_and_meshed():
    names = ("v5e:1x1", "v5e:16x16", "v5e:4x4*2", "v5p:2x2x2", "v6e:4x4")
    done = tiny.spawn(argv=[sys.executable, "-c", SLICES, *names])
    assert done.status == 0, done.err
    rows = [line.split(",") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == list(names)
    assert [int(row[1]) for row in rows] == [1, 256, 32, 8, 16]
    assert [row[2] for row in rows] == ["TPU v5 lite"] * 3 + ["TPU v5", "TPU v6 lite"]
    assert all(int(row[3]) == max(int(row[1]) // 2, 1) for row in rows)
    assert {row[4] for row in rows[1:]} == {"1"}  # half of the data axis lies within one slice


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra 'tpu'")
def test_a_tpu_that_is_not_here(tmp_path):
    config = tiny.write_config(tmp_path)
    words = (f"--config={config}", "--mode=plan", "--topology=v5e:2x4", f"--out={tmp_path}", "--config.mesh.fsdp=8")
    done = tiny.spawn(*words, "--config.sharding.min_size=64", "--config.data.source=folder:/nowhere")
    assert done.status == 0, done.err
    found = read_json(tmp_path / "plan.json")
    assert found["device"] == "TPU v5 lite" and found["fits"] and found["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
    update, sampler = found["programs"]
    assert "all-gather" in update["collectives"]
    assert update["estimate"]["least"] > 0 and update["memory"]["limit"] == 16 * 2**30
    assert sampler["flops"] > 3 * update["work"]  # four steps


def test_a_plan_says_what_effort_the_compiler_was_told_to_make():
    assert plans._effort() == []
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    try:
        (sentence,) = plans._effort()
    finally:
        jax.config.update("jax_exec_time_optimization_effort", 0.0)
    assert "exec_time_optimization_effort=-1:" in sentence and "memory_fitting_effort" not in sentence
