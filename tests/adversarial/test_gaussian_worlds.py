"""The toy worlds: points follow their known density, and go through the same loop as images."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from running import on_host
from running import opened as opened_trainer
from scipy import stats

from jaxgen.adversarial.diagnostics import game_value, modes_covered, optimal_discriminator
from jaxgen.config import defaults, section
from jaxgen.data import Loader, open_source
from jaxgen.data.sources.gaussians import WORLDS, Mixture, grid
from jaxgen.data.transforms import prepare
from jaxgen.errors import UserError

MODES = {"ring8": 8, "grid25": 25}


def opened(world, split="train"):
    return open_source(f"gaussians:{world}", split, (1, 2), 1, MODES[world])


@pytest.mark.parametrize("world", MODES)
def test_layout(world):
    train, test = opened(world), opened(world, "test")
    assert (len(train), len(test)) == (50_000, 10_000)
    example = train[0]
    assert example["image"].shape == (1, 2, 1) and example["image"].dtype == np.float32
    assert example["label"].dtype == np.int32 and train.num_classes == MODES[world]
    points = [{bytes(point) for point in source.arrays["image"]} for source in (train, test)]
    assert not points[0] & points[1] and len(points[0]) == 50_000
    np.testing.assert_array_equal(opened(world).arrays["image"], train.arrays["image"])
    assert np.abs(train.arrays["image"]).max() < 1


@pytest.mark.parametrize("world", MODES)
def test_points_follow_the_density(world):
    source, mixture = opened(world), WORLDS[world]
    points = source.arrays["image"].reshape(-1, 2).astype(np.float64)
    labels = source.arrays["label"]
    assert stats.chisquare(np.bincount(labels, minlength=MODES[world])).pvalue > 1e-4
    away = (points - mixture.centres[labels]) / mixture.std
    for axis in range(2):
        assert stats.kstest(away[:, axis], "norm").pvalue > 1e-4
    assert stats.kstest((away**2).sum(1), stats.chi2(2).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(away.T)[0, 1]) < 4 / np.sqrt(len(away))
    # modes hardly overlap: entropy is log K + that of one Gaussian
    entropy = np.log(MODES[world]) + np.log(2 * np.pi * np.e * mixture.std**2)
    assert -mixture.log_density(source.arrays["image"]).mean() == pytest.approx(entropy, abs=4 / np.sqrt(50_000))
    covered = modes_covered(points, mixture.centres, mixture.std)
    assert covered.covered == MODES[world] and covered.high_quality == pytest.approx(1 - np.exp(-4.5), abs=2e-3)


def test_the_ring_is_round_and_the_grid_square():
    radius = np.linalg.norm(WORLDS["ring8"].centres, axis=1)
    np.testing.assert_allclose(radius, 0.8)
    np.testing.assert_allclose(WORLDS["ring8"].centres.sum(0), 0, atol=1e-12)
    assert {tuple(c) for c in np.round(WORLDS["grid25"].centres, 12)} == {
        (x, y) for x in (-0.8, -0.4, 0, 0.4, 0.8) for y in (-0.8, -0.4, 0, 0.4, 0.8)
    }


def test_densities_integrate_to_one_and_stay_finite_in_the_log():
    wide = grid(side=3, spacing=0.5, std=0.1)
    x = np.linspace(-1.5, 1.5, 301)
    points = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    assert np.exp(wide.log_density(points)).sum() * (x[1] - x[0]) ** 2 == pytest.approx(1, abs=1e-6)
    peer = sum(stats.multivariate_normal(c, 0.01).pdf(points) for c in wide.centres) / 9
    np.testing.assert_allclose(wide.log_density(points), np.log(peer), rtol=1e-9)
    assert np.isfinite(WORLDS["ring8"].log_density(np.array([[50.0, -50.0]]))).all()


def test_against_a_generator_that_lost_modes_the_best_discriminator_is_known():
    ring = WORLDS["ring8"]
    half = Mixture(ring.centres[:4], ring.std)  # twice the density where it goes
    real, fake = ring.draw(5, 20_000)[0], half.draw(6, 20_000)[0]

    def logit(x):
        return ring.log_density(x) - half.log_density(x)

    best = optimal_discriminator(np.exp(ring.log_density(fake)), np.exp(half.log_density(fake)))
    np.testing.assert_allclose(best, 1 / 3, rtol=1e-6)
    # half of the data is where D is 1, half where it is 1/3: V = log(1/3) / 2 + log(2/3)
    value = float(game_value(logit(real), logit(fake)))
    assert value == pytest.approx(np.log(1 / 3) / 2 + np.log(2 / 3), abs=0.02)


def test_points_reach_the_losses_as_they_are():
    batch = next(Loader({"": opened("grid25", "test")}, 64, seed=0))
    prepared = prepare(batch, jax.random.key(0))
    np.testing.assert_array_equal(prepared["image"], batch["image"])
    assert prepared["image"].dtype == np.float32 and prepared["image"].shape == (64, 1, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gaussians", "train", (1, 2), 1), "lacks its argument"),
        (("gaussians:ring9", "train", (1, 2), 1), "did you mean 'ring8'"),
        (("gaussians:ring8", "val", (1, 2), 1), "train, test"),
        (("gaussians:ring8", "train", 8, 1), r"resolution=\(1, 2\)"),
        (("gaussians:ring8", "train", (1, 2), 3), "channels=1"),
        (("gaussians:grid25", "train", (1, 2), 1, 8), "num_classes to 25"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(UserError, match=message):
        open_source(*arguments)


@pytest.mark.slow
def test_a_gan_of_points_trains_and_samples_through_the_loop(tmp_path):
    config = defaults()
    config.method = section(name="point_gan:PointGAN", loss=section(name="hinge"))
    config.data.update(source="gaussians:ring8", resolution=(1, 2), channels=1)
    config.optimizer.update(name="adam", learning_rate=1e-3)
    config.train.update(
        batch_size=16,
        total_images=320,
        log_every_images=160,
        checkpoint_every_images=0,
        sample_every_images=0,
        ema_decay=0.9,
        tensorboard=False,
    )
    config.evaluate.batch_size = 16
    with opened_trainer(config, tmp_path) as trainer:
        before = on_host(trainer.state)
        assert trainer.train()
        after = on_host(trainer.state)
        samples = trainer.generator.images(trainer.model(), seed=0, num=8).images
    learned, carried = (
        jax.tree.map(lambda a, b: float(abs(a - b).max()), getattr(before, name), getattr(after, name))
        for name in ("params", "memory")
    )
    # both players; no hinge is crossed so early, so the pulls on the discriminator's last bias cancel
    assert all(layer["kernel"] > 0 for player in learned.values() for layer in player.values())
    assert all(layer["kernel"]["v"] > 0 for layer in carried["spectral"].values())  # the power iteration goes on
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    assert samples.shape == (8, 1, 2, 1)
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert "discriminator/right_on_real" in last and "generator/grad_norm" in last
