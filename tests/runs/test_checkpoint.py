"""Checkpoints: bit-exact, on any devices, robust against damage, pruned as asked."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import differing, named, on_host

from jaxgen.errors import UserError
from jaxgen.methods.base import State
from jaxgen.parallel.mesh import make_mesh, replicated
from jaxgen.runs.checkpoint import Checkpoints, Meta, one_copy
from jaxgen.runs.integrity import checksums
from jaxgen.runs.loaded_groups import load_group

# TensorStore's readers of a damaged folder end with an exception that nobody collects
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make_state(step: int, devices: int = 1) -> State:
    """A state with every kind of leaf; different at each step."""
    key = jax.random.key(step)
    params = {"net": {"kernel": jax.random.normal(key, (40, 50)), "bias": jnp.full(7, -0.0)}}
    params["half"] = {"w": jax.random.normal(key, (5,), jnp.bfloat16)}
    odd = jnp.array([jnp.nan, jnp.inf, 1e-42])
    memory = {"net": {"mean": odd}, "pool": jnp.arange(5) + step, "on": jnp.array([True])}
    state = State(
        step=jnp.int32(step),
        images=jnp.uint32(2**31 + 8 * step),
        params=params,
        memory=memory,
        opt_state={g: optax.adamw(1.0).init(p) for g, p in params.items()} | {"plain": optax.sgd(1.0).init({})},
        ema=jax.tree.map(lambda x: x * 0.5, params),
        nonfinite_count={"fit": jnp.int32(0)},
    )
    return jax.device_put(state, replicated(make_mesh(devices, 8)))


def make_meta(step: int) -> Meta:
    data = {"examples": 8 * step, "seed": 0, "sources": {"": "train of 10 examples"}}
    return Meta(step, 8 * step, 0, 0, 0.1 + step, data, {"image": [[8, 8, 8, 1], "uint8"]}, {})


def shapes(devices: int = 1):
    state = make_state(0, devices)
    return lambda meta: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def write(workdir: pathlib.Path, *steps: int, scores: dict | None = None, devices: int = 1, **options) -> None:
    checkpoints = Checkpoints(workdir, **options)
    for step in steps:
        checkpoints.save(make_state(step, devices), make_meta(step), scores and scores[step])
    checkpoints.wait()
    checkpoints.close()


def read(workdir: pathlib.Path, devices: int = 1, **options):
    checkpoints = Checkpoints(workdir, **options)
    try:
        return checkpoints.restore(shapes(devices))
    finally:
        checkpoints.close()


def kept(workdir: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> pathlib.Path:
    """A workdir with checkpoints 1 and 2; tests copy it."""
    workdir = tmp_path_factory.mktemp("two")
    write(workdir, 1, 2)
    return workdir


@pytest.fixture
def workdir(two, tmp_path) -> pathlib.Path:
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_what_is_read_is_what_was_written_to_the_bit(workdir):
    state, meta = read(workdir)
    assert differing(state, make_state(2)) == []
    assert jax.tree.structure(state) == jax.tree.structure(make_state(2))
    assert dataclasses.replace(meta, sums={}) == make_meta(2)


@pytest.mark.parametrize(("wrote", "reads"), [(1, 8), (8, 1), (8, 2)])
def test_any_number_of_devices_reads_it(tmp_path, wrote, reads):
    write(tmp_path, 3, devices=wrote)
    state, _ = read(tmp_path, reads)
    assert differing(state, make_state(3)) == []
    assert all(len(leaf.sharding.device_set) == reads for leaf in jax.tree.leaves(state))


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
    assert read(tmp_path) is None


def test_saving_does_not_hold_on_to_the_state(tmp_path):
    """The arrays may be donated while the save goes on behind."""
    checkpoints = Checkpoints(tmp_path)
    state = make_state(1)
    checkpoints.save(state, make_meta(1))
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + x, s), donate_argnums=0)
    jax.block_until_ready(step(state))
    checkpoints.wait()
    checkpoints.close()
    assert differing(read(tmp_path)[0], make_state(1)) == []


# ------------------------------------------------------------------ damage


def largest(folder: pathlib.Path) -> pathlib.Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder: pathlib.Path) -> None:
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: pathlib.Path) -> None:
    largest(folder).write_bytes(b"")


def remove(folder: pathlib.Path) -> None:
    largest(folder).unlink()


def flip(folder: pathlib.Path) -> None:
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def flip_ema(folder: pathlib.Path) -> None:
    flip(folder / "ema")


def drop_meta(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "meta")


def change_meta(folder: pathlib.Path) -> None:
    path = folder / "meta" / "metadata"
    text = path.read_text()
    assert '"examples": 16' in text
    path.write_text(text.replace('"examples": 16', '"examples": 96'))


def cut_meta(folder: pathlib.Path) -> None:
    path = folder / "meta" / "metadata"
    path.write_text(path.read_text()[:40])


def drop_params(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "params")


def pipe(folder: pathlib.Path) -> None:
    path = folder / "opt_state" / "_METADATA"
    path.unlink()
    os.mkfifo(path)


def endless(folder: pathlib.Path) -> None:
    path = folder / "meta" / "metadata"
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE = [truncate, empty, remove, flip, flip_ema, drop_meta, change_meta, cut_meta, drop_params, pipe, endless]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_taken(workdir, damage, caplog):
    damage(workdir / "checkpoints" / "2")
    with caplog.at_level(logging.WARNING, logger="jaxgen"):
        state, meta = read(workdir)
    assert meta.step == 1 and differing(state, make_state(1)) == []
    assert "checkpoint 2 is damaged" in caplog.text and "falling back from checkpoint 2 to 1" in caplog.text
    assert kept(workdir) == [1] and (workdir / "damaged" / "2").is_dir()
    # and the run can write that step again
    write(workdir, 2)
    assert differing(read(workdir)[0], make_state(2)) == []


@pytest.mark.parametrize("read_only", [False, True])
def test_a_pipe_among_what_is_read_at_once_is_refused(workdir, read_only):
    (workdir / "checkpoints" / "2" / "_CHECKPOINT_METADATA").unlink()
    os.mkfifo(workdir / "checkpoints" / "2" / "_CHECKPOINT_METADATA")
    with pytest.raises(UserError, match="_CHECKPOINT_METADATA is a pipe or a device, not a file; remove it"):
        read(workdir, read_only=read_only)
    assert kept(workdir) == [1, 2]


def test_a_reader_moves_nothing(workdir):
    flip(workdir / "checkpoints" / "2")
    state, meta = read(workdir, read_only=True)
    assert meta.step == 1 and kept(workdir) == [1, 2] and not (workdir / "damaged").exists()


def test_a_checkpoint_that_a_training_removes_while_it_is_read_is_no_damage(workdir, monkeypatch, caplog):
    whole = Checkpoints._restore

    def restore(self, step, abstract):
        if step == 2:
            shutil.rmtree(self.folder / "2")
            raise FileNotFoundError("gone")
        return whole(self, step, abstract)

    monkeypatch.setattr(Checkpoints, "_restore", restore)
    with caplog.at_level(logging.INFO, logger="jaxgen"):
        assert read(workdir, read_only=True)[1].step == 1
    assert "checkpoint 2 was removed by a training" in caplog.text and "damaged" not in caplog.text


def test_the_same_step_damaged_twice_is_put_aside_twice(workdir):
    for _ in range(2):
        flip(workdir / "checkpoints" / "2")
        assert read(workdir)[1].step == 1
        write(workdir, 2)
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["2", "2.1"]


def test_all_damaged_is_an_error_that_names_the_folder_and_moves_nothing(workdir):
    for step in (1, 2):
        flip(workdir / "checkpoints" / str(step))
    with pytest.raises(UserError, match=r"No checkpoint in .*checkpoints can be read; the newest, 2, says: .*checksum"):
        read(workdir)
    assert kept(workdir) == [1, 2]


def test_left_overs_of_a_killed_save_are_cleared_away(workdir):
    whole, left = workdir / "checkpoints" / "2", workdir / "checkpoints" / "3.orbax-checkpoint-tmp"
    shutil.copytree(whole, left)
    shutil.rmtree(left / "meta")
    assert read(workdir, read_only=True)[1].step == 2 and left.exists()
    assert read(workdir)[1].step == 2
    write(workdir, 3)  # Orbax clears in the background, and a save waits for it
    assert not left.exists()
    assert read(workdir)[1].step == 3


def test_a_change_of_any_bit_changes_the_checksum():
    for dtype in ("float32", "bfloat16", "int32", "uint8", "bool"):
        array = np.array(jnp.arange(6).reshape(2, 3).astype(dtype))
        before = checksums({"a": array})
        assert before == checksums({"a": jnp.asarray(array)})
        assert before == checksums({"a": jax.device_put(array, replicated(make_mesh(8, 8)))})
        bits = array.reshape(-1).view(np.uint8)
        for i in range(bits.size):
            bits[i] ^= 1
            assert checksums({"a": array}) != before
            bits[i] ^= 1
    assert list(checksums({"a": {"b": np.ones(())}})) == ["a/b"]


# ------------------------------------------------------------------ which are kept


def test_the_last_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, 4, 5, keep_last=3)
    assert kept(tmp_path) == [3, 4, 5]


@pytest.mark.parametrize(("mode", "best"), [("min", [2, 3]), ("max", [1, 4])])
def test_the_best_are_kept_beside_the_last(tmp_path, mode, best):
    scores = {step: {"fid": value, "other": -value} for step, value in enumerate([9.0, 1.0, 2.0, 8.0, 5.0, 6.0], 1)}
    write(tmp_path, *scores, scores=scores, keep_last=1, keep_best=2, metric="fid", mode=mode)
    assert kept(tmp_path) == sorted({*best, 6})
    # a later process knows the scores of the ones before
    scores = {7: {"fid": 5.5}, 8: {"fid": 5.5}}
    write(tmp_path, *scores, scores=scores, keep_last=1, keep_best=2, metric="fid", mode=mode)
    assert kept(tmp_path) == sorted({*best, 8})


def test_a_checkpoint_without_a_score_is_never_the_best(tmp_path):
    scores = {1: {"fid": 3.0}, 2: {}, 3: {}, 4: {}}
    write(tmp_path, *scores, scores=scores, keep_last=1, keep_best=1, metric="fid")
    assert kept(tmp_path) == [1, 4]


# ------------------------------------------------------------------ one group for another run


@pytest.fixture
def source(workdir) -> pathlib.Path:
    (workdir / "config.json").write_text("{}")
    return workdir


def test_a_group_is_read_with_its_memory_and_origin(source):
    weights, memory, origin = load_group(str(source), "net")
    state = on_host(make_state(2))
    assert differing(weights, state.ema["net"]) == [] and differing(memory, state.memory["net"]) == []
    assert origin["source"] == str(source) and origin["step"] == 2
    assert origin == load_group(str(source), "net")[2]
    other, none, elsewhere = load_group(f"{source}#half", "net")
    assert list(named(other)) == ["w"] and none is None and elsewhere["sha256"] != origin["sha256"]


@pytest.mark.parametrize("damage", [flip, pipe])
def test_a_damaged_source_is_refused(source, damage):
    damage(source / "checkpoints" / "2")
    with pytest.raises(UserError, match=r"config\.init_from\.net=.*: the checkpoint .*2 cannot be read"):
        load_group(str(source), "net")


def test_a_source_without_checkpoints_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="has no finished checkpoint"):
        load_group(str(tmp_path), "net")


def test_the_best_step_is_found_and_read_again(tmp_path):
    scores = {1: {"fid": 3.0}, 2: {"fid": 1.0}, 3: {"fid": 2.0}}
    write(tmp_path, *scores, scores=scores, keep_last=1, keep_best=1, metric="fid")
    checkpoints = Checkpoints(tmp_path, 1, 1, "fid", read_only=True)
    assert checkpoints.best_step() == 2
    state, meta = checkpoints.restore_step(2, shapes())
    assert differing(state, make_state(2)) == [] and meta.step == 2
    with pytest.raises(UserError, match=r"no checkpoint of step 1; there are \[2, 3\]"):
        checkpoints.restore_step(1, shapes())
    checkpoints.close()


def test_without_a_number_to_compare_by_there_is_no_best(workdir):
    checkpoints = Checkpoints(workdir, read_only=True)
    assert checkpoints.best_step() is None
    checkpoints.close()


def test_what_every_device_has_is_written_once_and_not_copied_for_it():
    """Orbax would cut it into a part for each device; what devices share is left as it is."""
    mesh = make_mesh(8, 8)
    same = jax.device_put(jnp.arange(16.0), replicated(mesh))
    shared = jax.device_put(jnp.arange(16.0), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    one, other = one_copy([same, shared])
    assert len(one.devices()) == 1 and other is shared
    assert one.unsafe_buffer_pointer() == same.addressable_shards[0].data.unsafe_buffer_pointer()
    np.testing.assert_array_equal(one, same)
