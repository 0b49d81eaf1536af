"""A run that is extended: its learning rates are those of a run that was made at once, and it goes on learning."""

from __future__ import annotations

import json

import numpy as np
import pytest
from running import differing, largest_difference, named, opened, run
from tiny_methods import tiny_config

from jaxgen.runs.workdir import stored_config

HALF, WHOLE = 32, 64


def small(name, **options):
    """A config of 8x8 digits in batches of 8 that logs every update."""
    config = tiny_config(name, **options)
    config.train.update(total_images=WHOLE, log_every_images=8)
    return config


def rates(workdir, group):
    """`{images seen before an update: its learning rate}`; every line of the log is one step."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = [{"images": 0}, *rows]
    return {
        before["images"]: row[f"{group}/learning_rate"]
        for before, row in zip(rows, rows[1:], strict=False)
        if f"{group}/learning_rate" in row
    }


def cosine():
    config = small("Plain")
    config.optimizer.decay = "cosine"
    return config


def linear_and_constant():
    config = small("TwoPlayers", repeats=1)
    config.optimizers = {"discriminator": {"decay": "linear", "learning_rate": 0.01}}
    return config


def stages():
    config = small("Growing", boundary=40)
    config.optimizer.update(decay="linear", warmup_images=16)
    return config


# The learning rates of the run of 64 images, by the images seen before the update.
HALF_WAY = {
    "cosine": (cosine, "net", {0: 1e-3, 32: 0.5e-3, 48: 1e-3 * (0.5 - 0.25 * 2**0.5)}),
    "linear": (linear_and_constant, "discriminator", {0: 0.01, 32: 0.005, 40: 0.00375, 56: 0.00125}),
    "constant": (linear_and_constant, "generator", {0: 1e-3, 32: 1e-3, 56: 1e-3}),
    "grown": (stages, "net", {0: 1e-3 / 16, 16: 1e-3, 40: 0.5e-3, 52: None}),
    "joined": (stages, "extra", {32: None, 40: 0.5e-3, 56: 1e-3 / 6}),
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Folder and states of a run of 64 images, and of one of 32 that is extended, by the name of its config."""
    made = {}

    def of(make):
        if make not in made:
            folder = tmp_path_factory.mktemp(make.__name__)
            whole = run(make(), folder / "whole")
            half, longer = (run(make(), folder / "parts", images) for images in (HALF, WHOLE))
            made[make] = folder, whole, half, longer
        return made[make]

    return of


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in HALF_WAY if name != "cosine"]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["cosine", *SLOW])
def test_an_extended_run_has_the_learning_rates_of_one_that_was_made_at_once(extended, name):
    make, group, known = HALF_WAY[name]
    folder, _, half, longer = extended(make)
    whole, parts = rates(folder / "whole", group), rates(folder / "parts", group)
    assert {i: parts[i] for i in parts if i >= HALF} == {i: whole[i] for i in whole if i >= HALF}
    for images, rate in known.items():
        assert whole.get(images) == (None if rate is None else pytest.approx(rate, rel=1e-5)), images
    before, after = named(half.params.get(group, {})), named(longer.params[group])
    moved = [np.abs(after[n] - before[n]).max() for n in before if before[n].shape == after[n].shape]
    assert all(change > 1e-5 for change in moved)  # it goes on learning


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["Plain", *(pytest.param(name, marks=pytest.mark.slow) for name in ("TwoPlayers", "Growing"))]
)
def test_with_a_constant_rate_an_extended_run_is_the_longer_one_bit_for_bit(tmp_path, name):
    options = {"Plain": {"noise": 0.1}, "TwoPlayers": {"repeats": 2}, "Growing": {"boundary": 48}}[name]
    config = small(name, **options)
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", HALF)
    assert differing(whole, run(config, tmp_path / "parts")) == []


def test_a_finished_run_that_an_older_version_stored_goes_on_learning(tmp_path):
    config = small("Plain")
    config.optimizer.decay = "cosine"
    half = run(config, tmp_path, HALF)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["optimizer"]["decay_images"] = HALF  # as it was resolved when the run began
    (tmp_path / "config.json").write_text(json.dumps(stored))
    longer = run(stored_config(tmp_path, ["tiny_methods"]), tmp_path, WHOLE)
    assert largest_difference(half.params, longer.params) > 1e-4
    assert rates(tmp_path, "net")[48] == pytest.approx(1e-3 * (0.5 - 0.25 * 2**0.5), rel=1e-5)


@pytest.mark.nightly
def test_a_group_that_stops_learning_before_the_end_is_named(tmp_path, caplog):
    config = linear_and_constant()
    config.optimizers.discriminator.decay_images = 24
    config.train.total_images = HALF
    with opened(config, tmp_path) as trainer:
        trainer.train()
    said = [m for m in caplog.messages if "learning rate" in m]
    assert len(said) == 1 and "group 'discriminator' is 0 from 24 images on" in said[0] and "ends at 32" in said[0]
    assert np.array(list(rates(tmp_path, "discriminator").values()))[-1] == 0
