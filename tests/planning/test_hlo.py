"""What a compiled program's text tells: collectives of functions whose own are known, and loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen.planning import hlo


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
