"""Properties of one compiled update: EMA, accumulation, sharding, the guard, donation, random keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import differing, largest_difference, named, on_host, opened, run
from tiny_methods import ddpm_config, tiny_config

from jaxgen.errors import UserError
from jaxgen.train.loop import Trainer


def train_steps(config, workdir, steps):
    """States before and after each step, and the losses."""
    with opened(config, workdir) as trainer:
        states, losses = [on_host(trainer.state)], []
        for _ in range(steps):
            metrics = jax.device_get(trainer.take_step())
            losses.append([float(v) for k, v in metrics.items() if k.endswith("/loss")])
            states.append(on_host(trainer.state))
    return states, np.array(losses)


# ------------------------------------------------------------------ EMA


@pytest.mark.parametrize("decay", [0.25, 0.999])  # without averaging there is none: test_live_memory
def test_ema_is_the_recursion_of_its_definition(tmp_path, decay):
    config = tiny_config("Plain")
    config.train.ema_decay = decay
    config.optimizer.learning_rate = 0.03
    states, _ = train_steps(config, tmp_path, 6)
    mean = {k: v.astype(np.float64) for k, v in named(states[0].params).items()}
    weights = []
    for done, state in enumerate(states[1:]):
        # warm-up: after u updates no more than (1 + u) / (10 + u) of the old is kept
        d = min(decay, (1 + done) / (10 + done))
        weights.append(d)
        mean = {k: d * mean[k] + (1 - d) * v for k, v in named(state.params).items()}
        found = named(state.ema)
        assert max(np.abs(found[k] - mean[k]).max() for k in mean) < 1e-6
    assert weights == sorted(weights) and weights[0] < weights[-1] or decay == 0
    gap = largest_difference(states[-1].ema, states[-1].params)
    assert gap == 0 if decay == 0 else gap > 1e-3


def test_only_the_groups_that_a_method_names_are_averaged(tmp_path, monkeypatch):
    import tiny_methods

    monkeypatch.setattr(tiny_methods.TwoPlayers, "ema_groups", ("generator",))
    with opened(tiny_config("TwoPlayers", repeats=1), tmp_path) as trainer:
        assert list(trainer.state.ema) == ["generator"]
        trainer.take_step()
        model = trainer.model()
        assert differing(model.params["discriminator"], trainer.state.params["discriminator"]) == []
        assert differing(model.params["generator"], trainer.state.ema["generator"]) == []
        assert differing(model.params["generator"], trainer.state.params["generator"])


# ------------------------------------------------------------------ accumulation and sharding


@pytest.mark.parametrize("mesh", [1, 2])
def test_accumulated_micro_batches_equal_the_large_batch(tmp_path, mesh):
    config = tiny_config("Plain", diary=False)
    config.mesh.data = mesh
    config.optimizer.update(name="sgd", learning_rate=0.5, clip_norm=0.5)
    whole, losses = train_steps(config, tmp_path / "1", 3)
    config.train.accumulate = 4
    parts, again = train_steps(config, tmp_path / "4", 3)
    assert largest_difference(whole[0].params, parts[0].params) == 0
    assert largest_difference(whole[0].params, whole[-1].params) > 1e-2
    assert largest_difference(whole[-1].params, parts[-1].params) < 1e-6
    np.testing.assert_allclose(losses, again, rtol=1e-5)
    assert int(parts[-1].images) == int(whole[-1].images) == 24


def test_each_micro_batch_draws_its_own_noise_and_memory_passes_through_all(tmp_path):
    config = tiny_config("Plain", noise=0.1)
    config.train.accumulate = 2
    states, _ = train_steps(config, tmp_path, 2)
    diary = states[-1].memory["diary"][:5]
    assert len(set(diary[:4, 0].tolist())) == 4  # two steps, two micro-batches
    assert diary[4, 0] == 0


PARTS = r"config\.train\.accumulate=2 .* Chains keeps memory .*: memory\['chains'\]\. Set"
SHAPES = r"'fit' returns memory\['chains'\] in the shapes \[\(4, 2\)\], .* \[\(8, 2\)\]"


def test_memory_in_the_shape_of_the_batch_is_refused_where_batches_come_in_parts(tmp_path):
    config = tiny_config("Chains")
    assert train_steps(config, tmp_path / "whole", 1)[0][-1].memory["chains"]["value"].shape == (8, 2)
    config.train.accumulate = 2
    with pytest.raises(UserError, match=PARTS):
        train_steps(config, tmp_path / "parts", 1)


def test_memory_that_a_loss_returns_in_another_shape_is_refused(tmp_path):
    with pytest.raises(UserError, match=SHAPES):
        train_steps(tiny_config("Chains", rows=8, kept=4), tmp_path, 1)


def test_eight_devices_compute_what_one_does(tmp_path, devices):
    assert devices == 8
    config = tiny_config("Plain", noise=0.1)
    runs = {}
    for mesh in (1, 2, 8):
        config.mesh.data = mesh
        runs[mesh] = train_steps(config, tmp_path / str(mesh), 4)
    for mesh in (2, 8):
        np.testing.assert_allclose(runs[mesh][1], runs[1][1], rtol=1e-5)
        assert largest_difference(runs[mesh][0][-1].params, runs[1][0][-1].params) < 1e-5
        # the numbers drawn and the data are the same to the bit
        assert runs[mesh][0][-1].memory["diary"][:, 0].tolist() == runs[1][0][-1].memory["diary"][:, 0].tolist()


@pytest.mark.slow
def test_eight_devices_compute_what_one_does_for_ddpm(tmp_path):
    config = ddpm_config()
    config.optimizer.update(name="adam", learning_rate=1e-4, warmup_images=0)
    config.mesh.data = 1
    one, losses = train_steps(config, tmp_path / "1", 3)
    config.mesh.data = 8
    eight, again = train_steps(config, tmp_path / "8", 3)
    np.testing.assert_allclose(losses, again, rtol=1e-5, atol=1e-5)
    assert largest_difference(one[-1].params, eight[-1].params) < 1e-5
    assert largest_difference(one[-1].params, one[0].params) > 1e-4


@pytest.mark.parametrize(("batch", "used"), [(1, 1), (2, 2), (12, 4), (16, 8)])
def test_the_mesh_is_as_large_as_divides_the_batch(tmp_path, batch, used):
    config = tiny_config("Plain")
    config.train.batch_size = batch
    with opened(config, tmp_path) as trainer:
        assert trainer.mesh.size == used
        metrics = trainer.take_step()
        assert np.isfinite(metrics["fit/loss"]) and trainer.images == batch


def test_a_mesh_that_does_not_divide_the_batch_is_refused(tmp_path):
    config = tiny_config("Plain")
    config.train.batch_size = 12
    config.mesh.data = 8
    with pytest.raises(UserError, match=r"config\.mesh\.data=8 does not divide a \(micro-\)batch of 12 images"):
        Trainer(config, tmp_path)
    config.mesh.data, config.train.accumulate = 4, 6
    with pytest.raises(UserError, match=r"config\.mesh\.data=4 does not divide a \(micro-\)batch of 2 images"):
        Trainer(config, tmp_path)
    config.mesh.data = 9
    with pytest.raises(UserError, match=r"config\.mesh\.data=9, but there are 8 devices"):
        Trainer(config, tmp_path)


# ------------------------------------------------------------------ the guard


def test_a_turn_that_is_not_finite_is_rolled_back_and_the_others_go_on(tmp_path):
    config = tiny_config("TwoPlayers", repeats=2, fail_turn="discriminator", fail_from=1, fail_until=3)
    states, flags = [], []
    with opened(config, tmp_path) as trainer:
        for _ in range(4):
            metrics = jax.device_get(trainer.take_step())
            states.append(on_host(trainer.state))
            flags.append((metrics["finite/discriminator/discriminator"], metrics["finite/generator/generator"]))
    assert flags == [(1, 1), (0, 1), (0, 1), (1, 1)]
    for before, after in zip(states[:2], states[1:3], strict=True):
        for part in ("params", "opt_state", "memory"):
            assert differing(getattr(before, part)["discriminator"], getattr(after, part)["discriminator"]) == [], part
            assert differing(getattr(before, part)["generator"], getattr(after, part)["generator"]), part
        assert after.step == before.step + 1
    # the diary has the generator's entries only, of those two steps
    assert states[2].memory["diary"][:2, 0].tolist() == [1, 1] and states[2].memory["diary"][2, 0] == 1
    assert differing(states[2].params["discriminator"], states[3].params["discriminator"])
    # every repeat counts; a good one ends the row
    assert [int(s.nonfinite_count["discriminator"]) for s in states] == [0, 2, 4, 0]
    assert all(int(s.nonfinite_count["generator"]) == 0 for s in states)


def test_without_a_failure_the_guard_changes_nothing(tmp_path):
    states = []
    for fail_at in ((), (99,)):
        states.append(train_steps(tiny_config("Plain", fail_at=fail_at), tmp_path / str(len(fail_at)), 2)[0][-1])
    assert differing(*states) == []


# ------------------------------------------------------------------ buffers


def buffers(tree):
    """Where each device's copy of each array lies."""
    return [s.data.unsafe_buffer_pointer() for x in jax.tree.leaves(tree) for s in x.addressable_shards]


@pytest.mark.parametrize("name", ["TwoPlayers", "Growing"])
def test_no_two_leaves_share_a_buffer_and_all_are_donated(tmp_path, name):
    config = tiny_config(name)
    config.optimizer.name = "adamw"
    with opened(config, tmp_path) as trainer:
        for step in range(5):  # Growing crosses its boundary before the fifth
            found = buffers(trainer.state)
            assert len(found) == len(set(found))
            before = jax.tree.leaves(trainer.state)
            trainer.take_step()
            if not (name == "Growing" and step == 4):
                assert all(leaf.is_deleted() for leaf in before)
        found = buffers(trainer.state)
        assert len(found) == len(set(found))


def test_a_donated_state_is_updated_in_place(tmp_path):
    config = tiny_config("Plain", diary=False)
    config.mesh.data = 1
    with opened(config, tmp_path) as trainer:
        trainer.take_step()
        before = set(buffers((trainer.state.params, trainer.state.ema, trainer.state.opt_state)))
        trainer.take_step()
        after = set(buffers((trainer.state.params, trainer.state.ema, trainer.state.opt_state)))
        assert before == after


def test_frozen_groups_are_not_donated(tmp_path):
    run(tiny_config("Plain"), tmp_path / "plain", 8)
    config = tiny_config("Borrower")
    config.init_from = {"net": str(tmp_path / "plain")}
    with opened(config, tmp_path / "run") as trainer:
        held = jax.tree.leaves(trainer.frozen)
        trainer.take_step()
        assert held and not any(leaf.is_deleted() for leaf in held)


# ------------------------------------------------------------------ keys and contracts


def test_seeds_steps_and_turns_draw_different_numbers(tmp_path):
    drawn = []
    for seed in (0, 1):
        config = tiny_config("Plain", noise=0.1)
        config.seed = seed
        drawn += train_steps(config, tmp_path / str(seed), 3)[0][-1].memory["diary"][:3, 0].tolist()
    assert len(set(drawn)) == 6


def test_augmentation_moves_images_and_draws_anew_each_step(tmp_path):
    """One image, again and again: what the loss sees of it changes from step to step."""
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[0, 1:4, 0:2] = 255
    np.savez(tmp_path / "one.npz", images=image)
    config = tiny_config("Plain")
    config.data.update(source=f"npz:{tmp_path / 'one.npz'}", split="all")
    config.train.batch_size = 1
    still = train_steps(config, tmp_path / "still", 6)[0][-1].memory["diary"][:6, 1]
    config.data.crop = 2
    moved = train_steps(config, tmp_path / "moved", 6)[0][-1].memory["diary"][:6, 1]
    assert len(set(still.tolist())) == 1 and len(set(moved.tolist())) > 2


def test_memory_that_init_did_not_make_is_refused(tmp_path, monkeypatch):
    import tiny_methods

    loss = tiny_methods.Plain.loss

    def wrong(self, *arguments):
        value, (metrics, _) = loss(self, *arguments)
        return value, (metrics, {"dairy": jnp.zeros(1)})

    monkeypatch.setattr(tiny_methods.Plain, "loss", wrong)
    with pytest.raises(ValueError, match="'fit' updates memory"), opened(tiny_config("Plain"), tmp_path) as trainer:
        trainer.take_step()
