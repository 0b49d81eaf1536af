"""The losses of both players: slopes at chosen logits, best discriminators, values of the games."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial import losses
from jaxgen.build import build
from jaxgen.errors import UserError

GAMES = {
    "minimax": losses.Minimax(),
    "non_saturating": losses.NonSaturating(),
    "least_squares": losses.LeastSquares(),
    "hinge": losses.Hinge(),
    "wasserstein": losses.Wasserstein(),
    "energy_margin": losses.EnergyMargin(2.0),
}
# two laws over six places, with one place that each never visits
P = np.array([0.30, 0.25, 0.20, 0.15, 0.10, 0.00])
Q = np.array([0.05, 0.10, 0.20, 0.25, 0.00, 0.40])
BOTH = slice(0, 4)  # where log p - log q is finite


def slope_of_generator(game, logit):
    return float(jax.grad(game.generator)(jnp.float32(logit)))


def slopes_of_discriminator(game, real, fake):
    gradient = jax.grad(lambda r, f: sum(game.discriminator(r, f)), (0, 1))
    return [float(g) for g in gradient(jnp.float32(real), jnp.float32(fake))]


def cost(game, logits, p=P, q=Q):
    """The discriminator's expected loss over the places, in float64."""
    with jax.enable_x64(True):
        real, fake = game.discriminator(jnp.asarray(logits), jnp.asarray(logits))
        return float((p * real + q * fake).sum())


def kl(p, q):
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


def test_where_the_fake_is_seen_through_minimax_saturates_and_the_others_do_not():
    sigmoid = 1 / (1 + np.exp(10.0))
    assert slope_of_generator(GAMES["minimax"], -10) == pytest.approx(-4.54e-5, rel=1e-3)
    assert slope_of_generator(GAMES["minimax"], -10) == pytest.approx(-sigmoid, rel=1e-4)
    assert slope_of_generator(GAMES["non_saturating"], -10) == pytest.approx(-(1 - sigmoid), rel=1e-6)
    assert slope_of_generator(GAMES["least_squares"], -10) == pytest.approx(-11)
    for name in ("hinge", "wasserstein", "energy_margin"):
        assert slope_of_generator(GAMES[name], -10) == -1


@pytest.mark.parametrize("size", [20.0, 100.0])  # sigmoid(-20) + 1e-8 has lost its slope, sigmoid(-100) is 0 in float32
def test_no_slope_is_lost_at_great_logits(size):
    assert slope_of_generator(GAMES["non_saturating"], -size) == pytest.approx(-1, abs=1e-6)
    assert slope_of_generator(GAMES["minimax"], size) == pytest.approx(-1, abs=1e-6)
    for name in ("minimax", "non_saturating"):
        assert slopes_of_discriminator(GAMES[name], -size, size) == pytest.approx([-1, 1], abs=1e-6)
        real, fake = GAMES[name].discriminator(jnp.float32(-size), jnp.float32(size))
        assert (float(real), float(fake)) == pytest.approx((size, size), rel=1e-6)


@pytest.mark.parametrize("name", GAMES)
def test_the_discriminator_is_high_on_real_and_the_generator_wants_it_high(name):
    game = GAMES[name]
    for logit in np.linspace(0.1, 0.9, 5) - (name != "least_squares"):  # inside every hinge, between all labels
        real, fake = slopes_of_discriminator(game, logit, logit)
        assert real < 0 < fake
        assert slope_of_generator(game, logit) < 0


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_the_best_discriminator_and_its_value(name):
    best = np.log(P[BOTH]) - np.log(Q[BOTH])
    logits = np.concatenate([best, [40.0, -40.0]])  # and for certain where only one of the two goes
    middle = (P + Q) / 2
    jensen_shannon = (kl(P, middle) + kl(Q, middle)) / 2
    assert -cost(GAMES[name], logits) == pytest.approx(2 * jensen_shannon - np.log(4), abs=1e-12)
    for place in range(4):
        for step in (-0.1, 0.1):
            assert cost(GAMES[name], logits + step * np.eye(6)[place]) > cost(GAMES[name], logits) + 1e-5


def test_where_the_generator_has_won_the_value_is_minus_log_4():
    for name in ("minimax", "non_saturating"):
        assert cost(GAMES[name], np.zeros(6), P, P) == pytest.approx(np.log(4), abs=1e-12)


@pytest.mark.parametrize("labels", [(0.0, 1.0, 1.0), (-1.0, 1.0, 0.0), (0.2, 0.9, 0.9)])
def test_the_best_discriminator_of_least_squares(labels):
    a, b, c = labels
    game = losses.LeastSquares(*labels)
    best = (b * P + a * Q) / (P + Q)
    for place in range(6):
        for step in (-0.1, 0.1):
            assert cost(game, best + step * np.eye(6)[place]) > cost(game, best) + 1e-4
    assert game.boundary == pytest.approx((a + b) / 2)
    if (b - c, b - a) == (1.0, 2.0):
        pearson = np.sum((2 * Q - (P + Q)) ** 2 / (P + Q))
        with jax.enable_x64(True):
            both = float(((P + Q) * game.generator(jnp.asarray(best))).sum())
        assert 2 * both == pytest.approx(pearson, abs=1e-12)


def test_the_best_discriminator_of_the_hinge_counts_the_total_variation():
    best = np.sign(P - Q)
    variation = np.abs(P - Q).sum() / 2
    assert cost(GAMES["hinge"], best) == pytest.approx(2 - 2 * variation, abs=1e-12)
    for place in np.flatnonzero(best * P * Q):  # beyond 1 it is flat where only one of the two goes
        for step in (-0.1, 0.1):
            assert cost(GAMES["hinge"], best + step * np.eye(6)[place]) > cost(GAMES["hinge"], best) + 1e-3


def test_the_best_energy_is_the_margin_where_fakes_prevail():
    game, margin = GAMES["energy_margin"], 2.0
    best = np.where(P < Q, -margin, 0.0)  # a logit is minus an energy, so never above 0
    assert game.boundary == -margin / 2
    for place in np.flatnonzero(P != Q):
        for value in np.linspace(-3, 0, 13):
            other = np.where(np.arange(6) == place, value, best)
            assert cost(game, other) >= cost(game, best) - 1e-12


def test_a_wasserstein_discriminator_of_slope_one_reaches_minus_the_distance():
    real, fake = jnp.array([3.0, 5.0]), jnp.array([1.0, 2.0])  # W1 = (3 - 1 + 5 - 2) / 2
    on_real, on_fake = GAMES["wasserstein"].discriminator(real, fake)
    assert float(on_real.mean() + on_fake.mean()) == -2.5
    assert GAMES["wasserstein"].boundary is None


@pytest.mark.parametrize("name", GAMES)
def test_losses_are_one_for_each_logit(name):
    real, fake = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    together = (*GAMES[name].discriminator(real, fake), GAMES[name].generator(fake))
    assert all(part.shape == (3, 4, 5) for part in together)
    alone = (*GAMES[name].discriminator(real[1, 2, 3], fake[1, 2, 3]), GAMES[name].generator(fake[1, 2, 3]))
    for part, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(part[1, 2, 3], one, rtol=1e-6)


def test_a_config_names_them():
    for name in GAMES:
        made = build({"name": name}, "gan_loss", "config.method.loss")
        assert isinstance(made, losses.GANLoss)
    made = build({"name": "least_squares", "a": -1, "c": 0}, "gan_loss", "config.method.loss")
    assert float(made.generator(jnp.float32(2.0))) == 2.0
    with pytest.raises(UserError, match="did you mean 'hinge'"):
        build({"name": "hinges"}, "gan_loss", "config.method.loss")


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="above that of fakes"):
        losses.LeastSquares(a=1.0, b=0.0)
    with pytest.raises(UserError, match="margin must be above 0"):
        losses.EnergyMargin(0.0)


def test_a_relativistic_game_is_symmetric_and_knows_no_constant():
    game = losses.Relativistic()
    real, fake = jax.random.normal(jax.random.key(0), (2, 50))
    mine = losses.generator_loss(game, fake, real)
    theirs = sum(losses.game(game, fake, real))  # the discriminator's loss with the two kinds exchanged
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    np.testing.assert_allclose(losses.generator_loss(game, fake + 7, real + 7), mine, rtol=1e-5)
    assert float(mine) != pytest.approx(float(losses.generator_loss(game, fake, real + 7)), rel=0.1)
    np.testing.assert_allclose(sum(losses.game(game, jnp.ones(4), jnp.ones(4))), 2 * np.log(2), rtol=1e-6)
    with pytest.raises(UserError, match="logits of real images"):
        losses.generator_loss(game, fake)


@pytest.mark.parametrize("name", sorted(GAMES))
def test_a_game_on_several_maps_is_the_sum_of_the_games(name):
    game = GAMES[name]
    maps = [(jax.random.normal(jax.random.key(i), (2, 3, side, side))) for i, side in enumerate((4, 2))]
    real, fake = ({"fine": maps[0][k], "coarse": maps[1][k]} for k in (0, 1))
    for k, total in enumerate(losses.game(game, real, fake)):
        apart = sum(float(losses.game(game, of[0], of[1])[k]) for of in maps)
        np.testing.assert_allclose(total, apart, rtol=1e-5)
    of_generator = sum(float(losses.generator_loss(game, of[1])) for of in maps)
    np.testing.assert_allclose(losses.generator_loss(game, fake), of_generator, rtol=1e-5)
