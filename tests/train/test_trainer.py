"""Whole runs: stopped and resumed, extended, warm-started, gone wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from concurrent.futures import Future

import jax
import numpy as np
import pytest
from running import differing, named, on_host, opened, run
from tiny_methods import Plain, ddpm_config, tiny_config

from jaxgen.errors import UserError
from jaxgen.runs import comparison
from jaxgen.runs.integrity import text_checksum
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import restore

# TensorStore's readers of a damaged folder end with an exception that nobody collects
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def history(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


# ------------------------------------------------------------------ the same command resumes


def small_ddpm():
    """Dropout, flips, crops, warm-up and decay are on; two devices."""
    config = ddpm_config()
    config.mesh.data = 2
    config.train.update(total_images=48, log_every_images=8)
    return config


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, run(small_ddpm(), workdir)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, straight):
    workdir, state = straight
    for images in (8, 32, 48):
        config = small_ddpm()
        config.optimizer.decay_images = 48
        again = run(config, tmp_path, images)
    assert state.images == again.images == 48 and state.step == 6
    assert differing(state, again) == []
    # and the log has one history, with the same numbers
    rows, others = history(workdir), history(tmp_path)
    assert [row["step"] for row in rows] == [row["step"] for row in others] == list(range(1, 7))
    timed = {"seconds", "images_per_second"}
    for row, other in zip(rows, others, strict=True):
        assert {k: v for k, v in row.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}
    assert all(a["seconds"] < b["seconds"] for a, b in zip(others, others[1:], strict=False))


@pytest.mark.nightly
@pytest.mark.parametrize("begun", [False, True])
def test_the_update_is_compiled_once_and_before_the_first_step(tmp_path, begun):
    """On another thread, for shapes and shardings that are those of the state which is made, or read."""
    if begun:
        run(small_ddpm(), tmp_path, 16)
    compiled = []

    def heard(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        with opened(small_ddpm(), tmp_path) as trainer:
            trainer._compiling.result()
            before = compiled.count("jit(update)")
            trainer.take_step()
            trainer.take_step()
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
    assert before == compiled.count("jit(update)") == 1, compiled


def test_init_is_traced_once(tmp_path, monkeypatch):
    traces = []
    init = Plain.init
    monkeypatch.setattr(Plain, "init", lambda self, *rest: traces.append(rest[2]) or init(self, *rest))
    with opened(tiny_config("Plain"), tmp_path) as trainer:
        trainer.take_step()
    assert traces == [0]


@pytest.mark.slow
def test_numbers_drawn_after_a_resume_are_those_of_a_run_that_went_on(tmp_path):
    config = tiny_config("TwoPlayers", repeats=2)
    whole = run(config, tmp_path / "whole", 64)
    run(config, tmp_path / "parts", 32)
    parts = run(config, tmp_path / "parts", 64)
    assert differing(whole, parts) == []
    diary = whole.memory["diary"][:12]
    assert len(set(diary[:, 4].tolist())) == 12


def test_a_line_of_the_log_is_the_mean_of_all_its_steps_also_of_those_before_a_kill(tmp_path):
    """A checkpoint between two lines holds what the first part of its line has measured; one update is not finite."""
    config = tiny_config("Plain", noise=0.1, fail_at=(4,))
    config.train.update(log_every_images=8)
    run(config, tmp_path / "each")
    config.train.update(log_every_images=24, checkpoint_every_images=16)
    run(config, tmp_path / "whole")
    with opened(config, tmp_path / "parts") as trainer:
        take = trainer.take_step

        def die_at_the_seventh():
            if trainer.step == 6:
                raise KeyboardInterrupt
            return take()

        trainer.take_step = die_at_the_seventh
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        trainer.checkpoints.wait()
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "6")  # so that it goes on from step 4, the first of its line
    assert steps(tmp_path / "parts") == [4]
    run(config, tmp_path / "parts")
    whole, parts = comparison.history(tmp_path / "whole"), comparison.history(tmp_path / "parts")
    assert whole == parts and [row["images"] for row in whole] == [24, 48, 64]
    losses = [row["fit/loss"] for row in comparison.history(tmp_path / "each")]
    assert whole[0]["fit/loss"] == pytest.approx(sum(losses[:3]) / 3, rel=1e-12)
    assert whole[1]["fit/loss"] is None and whole[1]["nonfinite"] == ["fit/loss"]
    assert whole[2]["fit/loss"] == pytest.approx(sum(losses[6:]) / 2, rel=1e-12)


def test_a_checkpoint_of_a_version_that_did_not_record_the_log_is_read(tmp_path, caplog):
    config = tiny_config("Plain", noise=0.1)
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "run", 24)
    file = tmp_path / "run" / "checkpoints" / "3" / "meta" / "metadata"
    record = json.loads(file.read_text())
    del record["pending"]  # as an older version wrote it
    record["sums"]["meta"] = text_checksum({**record, "sums": None})
    file.write_text(json.dumps(record))
    assert differing(whole, run(config, tmp_path / "run")) == [] and "damaged" not in caplog.text


def test_lines_after_the_last_checkpoint_are_dropped(tmp_path):
    """A run that was killed has logged more than it has saved."""
    config = tiny_config("Plain")
    run(config, tmp_path, 32)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "images": 48, "seconds": 9.0, "fit/loss": 123.0}\n{"step": 7, "im')
    run(config, tmp_path, 64)
    rows = history(tmp_path)
    assert [row["images"] for row in rows] == [16, 32, 48, 64] and all(row["fit/loss"] < 100 for row in rows)


@pytest.mark.nightly
def test_a_damaged_newest_checkpoint_costs_time_but_not_the_result(tmp_path):
    config = tiny_config("Plain", noise=0.1)
    config.train.checkpoint_every_images = 16
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "run", 48)
    assert steps(tmp_path / "run") == [4, 6]
    for path in (tmp_path / "run" / "checkpoints" / "6" / "params").rglob("d/*"):  # Orbax keeps two copies, uses one
        path.write_bytes(path.read_bytes()[::-1])
    assert differing(whole, run(config, tmp_path / "run")) == []
    assert [row["images"] for row in history(tmp_path / "run")] == [16, 32, 48, 64]
    assert [p.name for p in (tmp_path / "run" / "damaged").iterdir()] == ["6"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "a closed terminal"])
def test_a_signal_ends_the_run_after_the_step_and_saves(number, tmp_path):
    config = tiny_config("Plain", noise=0.1)
    config.train.update(total_images=400, log_every_images=8)
    with opened(config, tmp_path / "run") as trainer:
        take = trainer.take_step

        def stop_at_the_third():
            if trainer.step == 2:
                os.kill(os.getpid(), number)
            return take()

        trainer.take_step = stop_at_the_third
        before = signal.getsignal(number)
        assert trainer.train() is False
        assert trainer.stopped_by == number and trainer.step == 3
        assert signal.getsignal(number) is before
    assert steps(tmp_path / "run") == [3]
    assert differing(run(config, tmp_path / "run", 48), run(config, tmp_path / "straight", 48)) == []


def test_a_signal_during_the_first_compilation_ends_the_run_at_once_and_saves(tmp_path):
    config = tiny_config("Plain", noise=0.1)
    with opened(config, tmp_path / "run") as trainer:
        trainer._compiling.result()
        trainer._compiling = Future()  # a compilation without an end
        later = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
        later.start()
        assert trainer.train() is False
        assert trainer.stopped_by == signal.SIGTERM and trainer.step == 0
    assert steps(tmp_path / "run") == [0]
    assert differing(run(config, tmp_path / "run", 48), run(config, tmp_path / "straight", 48)) == []


def test_other_data_are_refused_on_resume(tmp_path):
    for name, count in (("a", 20), ("b", 21)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((count, 8, 8, 1), np.uint8))
    config = tiny_config("Plain")
    config.data.update(source=f"npz:{tmp_path / 'a.npz'}", split="all")
    run(config, tmp_path / "run", 8)
    (tmp_path / "b.npz").rename(tmp_path / "a.npz")
    with pytest.raises(UserError, match="The checkpoint's data sources is"):
        run(config, tmp_path / "run", 16)


# ------------------------------------------------------------------ checkpoints on the way


def test_cadences_count_images(tmp_path):
    config = tiny_config("Plain")
    config.train.update(checkpoint_every_images=24, keep_last=9, log_every_images=20, sample_every_images=40)
    run(config, tmp_path)
    assert steps(tmp_path) == [3, 6, 8]  # 24, 48, and the end
    assert [row["images"] for row in history(tmp_path)] == [24, 40, 64]  # the first step at or after each 20
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["step_0000000040.png"]


@pytest.mark.parametrize(("mode", "best"), [("min", 3), ("max", 5)])
def test_the_best_by_an_evaluation_is_kept(tmp_path, mode, best):
    scores = {1: 5.0, 2: 4.0, 3: 1.0, 4: 6.0, 5: 9.0, 6: 7.0, 7: 3.0, 8: 2.0}
    config = tiny_config("Plain")
    config.train.update(
        checkpoint_every_images=8,
        evaluate_every_images=8,
        keep_last=1,
        keep_best=1,
        best_metric="distance",
        best_mode=mode,
    )
    run(config, tmp_path, evaluate=lambda trainer: {"distance": scores[trainer.step]})
    assert steps(tmp_path) == [best, 8]


def test_a_score_belongs_to_the_checkpoint_after_it_and_to_no_later_one(tmp_path):
    config = tiny_config("Plain")
    config.train.update(
        checkpoint_every_images=8, evaluate_every_images=32, keep_last=1, keep_best=1, best_metric="distance"
    )
    run(config, tmp_path, 56, evaluate=lambda trainer: {"distance": 1.0})
    assert steps(tmp_path) == [4, 7]


def test_a_trained_model_is_restored_without_its_data(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8))
    config = tiny_config("Plain")
    config.data.update(source=f"npz:{tmp_path / 'data.npz'}", split="all")
    state = run(config, tmp_path / "run", 16)
    (tmp_path / "data.npz").unlink()
    trained = restore(config, tmp_path / "run")
    assert trained.step == 2 and trained.images == 16
    assert differing(trained.model.params, state.ema) == [] and differing(trained.model.memory, state.memory) == []
    with pytest.raises(UserError, match="holds no|has no finished checkpoint"):
        restore(config, tmp_path)


# ------------------------------------------------------------------ warm starts


@pytest.mark.nightly
def test_a_learned_group_begins_with_given_weights_and_memory_but_nothing_else(tmp_path):
    source = run(tiny_config("TwoPlayers", repeats=1), tmp_path / "source", 32)
    config = tiny_config("TwoPlayers", repeats=1)
    config.seed = 5
    config.init_from = {"generator": str(tmp_path / "source")}
    with opened(config, tmp_path / "run") as trainer:
        state = on_host(trainer.state)
        assert trainer.frozen == {}
    assert differing(state.params["generator"], source.ema["generator"]) == []
    assert differing(state.ema["generator"], source.ema["generator"]) == []
    assert differing(state.memory["generator"], source.memory["generator"]) == []
    assert not any(np.any(x) for x in jax.tree.leaves(state.opt_state["generator"]))
    assert state.step == state.images == 0
    config.init_from = {}
    with opened(config, tmp_path / "fresh") as trainer:  # the other group is what it would be without
        assert differing(trainer.state.params["discriminator"], state.params["discriminator"]) == []
        assert differing(trainer.state.memory["discriminator"], state.memory["discriminator"]) == []
        assert differing(trainer.state.memory["generator"], state.memory["generator"])


@pytest.mark.nightly
def test_given_weights_of_another_shape_are_refused_by_name(tmp_path, monkeypatch):
    run(tiny_config("TwoPlayers", repeats=1), tmp_path / "source", 8)
    config = tiny_config("TwoPlayers", repeats=1)
    config.init_from = {"discriminator": f"{tmp_path / 'source'}#generator"}
    with pytest.raises(
        UserError, match=r"init_from\.discriminator: 'dense_0/kernel' has shape \(4, 16\) .* \(64, 16\)"
    ):
        run(config, tmp_path / "run", 8)
    config.init_from = {"net": f"{tmp_path / 'source'}#generator"}
    config.method = {"name": "tiny_methods:Plain"}
    with pytest.raises(UserError, match=r"config\.init_from\.net: the loaded weights have no 'dense_0/bias'"):
        run(config, tmp_path / "run2", 8)


# ------------------------------------------------------------------ what is not finite


@pytest.mark.nightly
def test_a_run_that_stays_broken_stops_with_its_last_good_state_saved(tmp_path):
    config = tiny_config("TwoPlayers", repeats=1, fail_turn="generator", fail_from=3)
    config.train.update(total_images=800, max_nonfinite_updates=4)
    with opened(config, tmp_path) as trainer:
        good = []
        take = trainer.take_step

        def step():
            metrics = take()
            if trainer.step == 3:
                good.append(on_host(trainer.state))
            return metrics

        trainer.take_step = step
        with pytest.raises(UserError, match=r"Turn 'generator' was not finite for \d+ updates in a row.*generator"):
            trainer.train()
        assert 7 <= trainer.step <= 20
        wait = trainer.step
    events = json.loads((tmp_path / "run.json").read_text())["events"]
    first = next(e for e in events if "step 3" in json.dumps(e))
    assert "'generator'" in json.dumps(first) and "not finite" in json.dumps(first)
    assert steps(tmp_path)[-1] == wait
    # what was saved is the generator as it was when the trouble began
    config = tiny_config("TwoPlayers", repeats=1, fail_turn="generator", fail_from=3)
    with opened(config, tmp_path) as trainer:
        for part in ("params", "opt_state", "memory"):
            saved = getattr(trainer.state, part)["generator"]
            assert differing(saved, getattr(good[0], part)["generator"]) == []
        assert all(np.isfinite(x).all() for x in named((trainer.state.params, trainer.state.ema)).values())


def test_single_bad_steps_do_not_stop_a_run_and_leave_no_trace_in_the_log_but_null(tmp_path):
    config = tiny_config("Plain", fail_at=(1, 3, 5))
    config.train.update(max_nonfinite_updates=2, log_every_images=8)
    state = run(config, tmp_path)
    assert state.images == 64
    rows = history(tmp_path)
    assert [row["fit/loss"] is None for row in rows] == [i in (1, 3, 5) for i in range(8)]


# ------------------------------------------------------------------ samples


def test_samples_do_not_depend_on_the_batch_that_they_are_drawn_in(tmp_path):
    config = tiny_config("Plain")
    with opened(config, tmp_path) as trainer:
        trainer.take_step()
        model = on_host(trainer.model())
        drawn = [Generator(trainer.method, config, size).images(model, 3, 11).images for size in (1, 4, 8, 16)]
    assert drawn[0].shape == (11, 8, 8, 1) and len({image.tobytes() for image in drawn[0]}) == 11
    for other in drawn[1:]:
        assert np.abs(drawn[0].astype(int) - other).max() <= 1  # rounding to 256 levels
