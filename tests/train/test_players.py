"""The engine under methods that are hard on it: players, lazy turns, stages, a single learned row, two sources."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_methods
from running import differing, largest_difference, named, on_host, opened, run
from tiny_methods import tiny_config

from jaxgen.arrays import carry_over
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.runs.setup import make_loader, training_sources
from jaxgen.runs.state import fold_name, seed_key
from jaxgen.train.loop import Trainer


def host_batches(config, count):
    """The first batches of a config's data, as losses see them."""
    loader = make_loader(config, training_sources(config))
    batches = [to_float({k: jnp.asarray(v) for k, v in next(loader).items()}) for _ in range(count)]
    loader.close()
    return batches


# ------------------------------------------------------------------ two players


@pytest.fixture(scope="module")
def players(tmp_path_factory):
    """Two steps of two players: config, states before and after, metrics."""
    config = tiny_config("TwoPlayers")
    config.optimizer.update(clip_norm=0.3, b1=0.5, eps=1e-3)  # or Adam blows rounding up where nothing is to be learnt
    config.optimizers = {"discriminator": {"learning_rate": 3e-3}}
    with opened(config, tmp_path_factory.mktemp("players")) as trainer:
        states, metrics = [on_host(trainer.state)], []
        for _ in range(2):
            metrics.append(jax.device_get(trainer.take_step()))
            states.append(on_host(trainer.state))
        return config, states, metrics, trainer.images


def test_discriminator_steps_use_fresh_batches_and_the_generator_the_first(players):
    config, states, _, images = players
    batches = host_batches(config, 6)
    assert images == 6 * config.train.batch_size == int(states[-1].images)
    means = [float(b["image"].mean()) for b in batches]
    assert len(set(means)) == 6
    diary = states[-1].memory["diary"][:8][::-1]
    assert diary[:, 0].tolist() == [0, 0, 0, 1, 0, 0, 0, 1]
    np.testing.assert_allclose(diary[:, 1], np.array(means)[[0, 1, 2, 0, 3, 4, 5, 3]], rtol=1e-5)


def test_each_turn_sees_the_updates_before_it_and_touches_its_own_groups_only(players):
    _, states, _, _ = players
    diary = states[-1].memory["diary"][:8][::-1]
    discriminator, generator = diary[:, 2], diary[:, 3]
    assert len(set(discriminator[:4])) == 4  # moved by each discriminator step, and seen moved by the generator
    assert discriminator[3] == discriminator[4]  # the generator's turn left it alone
    assert len(set(generator[:4])) == 1 and generator[4] != generator[3]


def test_every_turn_and_repeat_draws_its_own_numbers(players):
    diary = players[1][-1].memory["diary"][:8]
    assert len(set(diary[:, 4].tolist())) == 8


def test_a_step_is_what_plain_optax_does_by_hand(players):
    """The same two steps in a Python loop: order, batches, clipping per turn, rates per group, memory."""
    config, states, metrics, _ = players
    method = tiny_methods.TwoPlayers()
    batches = host_batches(config, 6)
    start = states[0]
    params, memory = jax.tree.map(jnp.asarray, (start.params, start.memory))
    rates = {"discriminator": 3e-3, "generator": 1e-3}
    tools = {g: optax.chain(optax.clip_by_global_norm(0.3), optax.adam(r, b1=0.5, eps=1e-3)) for g, r in rates.items()}
    opt = {g: tools[g].init(params[g]) for g in rates}
    losses = {"discriminator": method.discriminator_loss, "generator": method.generator_loss}

    def loss(own, name, others, memory, batch, key):
        return losses[name]({**others, name: own}, batch, key, start.replace(memory=memory))

    differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnames="name")
    for step in range(2):
        step_key = jax.random.fold_in(seed_key(config.seed, "train"), step)
        for name, r in (("discriminator", 0), ("discriminator", 1), ("discriminator", 2), ("generator", 0)):
            key = jax.random.fold_in(fold_name(step_key, name), r)
            found, gradients = differentiate(params[name], name, params, memory, batches[3 * step + r], key)
            assert optax.tree.norm(gradients) > 0.3  # clipping is at work
            updates, opt[name] = tools[name].update(gradients, opt[name])
            params = {**params, name: optax.apply_updates(params[name], updates)}
            memory = {**memory, **found[1][1]}
            if r == 2 or name == "generator":
                assert abs(float(found[0]) - metrics[step][f"{name}/loss"]) < 1e-5
    for group in rates:
        assert largest_difference(params[group], states[-1].params[group]) < 2e-5
        assert largest_difference(memory[group], states[-1].memory[group]) < 1e-4
        assert largest_difference(memory[group], start.memory[group]) > 3e-2


# ------------------------------------------------------------------ lazy regularisation


def test_a_lazy_turn_runs_when_due_and_each_set_of_turns_is_compiled_once(tmp_path):
    with opened(tiny_config("Lazy"), tmp_path) as trainer:
        ran = [sorted(n for n in trainer.take_step() if n.endswith("/loss")) for _ in range(9)]
        assert [("penalty/loss" in names) for names in ran] == [step % 4 == 0 for step in range(9)]
        assert all("fit/loss" in names for names in ran)
        assert [names for _, names in trainer._updates] == [("penalty",), ("fit",)]
        assert [update._cache_size() for update in trainer._updates.values()] == [1, 1]
        # both turns share the group's optimiser state: 9 updates and 3
        counts = [x for name, x in named(trainer.state.opt_state["net"]).items() if name.endswith("count")]
        assert [int(c) for c in counts] == [12]


# ------------------------------------------------------------------ stages


def growing_config():
    config = tiny_config("Growing")
    config.train.total_images = 64
    return config


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    return run(growing_config(), tmp_path_factory.mktemp("grown"))


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(24,), (32,), (40,), (8, 32, 48)])
def test_a_run_stopped_around_a_boundary_goes_on_to_the_same_bits(tmp_path, grown, stops):
    for images in stops:
        part = run(growing_config(), tmp_path, images)
        # a boundary is crossed before a step, never at a save
        assert ("extra" in part.params) == (images > 32)
    state = run(growing_config(), tmp_path)
    assert "extra" in state.params and state.params["net"]["dense_0"]["kernel"].shape == (64, 10)
    assert differing(state, grown) == []


def test_crossing_keeps_what_fits_and_begins_the_rest_anew(tmp_path):
    with opened(growing_config(), tmp_path) as trainer:
        for _ in range(4):
            trainer.take_step()
        before = on_host(trainer.state)
        assert trainer.images == 32 and trainer.stage == 0
        state = on_host(trainer.builder.cross(trainer.state, 1))
    assert state.step == before.step and state.images == before.images
    # parameters and EMA of one shape are kept, new ones' EMA starts from them
    kept = ("dense_1/bias", "out/kernel", "out/bias")
    for part, now in (("params", state.params), ("ema", state.ema)):
        old, new = named(getattr(before, part)["net"]), named(now["net"])
        assert all(old[name].tobytes() == new[name].tobytes() for name in kept), part
        assert new["dense_0/kernel"].shape == (64, 10)
    assert differing(before.ema["net"]["out"], before.params["net"]["out"])  # else the above would say little
    assert differing(state.ema["net"]["dense_0"], state.params["net"]["dense_0"]) == []
    assert differing(state.ema["extra"], state.params["extra"]) == []
    # the optimiser begins again, memory is what init made of it
    assert all(not np.any(x) for x in jax.tree.leaves(state.opt_state))
    assert any(np.any(x) for x in jax.tree.leaves(before.opt_state))
    assert state.memory["seen"].shape == (5,) and state.memory["kept"] == 4


def test_what_has_its_path_and_shape_is_carried_over_and_the_rest_is_a_copy():
    old = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "gone": jnp.ones(1)}
    new = {"a": {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(3)}, "more": {"bias": jnp.zeros(3)}}
    found = carry_over(old, new)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, new)
    assert found["a"]["bias"] is old["a"]["bias"]
    assert not found["a"]["kernel"].any() and not found["more"]["bias"].any()
    assert found["more"]["bias"].unsafe_buffer_pointer() != new["more"]["bias"].unsafe_buffer_pointer()


# ------------------------------------------------------------------ one learned row of a frozen table


def table_config(**options):
    config = tiny_config("Table", **options)
    config.data.num_classes = 10
    config.train.update(total_images=32, ema_decay=0.5)
    return config


def row_config(source):
    config = tiny_config("OneRow")
    config.data.num_classes = 10
    config.init_from = {"table": str(source)}
    config.train.update(total_images=32)
    return config


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("table")
    return workdir, run(table_config(), workdir)


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_only_the_row_learns_and_only_the_row_is_written(tmp_path, table):
    source, made = table
    with opened(row_config(source), tmp_path) as trainer:
        assert list(trainer.state.params) == list(trainer.state.ema) == ["row"]
        frozen = on_host(trainer.frozen)
        assert differing(frozen["table"], made.ema["table"]) == []  # the EMA is what is handed on
        assert differing(made.ema["table"], made.params["table"])
        first = on_host(trainer.state.params)
        trainer.train()
        assert differing(on_host(trainer.frozen), frozen) == []
        assert not np.allclose(trainer.state.params["row"]["value"], first["row"]["value"])
        # the memory of the loaded group came along, and is carried
        metrics = trainer.take_step()
        assert metrics["fit/updates"] == trainer.state.memory["table"]["updates"] == 4
    mine, theirs = (size(folder / "checkpoints" / "4") for folder in (tmp_path, source))
    assert 10 * mine < 1.5 * made.params["table"]["rows"].nbytes < theirs
    meta = json.loads((tmp_path / "checkpoints" / "4" / "meta" / "metadata").read_text())
    origin = meta["origins"]["table"]
    assert origin["source"] == str(source) and origin["step"] == 4 and len(origin["sha256"]) == 64


def test_sampling_sees_the_row_over_the_table(tmp_path, table):
    source, _ = table
    with opened(row_config(source), tmp_path) as trainer:
        trainer.take_step()
        model = trainer.model()
        grafted = trainer.method.graft(model.params)["table"]["rows"]
        np.testing.assert_array_equal(grafted[3], model.params["row"]["value"])
        others = np.delete(np.asarray(grafted), 3, axis=0)
        assert others.tobytes() == np.delete(np.asarray(model.params["table"]["rows"]), 3, axis=0).tobytes()


@pytest.mark.slow
def test_resuming_on_other_frozen_weights_is_refused(tmp_path):
    source, mine = tmp_path / "table", tmp_path / "row"
    run(table_config(rows=20), source)
    config = row_config(source)
    config.method.rows = 20
    run(config, mine, 16)
    state = run(config, mine)  # unchanged, it goes on
    assert state.images == 32
    began_with = list((source / "checkpoints").iterdir())
    run(table_config(rows=20), source, 64)
    assert run(config, mine, 48).images == 48  # the weights it began with are still there
    for checkpoint in began_with:
        shutil.rmtree(checkpoint)
    with pytest.raises(UserError, match=r"config\.init_from\.table.* not those that this run began with"):
        run(config, mine, 64)


def test_what_is_wrong_with_init_from_is_said(tmp_path, table):
    source, _ = table
    cases = {
        "": r"OneRow needs trained weights: set config\.init_from\.table=",
        str(tmp_path / "nowhere"): r"config\.init_from\.table='.*nowhere' is not the workdir of a run",
        f"{source}#tabel": r"config\.init_from\.table: the run .* has no group 'tabel'; did you mean 'table'\?",
    }
    for value, message in cases.items():
        with pytest.raises(UserError, match=message):
            Trainer(row_config(value), tmp_path / "run")
    config = row_config(source)
    config.init_from.rwo = str(source) + "#table"
    with pytest.raises(UserError, match=r"config\.init_from\.rwo: the method has no such group; it has row, table"):
        Trainer(config, tmp_path / "run")


def test_a_state_made_of_given_weights_shares_no_buffer_with_them(tmp_path):
    source = tmp_path / "plain"
    plain = run(tiny_config("Plain"), source, 16)
    config = tiny_config("Borrower")
    config.init_from = {"net": str(source)}
    with opened(config, tmp_path / "borrower") as trainer:
        assert differing(on_host(trainer.state.params["half"]), plain.ema["net"]["dense_0"]) == []
        for _ in range(2):
            trainer.take_step()
        assert differing(on_host(trainer.frozen["net"]), plain.ema["net"]) == []
        assert differing(on_host(trainer.state.memory["first"]), plain.ema["net"]["out"]) == []
        assert differing(on_host(trainer.state.params["half"]), plain.ema["net"]["dense_0"])


# ------------------------------------------------------------------ two sources


@pytest.mark.slow
def test_a_batch_may_come_from_two_sources_each_in_its_own_order(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=values)
    config = tiny_config("TwoDomains")
    config.data.extra = {"other": {"source": f"npz:{tmp_path / 'other.npz'}", "split": "all"}}
    whole = run(config, tmp_path / "run")
    batches = host_batches(config, 8)
    wanted = [[float(b["image"].mean()), float(b["other_image"].mean())] for b in batches]
    np.testing.assert_allclose(whole.memory["means"][:8][::-1], wanted, rtol=1e-5, atol=1e-6)
    # the second source is 30 long: its examples come once each in the first 30
    rows = np.concatenate([np.asarray(b["other_image"]).reshape(8, -1) for b in batches])[:30]
    assert len(np.unique(rows, axis=0)) == 30
    run(config, tmp_path / "stopped", 24)
    assert differing(run(config, tmp_path / "stopped"), whole) == []
