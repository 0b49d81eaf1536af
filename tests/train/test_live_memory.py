"""What stays in memory while a run trains, by the arrays that are alive."""

from __future__ import annotations

import gc
import json
import logging

import jax
import numpy as np
import pytest
from running import differing, on_host, opened, run
from tiny_methods import PIXELS, tiny_config

from jaxgen.sampling.restore import restore

ROWS = 1237  # no other test has a table of this size


def table(**train):
    config = tiny_config("Table", rows=ROWS)
    config.data.num_classes = 10
    config.mesh.data = 1
    config.train.update(total_images=16, **train)
    return config


def tables_alive():
    """How many buffers of that size are in use; a part of an array is an array of its own on the same buffer."""
    gc.collect()
    alive = [x for x in jax.live_arrays() if x.shape == (ROWS, PIXELS) and not x.is_deleted()]
    return len({x.addressable_shards[0].data.unsafe_buffer_pointer() for x in alive})


@pytest.mark.nightly
def test_a_group_that_learns_from_loaded_weights_does_not_keep_their_copy(tmp_path):
    """Parameters, EMA and Adam's two moments are alive, at the start, after a step, and after a resume."""
    source = run(table(), tmp_path / "source", 8)
    config = table()
    config.init_from = {"table": str(tmp_path / "source")}
    for images in (0, 8):
        with opened(config, tmp_path / "run") as trainer:
            assert trainer.images == images and tables_alive() == 4
            if not images:
                assert differing(on_host(trainer.state.params["table"]), source.ema["table"]) == []
                assert trainer.state.memory["table"]["updates"] == 1  # which came with them
            trainer.take_step()
            assert tables_alive() == 4
            trainer.save()
            trainer.checkpoints.wait()
            assert trainer.checkpoints.origins()["table"]["step"] == 1
        del trainer
        assert tables_alive() == 0


@pytest.mark.slow
def test_a_group_that_does_not_learn_is_alive_once(tmp_path):
    run(table(), tmp_path / "source", 8)
    config = table()
    config.method.name = "tiny_methods:OneRow"
    config.init_from = {"table": str(tmp_path / "source")}
    with opened(config, tmp_path / "run") as trainer:
        trainer.take_step()
        assert tables_alive() == 1


@pytest.mark.slow
def test_a_group_that_no_turn_trains_has_no_optimiser_state(tmp_path):
    """It is alive as parameters and as EMA; Adam's two moments of it would be two more."""
    size = 54_321  # no other test has an array of this size
    config = tiny_config("Shelf", size=size)
    config.mesh.data = 1
    with opened(config, tmp_path) as trainer:
        trainer.take_step()
        gc.collect()
        alive = [x for x in jax.live_arrays() if x.shape == (size,) and not x.is_deleted()]
        assert len({x.addressable_shards[0].data.unsafe_buffer_pointer() for x in alive}) == 2
        assert trainer.state.opt_state.keys() == {"net"} and trainer.state.params.keys() == {"net", "shelf"}


@pytest.mark.nightly
@pytest.mark.parametrize("fsdp", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_checkpoint_with_optimiser_state_of_such_a_group_goes_on_to_the_same_bits(tmp_path, caplog, fsdp):
    """Older versions of jaxgen wrote one; it was never used."""
    config = tiny_config("Shelf")
    config.mesh.fsdp, config.sharding.min_size = fsdp, 64
    whole = run(config, tmp_path / "whole", 32)
    with opened(config, tmp_path / "run") as trainer:
        trainer.take_step()
        trainer.take_step()
        state = trainer.state
        old = {**state.opt_state, "shelf": trainer.builder.optimizers["shelf"].init(state.params["shelf"])}
        trainer.state = state.replace(opt_state=old)
        trainer.save()
        trainer.checkpoints.wait()
    caplog.set_level(logging.INFO, logger="jaxgen")
    gone_on = run(config, tmp_path / "run", 32)
    assert "the optimiser state of shelf is not read: no turn trains it" in caplog.text
    assert gone_on.step == 4 and differing(gone_on, whole) == []
    assert differing(restore(config, tmp_path / "run").model.params, gone_on.ema) == []


@pytest.mark.slow
def test_a_loaded_group_waits_for_the_stage_at_which_it_joins(tmp_path):
    """`extra` learns from stage 1 on; `net` learns from the start, so that its copy is gone before."""
    config = tiny_config("Growing", boundary=8)
    run(config, tmp_path / "source", 16)
    config.init_from = {"extra": str(tmp_path / "source")}
    with opened(config, tmp_path / "run") as trainer:
        trainer.take_step()
        assert list(trainer.frozen) == ["extra"]
        trainer.take_step()
        assert trainer.stage == 1 and trainer.frozen == {}


@pytest.mark.slow
def test_without_averaging_no_average_is_kept_or_written(tmp_path):
    config = table(ema_decay=0.0)
    with opened(config, tmp_path) as trainer:
        trainer.take_step()
        assert trainer.state.ema == {} and tables_alive() == 3
        assert differing(trainer.model().params, trainer.state.params) == []
        trainer.save()
    assert not (tmp_path / "checkpoints" / "1" / "ema").exists()
    state = run(config, tmp_path)
    assert state.step == 2 and differing(restore(config, tmp_path).model.params, state.params) == []


def test_an_average_that_an_older_version_wrote_is_passed_over(tmp_path):
    """It kept one where `ema_decay` was 0; here it has another value than the parameters, to tell them apart."""
    state = run(table(), tmp_path, 8)
    assert differing(state.ema, state.params)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["train"]["ema_decay"] = 0.0
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert differing(restore(table(ema_decay=0.0), tmp_path).model.params, state.params) == []
    longer = run(table(ema_decay=0.0), tmp_path)
    assert longer.step == 2 and longer.ema == {}


def test_a_loss_may_read_the_average_where_there_is_none(tmp_path, monkeypatch):
    """It then reads the parameters that the step began with."""
    from tiny_methods import Plain

    def loss(self, params, batch, key, state):
        gap = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), params, state.ema)
        return sum(jax.tree.leaves(params["net"]["out"]["bias"]), gap["net"]["out"]["bias"]).sum(), ({}, {})

    monkeypatch.setattr(Plain, "loss", loss)
    config = tiny_config("Plain")
    config.train.ema_decay = 0.0
    with opened(config, tmp_path) as trainer:
        values = [float(trainer.take_step()["fit/loss"]) for _ in range(2)]
    assert np.isfinite(values).all() and trainer.state.ema == {}
