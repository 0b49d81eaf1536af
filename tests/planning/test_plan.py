"""Plans: collectives and FLOPs of functions whose own are known, what a state holds, suggestions, refusals."""

from __future__ import annotations

import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tiny_methods import ddpm_config, tiny_config

from jaxgen.config import section
from jaxgen.config_files import load_config
from jaxgen.errors import UserError
from jaxgen.files import read_json
from jaxgen.planning import flops, hlo, programs, roofline
from jaxgen.planning import plan as plans
from jaxgen.planning.topology import devices
from jaxgen.report.page import write_report
from jaxgen.report.plan import plan_text, size

# ------------------------------------------------------------------ collectives


def compiled(function, count, spec_in, spec_out, *shapes):
    mesh = Mesh(np.array(jax.devices()[:count]), ("x",))
    arrays = [
        jax.ShapeDtypeStruct(s, jnp.float32, sharding=NamedSharding(mesh, p))
        for s, p in zip(shapes, spec_in, strict=True)
    ]
    return jax.jit(function, out_shardings=NamedSharding(mesh, spec_out)).lower(*arrays).compile().as_text()


def test_a_mean_over_rows_is_one_all_reduce():
    found = hlo.collectives(compiled(lambda x: x.sum(0), 4, [P("x")], P(), (8, 100)))
    assert [(c.kind, c.size, c.group, c.times) for c in found] == [("all-reduce", 400, 4, 1)]
    assert found[0].moved == 2 * 3 / 4 * 400


def test_a_gathered_array_is_one_all_gather_of_its_full_size():
    found = hlo.collectives(compiled(lambda x: x * 2, 8, [P("x")], P(), (16, 10)))
    assert [(c.kind, c.size, c.group) for c in found] == [("all-gather", 640, 8)]
    assert found[0].moved == 7 / 8 * 640


def test_a_shift_is_a_permutation():
    def shift(x):
        mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
        around = [(i, (i + 1) % 4) for i in range(4)]
        return jax.shard_map(lambda x: jax.lax.ppermute(x, "x", around), mesh=mesh, in_specs=P("x"), out_specs=P("x"))(
            x
        )

    found = hlo.collectives(compiled(shift, 4, [P("x")], P("x"), (8, 4)))
    assert [(c.kind, c.size, c.moved) for c in found] == [("collective-permute", 32, 32)]


def test_a_collective_in_a_loop_counts_its_iterations():
    def loop(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=7)[0]

    text = compiled(loop, 4, [P(), P("x", None)], P(), (3, 20), (20, 20))
    found = [c for c in hlo.collectives(text) if c.times > 1]
    assert found and {c.times for c in found} == {7}


def test_what_stays_on_one_device_has_none():
    assert hlo.collectives(compiled(lambda x: x @ x, 1, [P()], P(), (8, 8))) == []
    assert hlo.collectives(compiled(lambda x: x * 2, 8, [P("x")], P("x"), (8, 8))) == []


# As the TPU's compiler writes them: an asynchronous gather that is spread over three fusions under one channel, a
# reduce-scatter as a fusion, a pair of start and done, and a group that is named by the axes of a mesh.
TPU = """HloModule jit_update, is_scheduled=true, num_partitions=8

%fused_start (param_0: bf16[64,8]) -> (bf16[64,8], bf16[64,64]) {
  %all-gather.1 = bf16[64,64]{0,1:T(8,128)(2,1)} all-gather(%param_0), channel_id=20, GROUP, dimensions={1}
  ROOT %c = (bf16[64,8]{0,1:T(8,128)(2,1)S(1)}, bf16[64,64]{0,1}, u32[]{:S(2)}) custom-call(%all-gather.1)
}

%fused_done (param_0: bf16[64,8]) -> bf16[64,64] {
  ROOT %all-gather.2 = bf16[64,64]{0,1:T(8,128)(2,1)} all-gather(%param_0), channel_id=20, GROUP, dimensions={1}
}

%all-reduce-scatter.3 (param_0: f32[512]) -> f32[64] {
  %all-reduce.5 = f32[512]{0:T(512)} all-reduce(%param_0), channel_id=21, replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %dynamic-slice.1 = f32[64]{0:T(128)} dynamic-slice(%all-reduce.5, %offset)
}

%body (p: f32[4]) -> f32[4] {
  ROOT %all-reduce.9 = f32[4]{0} all-reduce(%p), channel_id=23, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
}

ENTRY %main (p0: bf16[64,8]) -> f32[64] {
  %f.1 = (bf16[64,8]{0,1}, bf16[64,64]{0,1}) fusion(%p0), kind=kCustom, calls=%fused_start
  %f.2 = bf16[64,64]{0,1} fusion(%f.1), kind=kCustom, calls=%fused_done
  %f.3 = f32[64]{0} fusion(%f.2), kind=kCustom, calls=%all-reduce-scatter.3
  %ags = (f32[2,128]{1,0:T(8,128)}, f32[16,128]{1,0}) all-gather-start(%x), channel_id=22, replica_groups=[1,8]<=[8]
  %agd = f32[16,128]{1,0:T(8,128)} all-gather-done(%ags)
  %w = f32[4]{0} while(%y), condition=%cond, body=%body
  ROOT %r = f32[64]{0} copy(%f.3)
}
""".replace("GROUP", "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}")


def test_the_tpu_compilers_ways_of_writing_are_understood():
    found = {(c.kind, c.size, c.group, c.times) for c in hlo.collectives(TPU, trips=50)}
    assert found == {
        ("all-gather", 64 * 64 * 2, 4, 1),
        ("reduce-scatter", 2048, 8, 1),
        ("all-gather", 16 * 128 * 4, 8, 1),
        ("all-reduce", 16, 2, 50),
    }


LOOPS = """HloModule jit_sample, is_scheduled=true, num_partitions=4

%cond.1 (p: (s32[], f32[4])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(28)
  %at = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%at, %constant.1), direction=LT
}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %all-reduce.9 = f32[4]{0} all-reduce(%p), channel_id=23, replica_groups=[1,4]<=[4], to_apply=%add
}

%outer (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %w = (s32[], f32[4]{0}) while(%y), condition=%cond.1, body=%inner
}

ENTRY %main (p0: f32[4]) -> f32[4] {
  ROOT %w = (s32[], f32[4]{0}) while(%y), condition=%unseen, body=%outer
}
"""


def test_a_loop_that_does_not_say_its_length_counts_up_to_its_conditions_bound():
    assert [c.times for c in hlo.collectives(LOOPS, trips=50)] == [50 * 28]
    assert hlo.loops_factor(LOOPS, trips=50) == 50 * 28


def test_memory_traffic_counts_a_loops_iterations_and_what_lies_outside_once():
    def loop(x, w):
        return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, w)[0] + 1

    def layers(count):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 64), (count, 64, 64))]
        return hlo.loops_factor(jax.jit(loop).lower(*shapes).compile().as_text())

    assert hlo.loops_factor(jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile().as_text()) == 1
    # twice the iterations are twice what the loop touches, and nothing else
    few, many = layers(50), layers(100)
    assert 25 < few < 50 and few - 1 == pytest.approx((many - 1) * 49 / 99, rel=0.02)
    assert hlo.loops_factor(TPU, trips=50) > 1


# ------------------------------------------------------------------ work


def test_flops_of_products_and_convolutions_are_those_of_arithmetic():
    x, w = jnp.zeros((4, 6)), jnp.zeros((6, 10))

    def chain(x, w):
        def step(c, _):
            return jnp.tanh(c), (c @ w).sum()

        return jax.lax.scan(step, x, None, length=3)

    assert flops.count(jax.make_jaxpr(lambda x, w: x @ w)(x, w)) == 2 * 4 * 6 * 10
    assert flops.count(jax.make_jaxpr(chain)(x, w)) == 3 * 2 * 4 * 6 * 10
    assert flops.longest_scan(jax.make_jaxpr(chain)(x, w)) == 3
    assert flops.longest_scan(jax.make_jaxpr(lambda x: jnp.searchsorted(x[0], 0.5, method="scan"))(x)) == 1
    assert flops.count(jax.make_jaxpr(jax.jit(jax.grad(lambda w: (x @ w).sum())))(w)) == 2 * 2 * 4 * 6 * 10
    image, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    forward = 2 * 2 * 64 * 5 * 27
    assert flops.count(jax.make_jaxpr(convolve)(image, kernel)) == forward
    both = jax.make_jaxpr(jax.grad(lambda i, k: (convolve(i, k) ** 2).sum(), (0, 1)))(image, kernel)
    assert flops.count(both) == 3 * forward


def test_the_roofline_is_the_longest_roof():
    chip = roofline.Chip("toy", flops=100.0, memory=1e9, bandwidth=10.0, link=8.0, dims=2, source="here")
    gather = hlo.Collective("all-gather", 80.0, 4)  # 60 bytes from each device, at 4 a second
    found = roofline.estimate(200.0, 50.0, [gather], chip)
    assert (found.compute, found.memory, found.network) == (2.0, 5.0, 15.0)
    assert (found.bound, found.least, found.most) == ("network", 15.0, 22.0)


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
    assert "DOES NOT FIT. This does: --config.mesh.data=0 --config.mesh.fsdp=2" in text


def test_a_sampler_that_does_not_fit_gets_a_smaller_batch(monkeypatch):
    config = absent(tiny_config("Plain"))

    def sampler(job):
        size = job.config.evaluate.batch_size
        return programs.Program("sampler", size, size <= 2, {"total": float(size), "limit": 2.0}, 0.0)

    monkeypatch.setattr(plans.Job, "sampler", sampler)
    found = plans.plan(config, "cpu:2")
    assert [(each.overrides["evaluate.batch_size"], each.fits) for each in found.suggestions] == [(4, False), (2, True)]
    assert "DOES NOT FIT. This does: --config.evaluate.batch_size=2" in plan_text(found.to_dict())


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


@pytest.mark.parametrize("network", ["dit", "unet"])
def test_candidates_go_from_mild_to_harsh(network):
    config = ddpm_config()
    config.method.network = section(name=network)
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

        def trace_update(self):
            pass

        def update(self):
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
        ("cpu:2x2", "is no machine"),
        ("cpu:64", "this process has 8 CPU devices"),
        ("gpu:1", "XLA compiles for GPUs that are here, and there are 0"),
    ],
)
def test_a_machine_that_cannot_be_planned_for_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        devices(name)


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
